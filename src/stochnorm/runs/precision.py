"""Precision `auto`: on CPUs the faster one, by a measurement that the user's cache keeps."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from stochnorm.files import cache_directory, locked, private_directory, write_text
from stochnorm.nn.cpu import depthwise, kernel
from stochnorm.nn.cpu.accelerate import accelerate_convolutions

__all__ = ["Precision", "resolve", "resolve_unmeasured"]

_SLOWER = 1.1  # times float32's time; up to there bfloat16 is chosen, for its smaller activations
_ROUNDS, _SECONDS = 3, 0.4  # at least, of each measurement; the first round does not count
_in_process: dict[str, tuple[float, float]] = {}


class Precision(NamedTuple):
    """The precision of a run."""

    name: str
    """`32`, `bf16` or `16`."""
    measured: dict[str, Any] | None = None
    """What `auto` was decided by: the kind of convolutions, milliseconds in both precisions, and the choice."""


def resolve(device: str, precision: str, model: nn.Module | None = None) -> Precision:
    """Return the precision to compute in.

    `auto` is bf16 on GPUs that support it. On an x86 CPU that supports it, convolutions of the model's kind are timed
    in both precisions, and bf16 is chosen unless it takes more than 1.1 times as long: it halves the memory for
    activations. Everywhere else `auto` is 32.

    Args:
        device: `cpu`, `cuda` or `mps`.
        precision: `32`, `bf16`, `16` or `auto`.
        model: Network to choose for. None: a network without depthwise convolutions.
    """
    if precision != "auto":
        return Precision(precision)
    if device == "cuda":
        return Precision("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32")
    if device != "cpu" or not _cpu_has_bf16():
        return Precision("32")
    kind = "depthwise" if model is not None and _has_depthwise(model) else "dense"
    bf16, fp32 = _kept_times(kind)
    name = choice(bf16, fp32)
    measured = {"kind": kind, "bf16_ms": bf16, "fp32_ms": fp32, "chosen": name}
    return Precision(name, measured)


def choice(bf16: float, fp32: float) -> str:
    """Return `bf16` or `32` by the times of the same work in both.

    Example:
        >>> choice(bf16=10.9, fp32=10.0), choice(bf16=11.1, fp32=10.0)
        ('bf16', '32')
    """
    return "bf16" if bf16 <= _SLOWER * fp32 else "32"


def resolve_unmeasured(device: str, precision: str, model: nn.Module) -> Precision:
    """Return the precision that earlier versions computed in, for runs that they began: `auto` by what CPUs can do."""
    if precision != "auto" or device != "cpu" or not _cpu_has_bf16():
        return resolve(device, precision)
    return Precision("bf16" if torch.cpu._is_amx_tile_supported() or _has_depthwise(model) else "32")


def _cpu_has_bf16() -> bool:
    x86 = platform.machine() in ("x86_64", "AMD64")
    return x86 and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _has_depthwise(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels for module in model.modules())


def _kept_times(kind: str) -> tuple[float, float]:
    """Return the milliseconds in bfloat16 and in float32, from the cache or measured and put there.

    Processes that come at once wait for the first of them, so that all runs of a comparison get the same times. A file
    that is damaged is replaced. Without a cache, only the process knows the times.
    """
    about = _about(kind)
    text = json.dumps(about, sort_keys=True)
    if text in _in_process:
        return _in_process[text]
    path: Path | None = None
    with ExitStack() as stack:
        try:
            path = cache_directory("precision") / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
            if (times := _read(path)) is not None:
                return times
            private_directory(path.parent)
            stack.enter_context(locked(path.with_suffix(".lock"), timeout=60))
        except (OSError, RuntimeError):  # no home directory, no cache, or no locks there
            path = None
        times = None if path is None else _read(path)
        if times is None:
            times = _in_process[text] = measure(kind)
            if path is not None:
                _write(path, {**about, "bf16_ms": times[0], "fp32_ms": times[1]})
    return times


def _read(path: Path) -> tuple[float, float] | None:
    """Return the times in a file; None if it is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        bf16, fp32 = float(found["bf16_ms"]), float(found["fp32_ms"])
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return (bf16, fp32) if 0 < bf16 < math.inf and 0 < fp32 < math.inf else None


def _write(path: Path, content: dict[str, Any]) -> None:
    with suppress(OSError):
        write_text(path, json.dumps(content, indent=2) + "\n")


def _about(kind: str) -> dict[str, Any]:
    """Return what the times depend on."""
    processor, flags = _processor()
    return {
        "kind": kind,
        "processor": processor,
        "flags": hashlib.sha256(flags.encode()).hexdigest()[:16],
        "torch": torch.__version__,
        "stochnorm": version("stochnorm"),
        "kernels": [library is not None for library in (kernel.library, depthwise.library)],
    }


def _processor() -> tuple[str, str]:
    """Return the name of the processor, and its flags where the system tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    found: dict[str, str] = {}
    for line in lines:  # of each core; the first one tells
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found.get("model name", platform.processor()), found.get("flags", "")


def measure(kind: str) -> tuple[float, float]:
    """Return the milliseconds of convolutions forward and backward, in bfloat16 and in float32, as a job runs them.

    They are processor time of one thread, which other work on the machine changes little; and so all runs of a machine
    choose the same, with any number of threads.

    Args:
        kind: `dense`, as in ResNet-50's second stage; or `depthwise`, as in EfficientNet-Lite0's, by the compiled
            kernel if it was built.
    """
    with torch.random.fork_rng(devices=[]):
        if kind == "dense":
            layers = nn.Sequential(
                nn.Conv2d(512, 128, 1, bias=False),
                nn.Conv2d(128, 128, 3, padding=1, bias=False),
                nn.Conv2d(128, 512, 1, bias=False),
            )
            input = torch.randn(2, 512, 28, 28)
        else:
            layers = nn.Sequential(
                nn.Conv2d(24, 144, 1, bias=False),
                nn.Conv2d(144, 144, 5, padding=2, groups=144, bias=False),
                nn.Conv2d(144, 24, 1, bias=False),
            )
            input = torch.randn(8, 24, 32, 32)
    accelerate_convolutions(layers)
    layers.to(memory_format=torch.channels_last)
    input = input.contiguous(memory_format=torch.channels_last).requires_grad_()
    records: dict[bool, list[float]] = {True: [], False: []}
    with _one_thread():
        for _ in _rounds():
            for half, record in records.items():
                start = time.thread_time()
                with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                    output = layers(input)
                    torch.autograd.grad(output, [input, *layers.parameters()], torch.ones_like(output))
                record.append(time.thread_time() - start)
    bf16, fp32 = (round(1e3 * min(record[1:]), 3) for record in records.values())
    return bf16, fp32


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _rounds() -> Iterator[int]:
    """Count rounds: one to warm up, then at least so many as `_ROUNDS`, for at least `_SECONDS`."""
    count, end = 0, time.perf_counter() + _SECONDS
    while count <= _ROUNDS or time.perf_counter() < end:
        yield count
        count += 1
