"""Change p during training."""

from __future__ import annotations

import math
from typing import Literal

from torch import nn

from stochnorm.nn.probability import check_p
from stochnorm.nn.stochastic import _StochNorm

__all__ = ["schedule", "set_p"]


def schedule(kind: Literal["constant", "linear", "cosine"], start: float, end: float, step: int, steps: int) -> float:
    r"""Return p at a training step: from `start` at step 0 to `end` at the last step, `steps - 1`.

    With $t = \text{step} / (\text{steps} - 1)$, linear is $(1 - t) \, \text{start} + t \, \text{end}$; cosine has
    $(1 - \cos \pi t) / 2$ in place of $t$; constant is always `start`.

    Args:
        kind: `constant`, `linear` or `cosine`.
        start: p at step 0, in [0, 1].
        end: p at the last step, in [0, 1]; `constant` ignores it.
        step: Number of finished steps, from 0; after the last step p stays at `end`.
        steps: Total number of steps.

    Returns:
        p, in [0, 1].

    Raises:
        ValueError: Unknown kind, `start` or `end` outside [0, 1], a negative step, or a total below one step.

    Example:
        >>> [schedule("linear", 1.0, 0.5, step, 6) for step in range(6)]
        [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]
    """
    check_p(start)
    if step < 0 or steps < 1:
        raise ValueError(f"step must be 0 or more and steps 1 or more, got step {step} of {steps}")
    if kind == "constant":
        return start
    check_p(end)
    t = min(step / (steps - 1), 1.0) if steps > 1 else 0.0
    if kind == "cosine":
        t = (1 - math.cos(math.pi * t)) / 2
    elif kind != "linear":
        raise ValueError(f"the schedule of p must be constant, linear or cosine, got {kind!r}")
    return (1 - t) * start + t * end


def set_p(model: nn.Module, p: float) -> None:
    """Set p of all StochNorm layers of a model; fast enough for every step.

    Compiled models and captured CUDA graphs follow it: p is a tensor on the device there, changed in place.

    Args:
        model: Any module with StochNorm layers.
        p: Probability that a channel is normalized by batch statistics, in [0, 1].

    Raises:
        ValueError: p outside [0, 1], or the model has no StochNorm layer.

    Example:
        >>> from stochnorm.nn import StochNorm2d
        >>> model = nn.Sequential(StochNorm2d(8))
        >>> set_p(model, schedule("cosine", 1.0, 0.0, step=50, steps=101))
        >>> round(model[0].p, 3)
        0.5
    """
    p = check_p(p)
    layers = [module for module in model.modules() if isinstance(module, _StochNorm)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no StochNorm layer; call convert(model) before set_p")
    for layer in layers:
        layer.p = p
