"""The Triton kernels, compiled for GPUs that need not be there: registers, memory, vector instructions."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from stochnorm.nn.cuda.tiling import tiling

triton = pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource, compile  # noqa: E402

from stochnorm.nn.cuda import backward, forward  # noqa: E402

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
pytestmark = pytest.mark.skipif(not (TOOLS / "cuobjdump").exists(), reason="Triton came without NVIDIA's tools")

VECTORS = {
    **dict.fromkeys(("shares", "statistics", "running_mean", "running_var", "mean", "weight", "bias"), "*fp32"),
    **dict.fromkeys(("outer", "channels", "inner", "steps", "programs", "values"), "i32"),
    **dict.fromkeys(("eps", "momentum"), "fp32"),
    "use_batch": "*i1",
    "batches": "*i64",
    "results": "*fp32",
    "PROGRAMS": 512,
    "CHANNELS": 8,
    **dict.fromkeys(("var", "residual", "beside", "behind", "grad_input")),
    "ACTIVATION": 0,
    "FROM": "input",
}
"""Types of the arguments, or values of those that a kernel is compiled for."""


def build(kernel: Any, arguments: dict[str, Any], warps: int, architecture: int) -> Any:
    signature, constants, alignment = {}, {}, {}
    for position, parameter in enumerate(kernel.params):
        value = arguments[parameter.name]
        if isinstance(value, str) and (value[0] == "*" or value in ("i32", "fp32")):
            signature[parameter.name] = value
            if value[0] == "*":
                alignment[position,] = [["tt.divisibility", 16]]
        else:
            signature[parameter.name] = "constexpr"
            constants[position,] = value
    source = ASTSource(kernel, signature, constants, alignment)
    return compile(source, target=GPUTarget("cuda", architecture, 32), options={"num_warps": warps})


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the compiled kernels apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


def usage(compiled: Any, folder: Path) -> dict[str, int]:
    """Return registers a thread, bytes of local memory that they spill to, and shared memory a program."""
    file = folder / "kernel.cubin"
    file.write_bytes(compiled.asm["cubin"])
    lines = subprocess.run([TOOLS / "cuobjdump", "-res-usage", file], capture_output=True, text=True, check=True).stdout
    return {key: int(value) for key, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", lines)}


# The activation and what its derivative is computed from, with or without a residual.
KINDS = {
    "plain": {"ACTIVATION": 0},
    "silu": {"ACTIVATION": 3},
    "residual + relu6": {"ACTIVATION": 2, "FROM": "output", "residual": "*", "beside": "*", "behind": "*"},
    "residual + silu": {"ACTIVATION": 3, "FROM": "residual", "residual": "*", "beside": "*", "behind": "*"},
}
LAYOUTS = {
    "channels_last": ((48, 24, 56, 56), True),
    "contiguous": ((48, 256, 56, 56), False),
    "7 x 7": ((48, 512, 7, 7), False),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("architecture", "dtype"), [(90, "bf16"), (90, "fp32"), (80, "bf16")])
@pytest.mark.usefixtures("own_cache")
def test_no_kernel_spills_and_all_load_vectors(architecture: int, dtype: str, layout: str, tmp_path: Path) -> None:
    shape, last = LAYOUTS[layout]
    itemsize = {"bf16": 2, "fp32": 4}[dtype]
    tiles, pairs = (tiling(torch.Size(shape), last, itemsize, 132, pairs=pairs) for pairs in (False, True))
    kernels = [("moments", forward.moments, tiles, 8, "plain")]
    kinds = KINDS if (architecture, dtype) == (90, "bf16") else ["residual + silu"]
    for kind in kinds:
        kernels += [("apply", forward.apply, tiles, tiles.warps, kind)]
        kernels += [("products", backward.products, pairs, 8, kind)]
        kernels += [("gradient", backward.gradient, tiles, tiles.warps, kind)]
    for name, kernel, cut, warps, kind in kernels:
        constants = dict(zip(("LAST", "VECTOR", "ROWS", "COLUMNS"), cut.constants, strict=True))
        given = {key: f"*{dtype}" if value == "*" else value for key, value in KINDS[kind].items()}
        images = dict.fromkeys(("x", "y", "grad"), f"*{dtype}")
        if name == "gradient":
            images["grad_input"] = f"*{dtype}"
        compiled = build(kernel, VECTORS | constants | images | given, warps, architecture)
        used = usage(compiled, tmp_path)
        assert used["STACK"] == used["LOCAL"] == 0, f"{name}, {kind}: {used}"
        together = 2 if constants["VECTOR"] > 1 else 1
        assert used["REG"] * warps * 32 * together <= 65536, f"{name}, {kind}: {together} programs do not fit, {used}"
        assert used["SHARED"] + compiled.metadata.shared <= 49152 + 1024
        if warps == 8 and name in ("moments", "products") and constants["VECTOR"] > 1:
            assert "cp.async" in compiled.asm["ptx"]  # the copies run ahead
            assert used["REG"] <= 80 or kind.startswith("residual")  # three programs are resident
        loads = re.findall(r"ld\.global\.(v4\.b32|v2\.b32|b\d+)", compiled.asm["ptx"])
        if constants["VECTOR"] * itemsize == 16 and last:
            assert set(loads) <= {"v4.b32", "b64"}, f"{name}, {kind}"  # b64 is the counter of batches
        elif constants["VECTOR"] * itemsize == 16:
            assert "v4.b32" in loads or "cp.async.cg.shared.global" in compiled.asm["ptx"]


@pytest.mark.parametrize("sizes", [(512, 8), (64, 32), (8, 32)], ids=str)
@pytest.mark.parametrize("kernel", ["settle", "finish"])
@pytest.mark.usefixtures("own_cache")
def test_the_small_kernels_do_not_spill(kernel: str, sizes: tuple[int, int], tmp_path: Path) -> None:
    function = forward.settle if kernel == "settle" else backward.finish
    for absent in ({}, {"use_batch": None, "momentum": None}):
        arguments = VECTORS | absent | dict(zip(("PROGRAMS", "CHANNELS"), sizes, strict=True))
        used = usage(build(function, arguments, 4, 90), tmp_path)
        assert used["STACK"] == used["LOCAL"] == 0
        assert used["REG"] <= 128
