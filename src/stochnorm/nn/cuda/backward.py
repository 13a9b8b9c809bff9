# mypy: ignore-errors
# ruff: noqa: N803, N806 (constants that a kernel is compiled for)
"""Triton kernels of the backward pass: five passes over the data, four reads and one write.

With g the gradient behind the activation's derivative, `products` reads g and x and leaves the sums of g and of
g (x - mean) of a share of each channel. `finish` combines them. `gradient` reads g and x again and writes the input's
gradient; it begins where `products` ended, since those values may still be in the cache.

A residual with an activation costs three passes more: `products` also reads the activation's output (the residual, for
SiLU) and writes g, which is the residual's gradient and what `gradient` then reads.
"""

import triton
import triton.language as tl

from stochnorm.nn.cuda.tiles import locate, spread, through_activation, whole

__all__ = ["finish", "gradient", "products"]

_SIZES = ["outer", "channels", "inner", "steps", "programs"]


@triton.jit
def _scale_of(mean, var, weight, eps, channel, channels):
    """Return gamma / sqrt(var + eps)."""
    here = channel < channels
    scale = tl.rsqrt(tl.load((mean + channels if var is None else var) + channel, mask=here, other=1.0) + eps)
    if weight is not None:
        scale *= tl.load(weight + channel, mask=here, other=0.0)
    return scale


@triton.jit
def _behind(
    g,
    x,
    beside,
    offsets,
    inside,
    center,
    scale,
    shift,
    ACTIVATION: tl.constexpr,
    FROM: tl.constexpr,
    LAST: tl.constexpr,
):
    """Return a tile of g times the derivative of the activation; see `products` for `beside` and FROM."""
    if ACTIVATION != 0:
        if FROM == "output":
            z = tl.load(beside + offsets, mask=inside, other=0.0).to(tl.float32)
        else:
            z = (x - spread(center, LAST)) * spread(scale, LAST) + spread(shift, LAST)
            if FROM == "residual":
                z += tl.load(beside + offsets, mask=inside, other=0.0).to(tl.float32)
        g = through_activation(g, z, ACTIVATION)
    return g


@triton.jit(do_not_specialize=[*_SIZES, "eps"])
def products(
    grad,  # gradient of the output
    x,  # input
    beside,  # what FROM names, like the input; or None
    behind,  # written: grad times the derivative of the activation; or None
    grad_input,  # written: the input's gradient if the statistics are constants; or None
    shares,  # float32: sums of g (programs, channels), sums of g (x - mean) (programs, channels)
    mean,  # float32 (channels,)
    var,  # float32 (channels,), or None: it follows the mean
    weight,  # float32 (channels,), or None, like bias
    bias,
    eps,
    outer,
    channels,
    inner,
    steps,
    ACTIVATION: tl.constexpr,
    FROM: tl.constexpr,  # the derivative is computed from "input", "output", or input and "residual"
    LAST: tl.constexpr,
    VECTOR: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Sum g and g (x - mean) over a share of the steps, for one block of channels. Grid: (blocks, programs)."""
    block = tl.program_id(0)
    program = tl.program_id(1)
    programs = tl.num_programs(1)
    AXIS: tl.constexpr = 0 if LAST else 1
    if LAST:
        channels = whole(channels, VECTOR)
    channel = block * (COLUMNS if LAST else ROWS) + tl.arange(0, COLUMNS if LAST else ROWS)
    here = channel < channels
    center = tl.load(mean + channel, mask=here, other=0.0)
    scale = _scale_of(mean, var, weight, eps, channel, channels)
    shift = tl.zeros_like(center)
    if bias is not None:
        shift = tl.load(bias + channel, mask=here, other=0.0)
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    products = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in tl.range(program, steps, programs, num_stages=3):
        offsets, inside, channel, _ = locate(step, block, outer, channels, inner, LAST, VECTOR, ROWS, COLUMNS)
        g = tl.load(grad + offsets, mask=inside, other=0.0).to(tl.float32)
        tile = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
        g = _behind(g, tile, beside, offsets, inside, center, scale, shift, ACTIVATION, FROM, LAST)
        if behind is not None:
            tl.store(behind + offsets, g.to(behind.dtype.element_ty), mask=inside)
        if grad_input is not None:
            tl.store(grad_input + offsets, (g * spread(scale, LAST)).to(grad_input.dtype.element_ty), mask=inside)
        g = tl.where(inside, g, 0.0)
        sums += g
        products += tl.where(inside, g * (tile - spread(center, LAST)), 0.0)
    at = program * channels + channel
    tl.store(shares + at, tl.sum(sums, axis=AXIS), mask=here)
    tl.store(shares + programs * channels + at, tl.sum(products, axis=AXIS), mask=here)


@triton.jit(do_not_specialize=[*_SIZES, "eps", "values"], do_not_specialize_on_alignment=["use_batch"])
def finish(
    shares,  # of products
    results,  # float32 (4, channels): gradients of weight and bias; coefficients of `gradient`
    mean,
    var,
    use_batch,  # bool (channels,); None is all True
    eps,
    values,  # values per channel
    channels,
    programs,
    PROGRAMS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Combine the shares of CHANNELS channels. Grid: (blocks,)."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    program = tl.arange(0, PROGRAMS)
    here = channel < channels
    inside = (program < programs)[:, None] & here[None, :]
    at = program[:, None] * channels + channel[None, :]
    sum_g = tl.sum(tl.load(shares + at, mask=inside, other=0.0), axis=0)
    sum_gx = tl.sum(tl.load(shares + programs * channels + at, mask=inside, other=0.0), axis=0)
    invstd = _scale_of(mean, var, None, eps, channel, channels)
    sum_gx *= invstd
    tl.store(results + channel, sum_gx, mask=here)
    tl.store(results + channels + channel, sum_g, mask=here)
    if use_batch is not None:
        chosen = tl.load(use_batch + channel, mask=here, other=0) != 0
        sum_g = tl.where(chosen, sum_g, 0.0)
        sum_gx = tl.where(chosen, sum_gx, 0.0)
    m = values.to(tl.float32)
    tl.store(results + 2 * channels + channel, sum_g / m, mask=here)
    tl.store(results + 3 * channels + channel, sum_gx * invstd / m, mask=here)


@triton.jit(do_not_specialize=[*_SIZES, "eps"])
def gradient(
    grad,  # gradient of the output
    x,  # input
    beside,  # what FROM names, like the input; or None
    behind,  # written: grad times the derivative of the activation; or None
    grad_input,  # written; or None
    results,  # of finish; None if the statistics are constants
    mean,
    var,
    weight,
    bias,
    eps,
    outer,
    channels,
    inner,
    ACTIVATION: tl.constexpr,
    FROM: tl.constexpr,
    LAST: tl.constexpr,
    VECTOR: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    r"""Compute the input's gradient in one tile. Grid: (blocks * steps,).

    $\gamma / \sigma \; (g - s / m \, (\sum g + \hat x \sum g \hat x))$, without the sums if `results` is None.
    """
    if LAST:
        channels = whole(channels, VECTOR)
    blocks = tl.cdiv(channels, COLUMNS if LAST else ROWS)
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    offsets, inside, channel, _ = locate(
        tile // blocks, tile % blocks, outer, channels, inner, LAST, VECTOR, ROWS, COLUMNS
    )
    here = channel < channels
    g = tl.load(grad + offsets, mask=inside, other=0.0).to(tl.float32)
    center = tl.load(mean + channel, mask=here, other=0.0)
    scale = _scale_of(mean, var, weight, eps, channel, channels)
    shift = tl.zeros_like(center)
    if bias is not None:
        shift = tl.load(bias + channel, mask=here, other=0.0)
    tile_x = g
    if (results is not None) or (ACTIVATION != 0 and FROM != "output"):
        tile_x = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
    g = _behind(g, tile_x, beside, offsets, inside, center, scale, shift, ACTIVATION, FROM, LAST)
    if behind is not None:
        tl.store(behind + offsets, g.to(behind.dtype.element_ty), mask=inside)
    if grad_input is not None:
        if results is not None:
            constant = tl.load(results + 2 * channels + channel, mask=here, other=0.0)
            slope = tl.load(results + 3 * channels + channel, mask=here, other=0.0)
            linear = tl.where(spread(slope, LAST) == 0, 0.0, (tile_x - spread(center, LAST)) * spread(slope, LAST))
            g = g - spread(constant, LAST) - linear
        tl.store(grad_input + offsets, (g * spread(scale, LAST)).to(grad_input.dtype.element_ty), mask=inside)
