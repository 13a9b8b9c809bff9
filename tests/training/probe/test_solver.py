"""Logistic regression: equal to another library's solution; standardization folded in; findings by themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional as F

from stochnorm.training.probe.solver import path


def draw(findings: bool = False) -> tuple[Tensor, Tensor]:
    """60 images with features of unequal scales and means, one of them constant."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 6, generator=generator) * torch.tensor([0.1, 1, 2, 5, 10, 0]) + 3
    logits = x[:, :3] + torch.randn(60, 3, generator=generator)
    return x, ((logits > 3).long() if findings else (logits - logits.mean(0)).argmax(1))


def by_scipy(x: Tensor, y: Tensor, strength: float, pos_weight: Tensor | None = None) -> Tensor:
    """Return the logits of the minimum of the objective, as it is written, found by another library."""
    std = x.std(0, correction=0)
    z = ((x - x.mean(0)) / torch.where(std > 0, std, torch.ones(()))).double()

    def objective(flat: Any) -> Any:
        both = torch.tensor(flat, requires_grad=True)
        weight, bias = both[:18].view(3, 6), both[18:]
        logits = z @ weight.T + bias
        if y.ndim == 1:
            loss = F.cross_entropy(logits, y, reduction="sum")
        else:
            loss = F.binary_cross_entropy_with_logits(logits, y.double(), pos_weight=pos_weight, reduction="sum")
        value = strength * loss + weight.square().sum() / 2
        value.backward()  # type: ignore[no-untyped-call]
        assert both.grad is not None
        return value.item(), both.grad.numpy()

    found = minimize(objective, np.zeros(21), jac=True, method="BFGS", options={"gtol": 1e-8})
    both = torch.tensor(found.x)
    return (z @ both[:18].view(3, 6).T + both[18:]).float()


@pytest.mark.parametrize("strength", [0.01, 1.0])
@pytest.mark.parametrize("findings", [False, True])
def test_logits_are_those_of_another_library(strength: float, findings: bool) -> None:
    x, y = draw(findings)
    (head,) = path(x[None], y, 3, (strength,), tolerance=1e-9)
    expected = by_scipy(x, y, strength)
    logits = head(x)
    if not findings:  # one constant for all classes changes no probability
        logits, expected = logits.log_softmax(1), expected.log_softmax(1)
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)


def test_probabilities_are_those_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = draw()
    z = (x - x.mean(0)) / x.std(0, correction=0).clamp_min(1e-9)
    for strength, head in zip((0.01, 0.1, 1.0), path(x[None], y, 3, (0.01, 0.1, 1.0), tolerance=1e-9), strict=True):
        other = linear_model.LogisticRegression(C=strength, tol=1e-9, max_iter=5000).fit(z.numpy(), y.numpy())
        expected = torch.tensor(other.predict_proba(z.numpy())).float()
        torch.testing.assert_close(head(x).softmax(1), expected, atol=1e-3, rtol=1e-3)


def test_positive_weights_count_in_the_loss() -> None:
    x, y = draw(findings=True)
    weight = torch.tensor([1.0, 3.0, 0.5])
    (head,) = path(x[None], y, 3, (0.1,), pos_weight=weight, tolerance=1e-9)
    torch.testing.assert_close(head(x), by_scipy(x, y, 0.1, weight.double()), atol=1e-3, rtol=1e-3)
    (unweighted,) = path(x[None], y, 3, (0.1,), tolerance=1e-9)
    assert (unweighted(x) - head(x)).abs().max() > 0.1


def test_class_weights_count_images_several_times() -> None:
    """A weight of 2 is an image that is there twice, in the objective as it is written."""
    x, y = draw()
    z = (x[:, :5] - x[:, :5].mean(0)) / x[:, :5].std(0, correction=0)
    weights = torch.tensor([1.0, 2.0, 1.0])
    (weighted,) = path(z[None], y, 3, (0.3,), class_weights=weights, tolerance=1e-9)

    def slope(weight: Tensor, bias: Tensor) -> Tensor:
        rows, labels = torch.cat([z, z[y == 1]]), torch.cat([y, y[y == 1]])
        value = 0.3 * F.cross_entropy(rows @ weight.T + bias, labels, reduction="sum") + weight.square().sum() / 2
        return torch.cat([part.flatten() for part in torch.autograd.grad(value, (weight, bias))])

    weight, bias = (part.clone().requires_grad_() for part in weighted)
    assert slope(weight, bias).abs().max() < 1e-3
    (plain,) = path(z[None], y, 3, (0.3,), tolerance=1e-9)
    assert slope(*(part.clone().requires_grad_() for part in plain)).abs().max() > 1


def test_the_same_view_twice_changes_nothing() -> None:
    x, y = draw()
    (once,), (twice,) = (path(views, y, 3, (0.1,), tolerance=1e-9) for views in (x[None], torch.stack([x, x])))
    torch.testing.assert_close(once(x), twice(x), atol=1e-4, rtol=1e-4)


def test_a_path_ends_where_a_single_solution_does() -> None:
    x, y = draw()
    *_, last = path(x[None], y, 3, (0.001, 0.1, 1.0), tolerance=1e-9)
    (alone,) = path(x[None], y, 3, (1.0,), tolerance=1e-9)
    torch.testing.assert_close(last(x), alone(x), atol=1e-3, rtol=1e-3)


def test_scale_and_shift_of_features_change_no_logits() -> None:
    x, y = draw()
    moved = x * 7 - 20
    (head,), (other,) = (path(each[None], y, 3, (0.1,), tolerance=1e-9) for each in (x, moved))
    torch.testing.assert_close(head(x), other(moved), atol=1e-3, rtol=1e-3)
