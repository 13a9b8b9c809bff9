"""What stochnorm runs on: versions, device, kernels, caches."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from stochnorm.files import cache_directory
from stochnorm.nn.cpu import depthwise, kernel
from stochnorm.runs.leftovers import space_of
from stochnorm.text import size

__all__ = ["facts"]

_NEEDED = "torchvision timm lightning-fabric torchmetrics safetensors numpy scipy pillow matplotlib rich tyro plotly"
_EXTRAS = "optuna ray tensorboard mlflow wandb onnxruntime gradio cleanlab triton"
_VARIABLES = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "WORLD_SIZE", "COLUMNS", "LANG")


def facts() -> dict[str, str]:
    """Return what an issue needs to know, by its name: no user, host or folder."""
    needed = {name: _version(name) or "missing" for name in _NEEDED.split()}
    extras = [f"{name} {found}" for name in _EXTRAS.split() if (found := _version(name))]
    built = {"layer": kernel.library, "depthwise": depthwise.library}
    variables = [f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ]
    variables += [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("STOCHNORM_")]
    return {
        "stochnorm": _version("stochnorm"),
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} CPUs",
        "device": _device(),
        "cpu kernels": ", ".join(name for name, library in built.items() if library) or "none (slower, same results)",
        "torch": torch.__version__,
        **needed,
        "also installed": ", ".join(extras) or "none of the extras",
        "caches": size(space_of(cache_directory(""))),
        "variables": " ".join(variables) or "none",
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _device() -> str:
    """Return the devices that PyTorch can compute on."""
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return f"cuda {torch.version.cuda}: {', '.join(names)}"
    if torch.backends.mps.is_available():
        return "mps"
    return f"cpu, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
