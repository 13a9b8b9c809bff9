"""Decoded images that live on a device: uploaded once, and found again by the next run on the same images."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import closing

import torch
from torch import Tensor

from stochnorm.data.images.ahead import map_ahead
from stochnorm.data.images.preprocessing import Preprocessing
from stochnorm.data.images.readable import THREADS
from stochnorm.data.images.store import ImageStore
from stochnorm.data.images.stream import pinned
from stochnorm.files import FileStamp
from stochnorm.nn.cuda.memory import free_memory

__all__ = ["SHARE", "ResidentImages", "fits", "keep", "release", "resident"]

SHARE = 0.25
"""Share of a GPU's free memory that images may take up. The model, its gradients and activations need the rest."""

_CHUNK = 16 * 2**20  # bytes that a thread reads at a time
_THREADS = min(THREADS, 8)  # up to 17 chunks wait in pinned memory, which PyTorch keeps


class ResidentImages:
    """Images of a store on a device.

    Args:
        store: The images.
        indices: Which of them, by their places in the store.
        device: Where they live.

    Attributes:
        images: The images, uint8 (n, resize, resize, 3), on the device.

    Raises:
        torch.OutOfMemoryError: The device has no room.
    """

    def __init__(self, store: ImageStore, indices: Sequence[int], device: torch.device) -> None:
        side = store.preprocessing.resize
        self.images = torch.empty((len(indices), side, side, 3), dtype=torch.uint8, device=device)
        self._kind = _kind(store.preprocessing, device)
        self._slots = {name: slot for slot, name in enumerate(_names(store, indices))}
        step = max(_CHUNK // (3 * side**2), 1)

        def read(start: int) -> Tensor:
            images = torch.empty((len(indices[start : start + step]), side, side, 3), dtype=torch.uint8)
            for place, index in enumerate(indices[start : start + step]):
                images[place] = store[index].movedim(0, -1)
            chunk: Tensor = pinned(images, device)
            return chunk

        starts = range(0, len(indices), step)
        ahead = 0 if device.type == "cpu" else _THREADS
        with closing(map_ahead(read, starts, threads=_THREADS, ahead=ahead)) as chunks:
            for start, images in zip(starts, chunks, strict=True):
                self.images[start : start + step].copy_(images, non_blocking=device.type == "cuda")

    def slots(self, store: ImageStore, indices: Sequence[int], device: torch.device) -> list[int] | None:
        """Return the places of images of a store in `images`; None if one of them is not there."""
        if self._kind != _kind(store.preprocessing, device):
            return None
        found = [self._slots.get(name, -1) for name in _names(store, indices)]
        return None if -1 in found else found


_of_store: weakref.WeakKeyDictionary[ImageStore, ResidentImages] = weakref.WeakKeyDictionary()
_kept: list[ResidentImages] = []  # one at most
_keeping = False


def resident(
    store: ImageStore, indices: Sequence[int], device: torch.device, *, free: float | None = None
) -> tuple[Tensor, Tensor] | None:
    """Return images that are on the device; upload them first if they fit.

    All images of the store are uploaded if they fit into [stochnorm.data.images.resident.SHARE][] of the free memory,
    so that its other splits find theirs there; else those that are asked for first, if they fit. They live as long as
    the store; after [stochnorm.data.images.resident.keep][] longer.

    Args:
        store: The images.
        indices: Which of them, by their places in the store.
        device: Where they live.
        free: Free memory of the device in bytes; None: it is asked.

    Returns:
        Images of the store, uint8 (n, resize, resize, 3), and where in them each one of `indices` is, int64, both on
        the device. None if the images do not fit.
    """
    if (found := _there(store, indices, device)) is not None:
        return found
    if store in _of_store:
        return None  # its other images did not fit
    _kept.clear()  # first: two may not fit
    free = free_memory(device) if free is None else free
    for chosen in (range(len(store)), indices):
        if fits(len(chosen), store.preprocessing.resize, free):
            try:
                _hold(store, ResidentImages(store, chosen, device))
            except torch.OutOfMemoryError:  # another process was faster
                return None
            return _there(store, indices, device)
    return None


def _there(store: ImageStore, indices: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Return images if all of them are on the device."""
    for images in (_of_store.get(store), *_kept):
        if images is not None and (slots := images.slots(store, indices, device)) is not None:
            _hold(store, images)
            return images.images, torch.tensor(slots, device=device)
    return None


def fits(count: int, side: int, free: float) -> bool:
    """Return whether images fit into their share of the free memory.

    Args:
        count: Number of images.
        side: Side of the images, pixels.
        free: Free memory of the device, bytes.

    Example:
        >>> fits(10_000, 256, free=20e9), fits(40_000, 256, free=20e9)
        (True, False)
    """
    return count * 3 * side**2 <= SHARE * free


def keep() -> None:
    """Keep the latest images on their device until others come, for a process that makes several runs on them."""
    global _keeping
    _keeping = True


def release() -> None:
    """Let go of the images that are kept; their memory is free when the last run that uses them has ended."""
    global _keeping
    _keeping = False
    _kept.clear()


def _hold(store: ImageStore, images: ResidentImages) -> None:
    _of_store[store] = images
    _kept[:] = [images] if _keeping else []


def _kind(preprocessing: Preprocessing, device: torch.device) -> tuple[object, ...]:
    return *preprocessing.kind, device


def _names(store: ImageStore, indices: Sequence[int]) -> Iterator[tuple[str, str, FileStamp | None]]:
    """Yield what tells images apart: root, path and stamp of each one's file."""
    root = str(store.root.resolve())
    return ((root, store.rows[index].path, store.stamps[index]) for index in indices)
