"""The kernels of Batch-Instance Normalization are compiled for an H100 or H200, which needs no GPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from stochnorm.nn.cuda.tiling import tiling

POINTERS = dict.fromkeys(("x", "y", "residual", "grad", "behind", "grad_input"), "*bf16") | {"batches": "*i64"}
NUMBERS = dict.fromkeys(("images", "outer", "channels", "inner", "steps", "programs", "values"), "i32")
NUMBERS |= dict.fromkeys(("momentum", "eps"), "fp32")


def compiled(kernel: Any, constants: dict[str, object], warps: int) -> str:
    """Return a kernel's PTX for compute capability 9.0; pointers are aligned as those of tensors are."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else NUMBERS.get(n, POINTERS.get(n, "*fp32")) for n in names}
    source = ASTSource(
        kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name][0] == "*"},
    )
    result = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    assert len(result.asm["cubin"]) > 1000
    return str(result.asm["ptx"])


@pytest.mark.parametrize("last", [True, False])
def test_the_kernels_compile_and_load_sixteen_bytes_at_once(
    last: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("interpreted, not compiled")
    from stochnorm.nn.cuda import instances_backward as backward
    from stochnorm.nn.cuda import instances_forward as forward

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    tiles, pairs = (tiling(torch.Size((1, 64, 56, 56)), last, 2, 2, pairs=pairs) for pairs in (False, True))
    names = ("LAST", "VECTOR", "ROWS", "COLUMNS")
    mapped, reduced = dict(zip(names, tiles.constants, strict=True)), dict(zip(names, pairs.constants, strict=True))
    combined = {"TRAINING": True, "IMAGES": 64, "CHANNELS": 32}
    sources = [
        compiled(forward.moments, mapped, 8),
        compiled(forward.apply, mapped | {"ACTIVATION": 1}, tiles.warps),
        compiled(backward.products, reduced | {"ACTIVATION": 3, "behind": None, "residual": None}, 8),
        compiled(backward.gradient, mapped | {"ACTIVATION": 2, "residual": None}, tiles.warps),
    ]
    assert all("ld.global.v4.b32" in ptx for ptx in sources)
    compiled(forward.settle, combined | {"momentum": None}, 4)
    compiled(backward.finish, combined | {"weight": None}, 4)
