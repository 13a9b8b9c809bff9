from __future__ import annotations

import pytest
import torch

from stochnorm.nn.cuda.check import small_shape
from stochnorm.nn.cuda.tiling import Tiling, format_of, tiling

RESNET50 = [(64, 112), (64, 56), (256, 56), (128, 28), (512, 28), (256, 14), (1024, 14), (512, 7), (2048, 7)]
SHAPES = [
    (2, 3), (300, 5), (1, 1, 2), (3, 5, 7), (48, 3, 224, 224), (7, 24, 57, 57), (5, 1000, 1, 1), (1, 3, 5, 5, 5),
]  # fmt: skip
SHAPES += [(48, c, s, s) for c, s in RESNET50]


def cover(tiles: Tiling) -> tuple[int, int]:
    """Return the channels and the values along the reduced axis that the tiles cover."""
    constants = tiles.constants
    if constants.last:
        return tiles.blocks * constants.columns, tiles.steps * constants.rows
    return tiles.blocks * constants.rows, tiles.steps * constants.columns


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_tiles_cover_every_value_and_suit_the_compiler(
    shape: tuple[int, ...], last: bool, itemsize: int, pairs: bool
) -> None:
    tiles = tiling(torch.Size(shape), last, itemsize, 132, pairs=pairs)
    constants = tiles.constants
    assert tiles.outer * tiles.channels * tiles.inner == torch.Size(shape).numel()
    channels, values = cover(tiles)
    assert channels >= tiles.channels
    assert values >= tiles.outer * tiles.inner
    for size in (constants.rows, constants.columns, constants.vector):
        assert size & (size - 1) == 0
    assert constants.rows * constants.columns <= 4096
    assert (tiles.channels if last else tiles.inner) % constants.vector == 0
    assert constants.vector * itemsize <= 16
    assert 1 <= tiles.programs <= min(512, tiles.steps)
    shares = -(-tiles.steps // tiles.programs)
    assert (tiles.programs - 1) * shares < tiles.steps  # no more programs than the largest share needs


@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("c", "s"), RESNET50)
def test_resnets_inputs_fill_a_gpu_by_whole_vectors(c: int, s: int, last: bool, itemsize: int) -> None:
    tiles = tiling(torch.Size((48, c, s, s)), last, itemsize, 132)
    assert tiles.blocks * tiles.programs >= 132
    assert tiles.blocks * tiles.steps >= 264
    assert tiles.constants.vector * itemsize == (16 if last or s % 4 == 0 else {14: 4 * itemsize, 7: itemsize}[s])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, (4, 7, 1024, 1024), (9, 33, 8, 8)], ids=str)
def test_the_check_runs_the_same_kernels_on_few_values(shape: tuple[int, ...], last: bool, dtype: torch.dtype) -> None:
    like = torch.empty(shape, dtype=dtype, device="meta")
    if last and len(shape) == 4:
        like = like.to(memory_format=torch.channels_last)
    small = small_shape(like)
    order, _ = format_of(like)
    arguments = order, dtype.itemsize, 1
    for pairs in (False, True):
        ours, right = (tiling(torch.Size(each), *arguments, pairs=pairs).constants for each in (small, shape))
        assert ours == right
    assert torch.Size(small).numel() <= 2**24


def test_the_memory_order_is_found() -> None:
    x = torch.randn(2, 3, 4, 5)
    last = torch.channels_last
    assert format_of(x) == (False, torch.contiguous_format)
    assert format_of(x.to(memory_format=last)) == (True, last)
    assert format_of(x[..., ::2]) == (False, torch.contiguous_format)
    assert format_of(torch.randn(2, 3)) == format_of(torch.randn(2, 3, 1, 1)) == (True, torch.contiguous_format)
    x = torch.randn(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d)
    assert format_of(x) == (True, torch.channels_last_3d)
