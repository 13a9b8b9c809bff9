"""Batches made ahead by processes or a thread, in memory that a GPU copies from directly."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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

    Raises:
        ChildProcessError: One of the processes was ended.
        Exception: Making a batch raised it, in a process, too.
    """
    if workers and len(numbers):
        return _from_processes(batches, numbers, workers, device)
    return map_ahead(
        lambda number: pinned(batches[number], device), numbers, threads=1, ahead=0 if device.type == "cpu" else 2
    )


def _from_processes(batches: Dataset[Batch], numbers: range, workers: int, device: torch.device) -> Iterator[Batch]:
    loader: Iterable[Any] = DataLoader(
        _Attempts(batches),
        batch_size=None,
        sampler=numbers,
        num_workers=min(workers, len(numbers)),  # no process without a batch
        pin_memory=device.type == "cuda",
        worker_init_fn=_ignore_interrupt,
    )
    try:
        with _deaths_seen_by_the_loader_alone():
            arriving = iter(loader)
        for batch in arriving:
            if isinstance(batch, _Failure):
                raise batch.error
            yield batch
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise ChildProcessError(
            "a process that reads images was killed, perhaps for the memory it took; resume with fewer --workers"
        ) from error


@contextmanager
def _deaths_seen_by_the_loader_alone() -> Iterator[None]:
    """Take back the handler of SIGCHLD that PyTorch sets within the block.

    It raises an error wherever the program is as a reading process dies: in a training step, or in a `__del__`, where
    Python prints a traceback and goes on. The loader looks for itself, within five seconds.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield  # PyTorch sets none
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGCHLD) is not before:
            signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


@dataclass(frozen=True)
class _Failure:
    """An error in place of a batch: raised in its process, its message would contain a traceback."""

    error: Exception


class _Attempts(Dataset[Any]):
    """Batches, or the errors that making them raised."""

    def __init__(self, batches: Dataset[Any]) -> None:
        self._batches = batches

    def __getitem__(self, number: int) -> Any:
        try:
            return self._batches[number]
        except Exception as error:
            return _Failure(error)


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
