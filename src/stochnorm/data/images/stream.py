"""Batches made ahead by processes or a thread, in memory that a GPU copies from directly."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stochnorm.data.images.ahead import map_ahead

__all__ = ["pinned", "send", "stream"]

Batch = TypeVar("Batch", Tensor, tuple[Tensor, ...], tuple[Tensor, Tensor])


def stream(batches: Dataset[Batch], numbers: range, *, workers: int, device: torch.device) -> Iterable[Batch]:
    """Yield the batches of the given numbers, on the CPU.

    Args:
        batches: Dataset that maps a number to a batch.
        numbers: Numbers of the batches, in order.
        workers: Number of processes that make batches. With 0, a thread makes two ahead for a GPU; for a CPU they are
            made when they are needed, since the training step leaves no core idle.
        device: Device that the batches go to. They lie in pinned memory if it is a CUDA device.
    """
    if workers:
        return DataLoader(
            batches,
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            pin_memory=device.type == "cuda",
            worker_init_fn=_ignore_interrupt,
        )
    return map_ahead(
        lambda number: pinned(batches[number], device), numbers, threads=1, ahead=0 if device.type == "cpu" else 2
    )


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the CPU to a device; to a CUDA device without waiting for the copy."""
    return tensor.to(device, non_blocking=device.type == "cuda")


def pinned(batch: Any, device: torch.device) -> Any:
    """Copy a tensor, or each one of a tuple, to memory that a CUDA device copies from directly."""
    if device.type != "cuda":
        return batch
    with torch.cuda.device(device):  # pinned memory belongs to the thread's current device, which is 0 in a new thread
        return batch.pin_memory() if isinstance(batch, Tensor) else tuple(tensor.pin_memory() for tensor in batch)


def _ignore_interrupt(worker: int) -> None:
    """Ignore Ctrl-C, which reaches every process of a terminal: the main process ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
