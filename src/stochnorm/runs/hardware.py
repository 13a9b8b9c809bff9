"""Device, precision and processes of a run, by Lightning Fabric."""

from __future__ import annotations

import atexit
import logging
import os
import platform
import sys
from contextlib import suppress
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn

from stochnorm.nn.cpu import depthwise, kernel
from stochnorm.nn.cuda.memory import peak_memory, reset_peak_memory
from stochnorm.runs.precision import Precision, resolve

__all__ = [
    "PeakMemory",
    "check_device",
    "check_one_process",
    "environment",
    "is_first_process",
    "launch",
    "precision_of",
]

# The first process evaluates while the others wait; torchrun ends them if it fails.
_PATIENCE = timedelta(days=1)
_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def is_first_process() -> bool:
    """Return whether this is the first, or the only, process of a run."""
    return int(os.environ.get("RANK", 0)) == 0


def check_one_process(rule: str, remedy: str = "start it without torchrun") -> None:
    """Raise ValueError if this is one of several processes; the message has the rule, their number and the remedy."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if processes > 1:
        raise ValueError(f"{rule}, got {processes}; {remedy}")


def check_device(device: str, precision: str) -> str:
    """Return the device, with auto resolved.

    Args:
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: As for [stochnorm.runs.hardware.launch][].

    Raises:
        ValueError: The device is not available, or does not support the precision.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(name for name, present in available.items() if present)
    if not available[device]:
        raise ValueError(f"device {device} is not available on this machine, or in this PyTorch; use cpu")
    if (device, precision) == ("cpu", "16"):
        raise ValueError("precision 16 needs a GPU; on the CPU use bf16 or 32")
    return device


def launch(device: str = "auto", precision: str = "auto", model: nn.Module | None = None) -> Fabric:
    """Return a launched Fabric on one device, or on those of the processes that torchrun started.

    Args:
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: `32`, `bf16`, `16` (autocast), or `auto`, see [stochnorm.runs.precision.resolve][]. All processes
            take that of the first.
        model: Network that auto chooses for; on CPUs the choice depends on its convolutions.

    Raises:
        ValueError: The device is not available, or does not support the precision.
    """
    for name in ("lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    device = check_device(device, precision)
    name = resolve(device, precision, model).name
    fabric = _launched(device, name)
    first: str = fabric.broadcast(name)
    return fabric if first == name else _launched(device, first)


def _launched(device: str, precision: str) -> Fabric:
    world_size, local_world_size = (int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    fabric = Fabric(
        accelerator=device,
        devices=local_world_size,
        num_nodes=world_size // local_world_size,
        strategy=DDPStrategy(timeout=_PATIENCE) if world_size > 1 else "auto",
        precision=_PRECISION[precision],  # type: ignore[arg-type]
    )
    fabric.launch()
    if world_size > 1:
        atexit.register(_leave_group)
    return fabric


def _leave_group() -> None:
    """Destroy the process group; a gloo group whose threads outlive the interpreter aborts the process at times."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def environment(fabric: Fabric, precision: Precision | None = None) -> dict[str, Any]:
    """Return versions, device, processes and precision of a run, for its result; and what `auto` was decided by."""
    return {
        **{name: version(name) for name in ("stochnorm", "torch", "torchvision", "timm", "lightning-fabric")},
        "python": platform.python_version(),
        "device": _device_name(fabric.device),
        "processes": fabric.world_size,
        "threads": torch.get_num_threads(),
        "precision": precision_of(fabric),
        **({"precision_measured": precision.measured} if precision and precision.measured else {}),
        "cpu_kernels": [
            name for name, built in (("stochnorm", kernel.library), ("depthwise", depthwise.library)) if built
        ],
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {platform.machine()}"


class PeakMemory:
    """The peak memory since the object was made: of the GPU, or on Linux of the process."""

    def __init__(self, fabric: Fabric) -> None:
        self._device = fabric.device
        if self._device.type == "cuda":
            reset_peak_memory(self._device)
        elif sys.platform == "linux":
            with suppress(OSError):  # not every container may reset the count
                Path("/proc/self/clear_refs").write_text("5")

    def gigabytes(self) -> float | None:
        """Return the peak memory in units of 1e9 bytes; None where it is unknown."""
        if self._device.type == "cuda":
            return peak_memory(self._device) / 1e9
        if sys.platform == "linux":
            status = Path("/proc/self/status").read_text()
            return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e9
        return None


def precision_of(fabric: Fabric) -> str:
    """Return the name of the precision, such as `bf16-mixed`."""
    return str(fabric._precision.precision)
