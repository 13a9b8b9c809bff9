"""Shares of a machine: how many runs share a GPU, and which GPUs each worker sees."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable

import torch

from stochnorm.runs.config import FinetuneConfig

__all__ = ["FULL_BATCH_PIXELS", "MOST_RUNS", "gpus_for", "pixels_of", "runs_per_gpu", "smallest_memory"]

FULL_BATCH_PIXELS = 48 * 224**2
"""Pixels of a batch that are taken to fill a GPU: 48 images of 224 px."""
MOST_RUNS = 4
"""Most runs that share a GPU by default."""
_BYTES = 2e9
"""Memory of a process: CUDA, the network, its momentum, the images."""
_BYTES_A_PIXEL = 4096
"""Memory of a pixel of a batch: about twice what a step of ResNet-50 in float32 was measured to take on a CPU (1.41 GB
for 16 images of 224 px), and more than VGG-16's maps (about 2,200 bytes)."""

_ASK = """
import sys, torch
print(min(torch.cuda.get_device_properties(i).total_memory for i in range(int(sys.argv[1]))))
"""


def runs_per_gpu(pixels: float, memory: float, cores: float) -> int:
    """Return how many runs share a GPU by default: as many as fill it, have memory there and a core each; at most four.

    Processes take turns on a GPU, so sharing gains what one run leaves idle: its start, its evaluations, its files.

    Args:
        pixels: Pixels of a batch that is computed at once, of the largest run.
        memory: Memory of the GPU, bytes.
        cores: CPU cores for each GPU.

    Example:
        >>> small = 32 * 128**2
        >>> runs_per_gpu(48 * 224**2, 141e9, 16), runs_per_gpu(small, 141e9, 16), runs_per_gpu(small, 8e9, 16)
        (1, 4, 1)
    """
    return max(int(min(MOST_RUNS, FULL_BATCH_PIXELS / pixels, memory / (_BYTES + _BYTES_A_PIXEL * pixels), cores)), 1)


def pixels_of(config: FinetuneConfig) -> int:
    """Return the pixels of the batch that a run computes at once."""
    side = config.image_size
    if not side:
        from stochnorm.models.backbones import native_image_size  # slow to import

        side = native_image_size(config.backbone)
    return -(-config.batch_size // config.accumulate) * side**2


def gpus_for(configs: Iterable[FinetuneConfig], processes: int) -> list[str]:
    """Return the names of the GPUs that this process may use for its runs; none if the runs compute on the CPU.

    Raises:
        ValueError: There is no GPU where one is asked for, or a run has more processes than there are GPUs.
    """
    devices = {config.device for config in configs} or {"auto"}
    if "cuda" in devices:
        from stochnorm.runs.hardware import check_device  # slow to import

        check_device("cuda", "auto")
    elif "auto" not in devices:
        return []
    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = (visible.split(",") if visible else [str(i) for i in range(count)])[:count]
    if names and processes > len(names):
        raise ValueError(
            f"processes {processes} need a GPU each, but this machine has {len(names)}; give --processes {len(names)} "
            "or less, or --device cpu"
        )
    return names


def smallest_memory(count: int) -> float:
    """Return the memory of the smallest of the first `count` GPUs that this process sees, in bytes; 0 if unknown.

    Asking starts CUDA, which takes memory on the GPUs until the process ends. So another process asks.
    """
    command = [sys.executable, "-c", _ASK, str(count)]
    asked = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 (our own)
    return 0.0 if asked.returncode else float(asked.stdout)
