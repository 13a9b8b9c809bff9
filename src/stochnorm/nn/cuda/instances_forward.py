# mypy: ignore-errors
# ruff: noqa: N803, N806, RUF059, SIM102, SIM108 (constants that a kernel is compiled for)
"""Triton kernels of Batch-Instance Normalization, forward: those of `forward.py` with an axis for the images.

A tile lies within one image. `moments` reads the input and leaves mean and sum of squares of a share of an image's
channel. With the statistics of every image, `settle` knows those of the batch, too. `apply` reads the input again and
writes the output.

An image's channel is normalized as (x - center) * scale + shift, with its own mean as the center. Each of the three is
float32 (images, channels).
"""

import triton
import triton.language as tl

from stochnorm.nn.cuda.tiles import activate, locate, spread, whole

__all__ = ["apply", "image_start", "moments", "settle"]

_SIZES = ["outer", "channels", "inner", "steps", "programs", "images"]


@triton.jit
def image_start(image, outer, channels, inner, LAST: tl.constexpr, VECTOR: tl.constexpr):
    """Return where an image begins."""
    if LAST:
        size = whole(channels, VECTOR).to(tl.int64) * outer
    else:
        size = whole(inner, VECTOR).to(tl.int64) * channels
    return image * size


@triton.jit(do_not_specialize=_SIZES)
def moments(
    x,  # input
    shares,  # float32 (2, images, programs, channels): means, sums of squared differences; counts (programs,)
    batches,  # int64 (): counted up; or None
    images,
    outer,
    channels,
    inner,
    steps,
    LAST: tl.constexpr,
    VECTOR: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Compute mean and sum of squares of a share of an image. Grid: (blocks, programs, images)."""
    block = tl.program_id(0)
    program = tl.program_id(1)
    image = tl.program_id(2)
    programs = tl.num_programs(1)
    AXIS: tl.constexpr = 0 if LAST else 1
    if batches is not None:
        if block + program + image == 0:
            tl.store(batches, tl.load(batches) + 1)
    x += image_start(image, outer, channels, inner, LAST, VECTOR)
    offsets, inside, channel, values = locate(program, block, outer, channels, inner, LAST, VECTOR, ROWS, COLUMNS)
    tile = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
    count = values.to(tl.float32)
    first = tl.sum(tile, axis=AXIS) / count
    first = tl.where(tl.abs(first) < float("inf"), first, 0.0)
    tile = tl.where(inside, tile - spread(first, LAST), 0.0)
    sums = tile
    squares = tile * tile
    for step in range(program + programs, steps, programs):
        offsets, inside, channel, values = locate(step, block, outer, channels, inner, LAST, VECTOR, ROWS, COLUMNS)
        tile = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
        tile = tl.where(inside, tile - spread(first, LAST), 0.0)
        sums += tile
        squares += tile * tile
        count += values.to(tl.float32)
    away = tl.sum(sums, axis=AXIS) / count
    squared = tl.sum(squares, axis=AXIS) - away * away * count
    here = channel < channels
    at = (image * programs + program) * channels + channel
    tl.store(shares + at, first + away, mask=here)
    tl.store(shares + images * programs * channels + at, tl.where(squared < 0, 0.0, squared), mask=here)
    if block + image == 0:
        tl.store(shares + 2 * images * programs * channels + program, count)


@triton.jit(do_not_specialize=[*_SIZES, "momentum", "eps"])
def settle(
    shares,  # of moments
    instances,  # float32 (4, images, channels): center, scale, shift, inverse deviation of the image
    batch,  # float32 (2, channels): mean and inverse deviation of the batch term
    running_mean,  # float32 (channels,), like running_var; or None
    running_var,
    weight,  # float32 (channels,), or None, like bias
    bias,
    rho,  # float32 (channels,)
    batches,  # int64 (); read if momentum is None
    momentum,  # float; None is the cumulative average
    eps,
    images,
    channels,
    programs,
    TRAINING: tl.constexpr,  # the batch term uses the batch, and the moving statistics are updated
    IMAGES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Combine the shares, update the moving statistics, for CHANNELS channels of all images. Grid: (blocks,)."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    image = tl.arange(0, IMAGES)
    here = channel < channels
    inside = (image < images)[:, None] & here[None, :]
    size = images * programs * channels
    at = image[:, None] * (programs * channels) + channel[None, :]
    base = tl.load(shares + at, mask=inside, other=0.0)
    squares = tl.load(shares + size + at, mask=inside, other=0.0)
    n = tl.load(shares + 2 * size)
    sums = tl.zeros((IMAGES, CHANNELS), tl.float32)
    for program in range(1, programs):
        count = tl.load(shares + 2 * size + program)
        away = tl.load(shares + at + program * channels, mask=inside, other=0.0) - base
        sums += count * away
        squares += tl.load(shares + size + at + program * channels, mask=inside, other=0.0) + count * away * away
        n += count
    away = sums / n
    center = base + away
    squares -= n * away * away
    squares = tl.where(squares < 0, 0.0, squares)
    own = tl.rsqrt(squares / n + eps)
    if TRAINING:
        first = tl.load(shares + channel, mask=here, other=0.0)
        away = tl.where(inside, center - first[None, :], 0.0)  # small, so that rounding them costs little
        mean = tl.sum(away, axis=0) / images
        away = tl.where(inside, away - mean[None, :], 0.0)
        mean += first
        m = n * images
        var = (tl.sum(tl.where(inside, squares, 0.0), axis=0) + n * tl.sum(away * away, axis=0)) / m
        if running_mean is not None:
            if momentum is None:
                rate = 1.0 / tl.load(batches).to(tl.float32)
            else:
                rate = momentum
            moving = tl.load(running_mean + channel, mask=here, other=0.0)
            tl.store(running_mean + channel, moving + rate * (mean - moving), mask=here)
            moving = tl.load(running_var + channel, mask=here, other=1.0)
            tl.store(running_var + channel, moving + rate * (var * (m / (m - 1)) - moving), mask=here)
    else:
        mean = tl.load(running_mean + channel, mask=here, other=0.0)
        var = tl.load(running_var + channel, mask=here, other=1.0)
    invstd = tl.rsqrt(var + eps)
    share = tl.load(rho + channel, mask=here, other=0.0)
    gamma = tl.full((CHANNELS,), 1.0, tl.float32)
    if weight is not None:
        gamma = tl.load(weight + channel, mask=here, other=0.0)
    scale = gamma * share * invstd
    shift = (center - mean[None, :]) * scale[None, :]
    if bias is not None:
        shift += tl.load(bias + channel, mask=here, other=0.0)[None, :]
    at = image[:, None] * channels + channel[None, :]
    size = images * channels
    tl.store(instances + at, center, mask=inside)
    tl.store(instances + size + at, scale[None, :] + (gamma * (1 - share))[None, :] * own, mask=inside)
    tl.store(instances + 2 * size + at, shift, mask=inside)
    tl.store(instances + 3 * size + at, own, mask=inside)
    tl.store(batch + channel, mean, mask=here)
    tl.store(batch + channels + channel, invstd, mask=here)


@triton.jit(do_not_specialize=_SIZES)
def apply(
    x,  # input
    y,  # output
    residual,  # like the input, or None
    instances,  # of settle
    images,
    outer,
    channels,
    inner,
    ACTIVATION: tl.constexpr,
    LAST: tl.constexpr,
    VECTOR: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Normalize one tile, add the residual, activate. Grid: (blocks * steps, images)."""
    if LAST:
        channels = whole(channels, VECTOR)
    blocks = tl.cdiv(channels, COLUMNS if LAST else ROWS)
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    image = tl.num_programs(1) - 1 - tl.program_id(1)
    offsets, inside, channel, values = locate(
        tile // blocks, tile % blocks, outer, channels, inner, LAST, VECTOR, ROWS, COLUMNS
    )
    offsets += image_start(image, outer, channels, inner, LAST, VECTOR)
    here = channel < channels
    size = images * channels
    at = instances + image * channels + channel
    center = tl.load(at, mask=here, other=0.0)
    scale = tl.load(at + size, mask=here, other=0.0)
    shift = tl.load(at + 2 * size, mask=here, other=0.0)
    z = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
    z = (z - spread(center, LAST)) * spread(scale, LAST) + spread(shift, LAST)
    if residual is not None:
        z += tl.load(residual + offsets, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + offsets, activate(z, ACTIVATION).to(y.dtype.element_ty), mask=inside)
