# mypy: ignore-errors
# ruff: noqa: N803, N806, SIM102, SIM108 (constants that a kernel is compiled for)
"""Triton kernels of the forward pass: three passes over the data, two reads and one write.

`moments` reads the input and leaves mean and sum of squares of a share of each channel. `settle` combines the shares,
chooses the statistics of each channel and updates the moving ones. `apply` reads the input again and writes the output;
it begins where `moments` ended, since those values may still be in the cache.
"""

import triton
import triton.language as tl

from stochnorm.nn.cuda.tiles import activate, locate, spread, whole

__all__ = ["apply", "moments", "settle"]

_SIZES = ["outer", "channels", "inner", "steps", "programs"]


@triton.jit(do_not_specialize=_SIZES)
def moments(
    x,  # input
    shares,  # float32: means (programs, channels), sums of squared differences (programs, channels), counts (programs)
    batches,  # int64 (): counted up; or None
    outer,
    channels,
    inner,
    steps,
    LAST: tl.constexpr,
    VECTOR: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Compute mean and sum of squares of a share of the steps, for one block of channels. Grid: (blocks, programs).

    Values are summed less the mean of the share's first tile. The first tile is a part of the share, so the variance of
    the share is at least (mean - first mean)^2 / tiles: cancellation costs at most a factor of the number of tiles.
    """
    block = tl.program_id(0)
    program = tl.program_id(1)
    programs = tl.num_programs(1)
    AXIS: tl.constexpr = 0 if LAST else 1
    if batches is not None:
        if block + program == 0:
            tl.store(batches, tl.load(batches) + 1)
    offsets, inside, channel, values = locate(program, block, outer, channels, inner, LAST, VECTOR, ROWS, COLUMNS)
    tile = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
    count = values.to(tl.float32)
    first = tl.sum(tile, axis=AXIS) / count
    first = tl.where(tl.abs(first) < float("inf"), first, 0.0)
    tile = tl.where(inside, tile - spread(first, LAST), 0.0)
    sums = tile
    squares = tile * tile
    # The stages are copies to shared memory ahead of the sums; plain loads would wait for each other.
    for step in tl.range(program + programs, steps, programs, num_stages=3):
        offsets, inside, channel, values = locate(step, block, outer, channels, inner, LAST, VECTOR, ROWS, COLUMNS)
        tile = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
        tile = tl.where(inside, tile - spread(first, LAST), 0.0)
        sums += tile
        squares += tile * tile
        count += values.to(tl.float32)
    away = tl.sum(sums, axis=AXIS) / count
    squared = tl.sum(squares, axis=AXIS) - away * away * count
    at = program * channels + channel
    tl.store(shares + at, first + away, mask=channel < channels)
    tl.store(shares + programs * channels + at, tl.where(squared < 0, 0.0, squared), mask=channel < channels)
    if block == 0:
        tl.store(shares + 2 * programs * channels + program, count)


@triton.jit(do_not_specialize=[*_SIZES, "momentum"], do_not_specialize_on_alignment=["use_batch"])
def settle(
    shares,  # of moments
    statistics,  # float32 (3, channels): mean and variance to normalize by, batch mean
    running_mean,  # float32 (channels,), updated, like running_var
    running_var,
    use_batch,  # bool (channels,); None is all True
    batches,  # int64 (); read if momentum is None
    momentum,  # float; None is the cumulative average
    channels,
    programs,
    PROGRAMS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Combine the shares, choose the statistics, update the moving ones, for CHANNELS channels. Grid: (blocks,)."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    program = tl.arange(0, PROGRAMS)
    here = channel < channels
    inside = (program < programs)[:, None] & here[None, :]
    at = program[:, None] * channels + channel[None, :]
    counts = tl.load(shares + 2 * programs * channels + program, mask=program < programs, other=0.0)
    means = tl.load(shares + at, mask=inside, other=0.0)
    squares = tl.load(shares + programs * channels + at, mask=inside, other=0.0)
    first = tl.load(shares + channel, mask=here, other=0.0)
    m = tl.sum(counts, axis=0)
    means = tl.where(inside, means - first[None, :], 0.0)  # small, so that rounding them costs little
    away = tl.sum(counts[:, None] * means, axis=0) / m
    means = means - away[None, :]
    batch_mean = first + away
    batch_var = (tl.sum(squares, axis=0) + tl.sum(counts[:, None] * means * means, axis=0)) / m
    moving_mean = tl.load(running_mean + channel, mask=here, other=0.0)
    moving_var = tl.load(running_var + channel, mask=here, other=1.0)
    if momentum is None:
        rate = 1.0 / tl.load(batches).to(tl.float32)
    else:
        rate = momentum
    unbiased = batch_var * (m / (m - 1))
    tl.store(running_mean + channel, moving_mean + rate * (batch_mean - moving_mean), mask=here)
    tl.store(running_var + channel, moving_var + rate * (unbiased - moving_var), mask=here)
    mean = batch_mean
    var = batch_var
    if use_batch is not None:
        chosen = tl.load(use_batch + channel, mask=here, other=0) != 0
        mean = tl.where(chosen, batch_mean, moving_mean)
        var = tl.where(chosen, batch_var, moving_var)
    tl.store(statistics + channel, mean, mask=here)
    tl.store(statistics + channels + channel, var, mask=here)
    tl.store(statistics + 2 * channels + channel, batch_mean, mask=here)


@triton.jit(do_not_specialize=[*_SIZES, "eps"])
def apply(
    x,  # input
    y,  # output
    residual,  # like the input, or None
    mean,  # float32 (channels,)
    var,  # float32 (channels,), or None: it follows the mean
    weight,  # float32 (channels,), or None, like bias
    bias,
    eps,
    outer,
    channels,
    inner,
    ACTIVATION: tl.constexpr,
    LAST: tl.constexpr,
    VECTOR: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Normalize one tile, add the residual, activate. Grid: (blocks * steps,).

    The mean is subtracted first: a shift of the form bias - mean * scale would cancel digits if the mean is large.
    """
    if LAST:
        channels = whole(channels, VECTOR)
    blocks = tl.cdiv(channels, COLUMNS if LAST else ROWS)
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    offsets, inside, channel, _ = locate(
        tile // blocks, tile % blocks, outer, channels, inner, LAST, VECTOR, ROWS, COLUMNS
    )
    here = channel < channels
    z = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
    center = tl.load(mean + channel, mask=here, other=0.0)
    scale = tl.rsqrt(tl.load((mean + channels if var is None else var) + channel, mask=here, other=1.0) + eps)
    if weight is not None:
        scale *= tl.load(weight + channel, mask=here, other=0.0)
    z = (z - spread(center, LAST)) * spread(scale, LAST)
    if bias is not None:
        z += spread(tl.load(bias + channel, mask=here, other=0.0), LAST)
    if residual is not None:
        z += tl.load(residual + offsets, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + offsets, activate(z, ACTIVATION).to(y.dtype.element_ty), mask=inside)
