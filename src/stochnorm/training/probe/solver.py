"""Logistic regression with an L2 penalty: multinomial, or one binary regression per finding; L-BFGS on all images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["STRENGTHS", "Linear", "path"]

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""C, from a strong penalty to a weak one."""
_ITERATIONS = 200
_TOLERANCE = 1e-4  # of the gradient of the mean loss, as scikit-learn's
_MOST_DOUBLE = 2e7  # products of images, features and classes: up to here in float64


class Linear(NamedTuple):
    """A linear map from features to logits."""

    weight: Tensor
    """(c, d)."""
    bias: Tensor
    """(c,)."""

    def __call__(self, features: Tensor) -> Tensor:
        """Return the logits (n, c) of features (n, d)."""
        return F.linear(features, self.weight, self.bias)


def path(
    features: Tensor,
    targets: Tensor,
    classes: int,
    strengths: Sequence[float] = STRENGTHS,
    *,
    pos_weight: Tensor | None = None,
    class_weights: Tensor | None = None,
    tolerance: float = _TOLERANCE,
) -> Iterator[Linear]:
    r"""Yield the solution of a logistic regression for each strength C, each beginning at the one before.

    With standardized features z, a solution is the minimum over W and b of

        C sum_i loss(W z_i + b, y_i) + |W|^2 / 2

    as in scikit-learn. The loss of an image is the mean over its views; for findings it is the sum of their binary
    cross-entropies. The standardization is folded into the returned maps, which take features as they are.

    Args:
        features: (v, n, d): v views of n images.
        targets: (n,) class numbers, or (n, c) findings in {0, 1}.
        classes: c.
        strengths: The values of C, rising; each weakens the penalty.
        pos_weight: (c,): weight of a positive image of a finding; None: 1.
        class_weights: (c,): weight of an image of a class; None: 1. The sum above is then one of weighted losses.
        tolerance: Largest entry of the gradient of the mean loss at which a solution is complete.

    Yields:
        Maps in float32.
    """
    rows, count = features.flatten(0, 1), features.shape[1]
    small = features.shape[1] * features.shape[2] * classes * features.shape[0] <= _MOST_DOUBLE
    rows = rows.double() if small else rows
    mean, std = rows.mean(0), rows.std(0, correction=0)
    std = torch.where(std > 1e-6 * std.max(), std, torch.ones_like(std))  # constant features have no say
    rows = (rows - mean) / std
    labels = targets.repeat(features.shape[0], *[1] * (targets.ndim - 1))
    labels = labels.to(rows) if targets.ndim == 2 else labels
    weighted = None if pos_weight is None else pos_weight.to(rows)
    by_class = None if class_weights is None else class_weights.to(rows)
    weight = rows.new_zeros(classes, rows.shape[1], requires_grad=True)
    bias = rows.new_zeros(classes, requires_grad=True)

    for strength in strengths:

        def loss(strength: float = strength) -> Tensor:
            """Return the objective, divided by C n."""
            logits = F.linear(rows, weight, bias)
            if labels.ndim == 1:
                # not PyTorch's weighted mean, which divides by the sum of the weights
                data = F.cross_entropy(logits, labels, by_class, reduction="sum") / len(rows)
            else:
                data = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weighted) * classes
            return data + weight.square().sum() / (2 * strength * count)

        _minimize(loss, [weight, bias], tolerance)
        with torch.no_grad():
            scaled = weight / std
            yield Linear(scaled.float(), (bias - scaled @ mean).float())


def _minimize(loss: object, parameters: list[Tensor], tolerance: float) -> None:
    """Minimize a convex function from the present values of its parameters, in place."""
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=_ITERATIONS,
        tolerance_grad=tolerance,
        tolerance_change=0.01 * tolerance**2,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = loss()  # type: ignore[operator]
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
