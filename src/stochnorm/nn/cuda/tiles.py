# mypy: ignore-errors
# ruff: noqa: N803 (constants that a kernel is compiled for)
"""Pieces of the Triton kernels: where a tile lies, activations.

A dense input is read in tiles of ROWS x COLUMNS values; the columns lie side by side in memory:

| LAST | memory order | rows of a tile | columns of a tile | reduced axis |
|---|---|---|---|---|
| True | (outer, channels): channels_last and (b, c) | positions of images | channels | 0 |
| False | (outer, channels, inner): contiguous | channels | positions in one image | 1 |

The input is a grid of tiles: `blocks` of channels times `steps` along the reduced axis. VECTOR divides the length of
the axis that is contiguous in memory, so that one instruction can load VECTOR values.
"""

import triton
import triton.language as tl

__all__ = ["activate", "locate", "spread", "through_activation", "whole"]


@triton.jit
def whole(length, VECTOR: tl.constexpr):
    """Return a length that VECTOR divides, so that the compiler knows it."""
    return length // VECTOR * VECTOR


@triton.jit
def locate(
    step,
    block,
    outer,
    channels,
    inner,
    LAST: tl.constexpr,
    VECTOR: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Return offsets and mask of a tile (ROWS, COLUMNS), its channels, and its values per channel."""
    rows = tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    if LAST:
        width = whole(channels, VECTOR)
        channel = block * COLUMNS + columns
        start = step * (width.to(tl.int64) * ROWS) + block * COLUMNS
        values = tl.minimum(outer - step * ROWS, ROWS)
        inside = (rows < values)[:, None] & (channel < width)[None, :]
    else:
        width = whole(inner, VECTOR)
        steps = tl.cdiv(width, COLUMNS)
        image = step // steps
        position = step % steps * COLUMNS
        channel = block * ROWS + rows
        start = image * (channels.to(tl.int64) * width) + block * ROWS * width.to(tl.int64) + position
        values = tl.minimum(width - position, COLUMNS)
        inside = (channel < channels)[:, None] & (position + columns < width)[None, :]
    return start + (rows[:, None] * width + columns[None, :]), inside, channel, values


@triton.jit
def spread(vector, LAST: tl.constexpr):
    """Return a value per channel as a row or a column of a tile."""
    return vector[None, :] if LAST else vector[:, None]


@triton.jit
def activate(z, ACTIVATION: tl.constexpr):
    """Return the activation of z: 0 none, 1 ReLU, 2 ReLU6, 3 SiLU. NaN stays NaN."""
    if ACTIVATION == 1:
        z = tl.where(z <= 0, 0.0, z)
    elif ACTIVATION == 2:
        z = tl.where(z <= 0, 0.0, tl.where(z >= 6, 6.0, z))
    elif ACTIVATION == 3:
        z = z / (1 + tl.exp(-z))
    return z


@triton.jit
def through_activation(g, z, ACTIVATION: tl.constexpr):
    """Return g times the derivative of the activation at z; for 1 and 2, z may be the activation's output."""
    if ACTIVATION == 1:
        g = tl.where(z <= 0, 0.0, g)
    elif ACTIVATION == 2:
        g = tl.where((z <= 0) | (z >= 6), 0.0, g)
    elif ACTIVATION == 3:
        sigmoid = 1 / (1 + tl.exp(-z))
        g = g * (sigmoid * (1 + z * (1 - sigmoid)))
    return g
