# mypy: ignore-errors
# ruff: noqa: N803, N806, RUF059 (constants that a kernel is compiled for)
"""Triton kernels of Batch-Instance Normalization, backward: those of `backward.py` with an axis for the images.

With g the gradient behind the activation's derivative, `products` reads g and x and leaves the sums of g and of
g (x - center) of a share of an image's channel. `finish` combines them. `gradient` reads g and x again and writes the
input's gradient, scale * g - constant - slope * (x - center).
"""

import triton
import triton.language as tl

from stochnorm.nn.cuda.instances_forward import image_start
from stochnorm.nn.cuda.tiles import locate, spread, through_activation, whole

__all__ = ["finish", "gradient", "products"]

_SIZES = ["outer", "channels", "inner", "steps", "programs", "images"]


@triton.jit(do_not_specialize=_SIZES)
def products(
    grad,  # gradient of the output
    x,  # input
    residual,  # like the input, or None; read for an activation
    behind,  # written: grad times the derivative of the activation; or None
    shares,  # float32 (2, images, programs, channels): sums of g and of g (x - center)
    instances,  # of settle
    images,
    outer,
    channels,
    inner,
    steps,
    ACTIVATION: tl.constexpr,
    LAST: tl.constexpr,
    VECTOR: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Sum g and g (x - center) over a share of an image. Grid: (blocks, programs, images)."""
    block = tl.program_id(0)
    program = tl.program_id(1)
    image = tl.program_id(2)
    programs = tl.num_programs(1)
    AXIS: tl.constexpr = 0 if LAST else 1
    if LAST:
        channels = whole(channels, VECTOR)
    start = image_start(image, outer, channels, inner, LAST, VECTOR)
    channel = block * (COLUMNS if LAST else ROWS) + tl.arange(0, COLUMNS if LAST else ROWS)
    here = channel < channels
    size = images * channels
    at = instances + image * channels + channel
    center = tl.load(at, mask=here, other=0.0)
    scale = tl.load(at + size, mask=here, other=0.0)
    shift = tl.load(at + 2 * size, mask=here, other=0.0)
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    moments = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(program, steps, programs):
        offsets, inside, channel, values = locate(step, block, outer, channels, inner, LAST, VECTOR, ROWS, COLUMNS)
        offsets += start
        g = tl.load(grad + offsets, mask=inside, other=0.0).to(tl.float32)
        away = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32) - spread(center, LAST)
        if ACTIVATION != 0:
            z = away * spread(scale, LAST) + spread(shift, LAST)
            if residual is not None:
                z += tl.load(residual + offsets, mask=inside, other=0.0).to(tl.float32)
            g = through_activation(g, z, ACTIVATION)
        if behind is not None:
            tl.store(behind + offsets, g.to(behind.dtype.element_ty), mask=inside)
        sums += tl.where(inside, g, 0.0)
        moments += tl.where(inside, g * away, 0.0)
    at = (image * programs + program) * channels + channel
    tl.store(shares + at, tl.sum(sums, axis=AXIS), mask=here)
    tl.store(shares + images * programs * channels + at, tl.sum(moments, axis=AXIS), mask=here)


@triton.jit(do_not_specialize=[*_SIZES, "values"])
def finish(
    shares,  # of products
    results,  # float32 (3, channels): gradients of weight, bias and rho
    coefficients,  # float32 (2, images, channels): constant and slope of `gradient`
    instances,  # of settle, like batch
    batch,
    weight,
    rho,
    values,  # values of an image's channel
    images,
    channels,
    programs,
    TRAINING: tl.constexpr,
    IMAGES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Combine the shares of CHANNELS channels. Grid: (blocks,)."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    image = tl.arange(0, IMAGES)
    here = channel < channels
    inside = (image < images)[:, None] & here[None, :]
    at = image[:, None] * (programs * channels) + channel[None, :]
    size = images * programs * channels
    sum_g = tl.zeros((IMAGES, CHANNELS), tl.float32)
    sum_gx = tl.zeros((IMAGES, CHANNELS), tl.float32)
    for program in range(programs):
        sum_g += tl.load(shares + at + program * channels, mask=inside, other=0.0)
        sum_gx += tl.load(shares + size + at + program * channels, mask=inside, other=0.0)
    at = image[:, None] * channels + channel[None, :]
    size = images * channels
    center = tl.load(instances + at, mask=inside, other=0.0)
    own = tl.load(instances + 3 * size + at, mask=inside, other=0.0)
    mean = tl.load(batch + channel, mask=here, other=0.0)
    invstd = tl.load(batch + channels + channel, mask=here, other=0.0)
    share = tl.load(rho + channel, mask=here, other=0.0)
    gamma = tl.full((CHANNELS,), 1.0, tl.float32)
    if weight is not None:
        gamma = tl.load(weight + channel, mask=here, other=0.0)
    away = tl.where(inside, (center - mean[None, :]) * invstd[None, :], 0.0)
    n = values.to(tl.float32)
    m = n * images
    by_instance = tl.sum(sum_gx * own, axis=0)
    by_batch = tl.sum(sum_gx, axis=0) * invstd + tl.sum(sum_g * away, axis=0)
    total = tl.sum(sum_g, axis=0)
    tl.store(results + channel, share * by_batch + (1 - share) * by_instance, mask=here)
    tl.store(results + channels + channel, total, mask=here)
    tl.store(results + 2 * channels + channel, gamma * (by_batch - by_instance), mask=here)
    left = (gamma * (1 - share))[None, :] * own / n
    constant = left * sum_g
    slope = left * own * own * sum_gx
    if TRAINING:
        scale = gamma * share * invstd / m
        constant += (scale * total)[None, :] + away * (scale * by_batch)[None, :]
        slope += (scale * invstd * by_batch)[None, :]
    tl.store(coefficients + at, constant, mask=inside)
    tl.store(coefficients + size + at, slope, mask=inside)


@triton.jit(do_not_specialize=_SIZES)
def gradient(
    grad,  # gradient of the output
    x,  # input
    residual,  # like the input, or None; read for an activation
    grad_input,  # written
    instances,  # of settle
    coefficients,  # of finish
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
    """Compute scale * g - constant - slope * (x - center) in one tile. Grid: (blocks * steps, images)."""
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
    at = image * channels + channel
    center = tl.load(instances + at, mask=here, other=0.0)
    scale = tl.load(instances + size + at, mask=here, other=0.0)
    constant = tl.load(coefficients + at, mask=here, other=0.0)
    slope = tl.load(coefficients + size + at, mask=here, other=0.0)
    g = tl.load(grad + offsets, mask=inside, other=0.0).to(tl.float32)
    away = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32) - spread(center, LAST)
    if ACTIVATION != 0:
        shift = tl.load(instances + 2 * size + at, mask=here, other=0.0)
        z = away * spread(scale, LAST) + spread(shift, LAST)
        if residual is not None:
            z += tl.load(residual + offsets, mask=inside, other=0.0).to(tl.float32)
        g = through_activation(g, z, ACTIVATION)
    g = g * spread(scale, LAST) - spread(constant, LAST) - away * spread(slope, LAST)
    tl.store(grad_input + offsets, g.to(grad_input.dtype.element_ty), mask=inside)
