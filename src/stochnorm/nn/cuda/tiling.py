"""How the kernels cut an input into tiles: pure arithmetic on its shape."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Blocks", "Tiling", "format_of", "tiling"]

_TILE_BYTES = 8192  # 64 bytes a thread of 4 warps, 32 of 8
_PAIR_VALUES = 2048  # of a tile of two inputs
_PROGRAMS_A_PROCESSOR = 3  # resident together: 8 warps with 80 registers a thread; 48 KB of the input on their way
_MOST_PROGRAMS = 512  # along the reduced axis: one program combines their results at once
_LINE = 128  # bytes of a cache line


class Blocks(NamedTuple):
    """Constants that a kernel is compiled for; see `tiles.py`."""

    last: bool
    vector: int
    rows: int
    columns: int


class Tiling(NamedTuple):
    """An input of `outer` x `channels` x `inner` values as `blocks` x `steps` tiles; see `tiles.py`.

    The reducing kernels run `programs` programs a block of channels, each with an equal number of steps. The others run
    a program of `warps` warps a tile.
    """

    outer: int
    channels: int
    inner: int
    steps: int
    blocks: int
    programs: int
    warps: int
    constants: Blocks


def format_of(input: Tensor) -> tuple[bool, torch.memory_format]:
    """Return whether the channels are the last axis in memory, and the memory format that the input must have."""
    if input.dim() == 2 or input.numel() == input.size(0) * input.size(1):
        return True, torch.contiguous_format  # one value per channel and image: rows of channels in every format
    if input.dim() > 3 and not input.is_contiguous():
        last = torch.channels_last if input.dim() == 4 else torch.channels_last_3d
        if input.is_contiguous(memory_format=last):
            return True, last
    return False, torch.contiguous_format


@functools.lru_cache(maxsize=4096)
def tiling(shape: torch.Size, last: bool, itemsize: int, processors: int, *, pairs: bool = False) -> Tiling:
    """Return the tiles of an input of this shape on a GPU of so many multiprocessors; `pairs` reduces two inputs.

    Example:
        >>> tiling(torch.Size((48, 64, 56, 56)), True, 2, 132).constants
        Blocks(last=True, vector=8, rows=64, columns=64)
    """
    outer, channels, inner = shape[0], shape[1], shape[2:].numel()
    width = channels if last else inner
    vector = max(size for size in (1, 2, 4, 8) if size * itemsize <= 16 and width % size == 0)
    scattered = not last and vector * itemsize < 16  # a thread works on many channels, whose vectors take registers
    values = _PAIR_VALUES if pairs or scattered else _TILE_BYTES // itemsize
    if last:
        outer, inner = outer * inner, 1
        columns = min(_power_of_two(channels), _LINE // itemsize)
        rows = values // columns
        blocks, steps = _ceil(channels, columns), _ceil(outer, rows)
    else:
        columns = _columns(inner)
        rows = values // columns
        while rows > 1 and rows >= 2 * channels:
            rows //= 2
        blocks, steps = _ceil(channels, rows), outer * _ceil(inner, columns)
    target = max(1, min(_MOST_PROGRAMS, processors * _PROGRAMS_A_PROCESSOR // blocks))
    programs = _ceil(steps, _ceil(steps, target))
    warps = 8 if scattered else 4
    return Tiling(outer, channels, inner, steps, blocks, programs, warps, Blocks(last, vector, rows, columns))


def _columns(inner: int) -> int:
    """Return the width of tiles along one image: few values of the last tile of a row lie beyond its end."""
    sizes = [size for size in (1024, 512, 256, 128, 64) if size <= _power_of_two(inner)]
    if not sizes:
        return _power_of_two(inner)
    fitting = [size for size in sizes if 7 * size * _ceil(inner, size) <= 8 * inner]
    return fitting[0] if fitting else min(sizes, key=lambda size: size * _ceil(inner, size))


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
