"""Batch Spectral Shrinkage against the singular value decomposition."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stochnorm.regularizers import BSS, Step, batch_spectral_shrinkage

pytestmark = pytest.mark.usefixtures("device")


def by_svd(features: Tensor, k: int = 1) -> Tensor:
    """The written formula, in float64."""
    value: Tensor = torch.linalg.svdvals(features.double())[-k:].square().sum()
    return value


def value_and_grad(function: Callable[[Tensor, int], Tensor], features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    features = features.clone().requires_grad_()
    value = function(features, k)
    return value.detach(), torch.autograd.grad(value, features)[0]


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Non-negative with a common mean, as pooled features are: one singular value is far above the others."""
    generator = torch.Generator(torch.get_default_device()).manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64).relu().add(0.5).to(dtype)


def test_golden_value_and_gradient() -> None:
    # F F^T = [[5, 2], [2, 2]] has the eigenvalues 6 and 1, and (1, -2) / sqrt 5 for the smaller one
    features = torch.tensor([[2.0, 1.0, 0.0], [1.0, 0.0, 1.0]], requires_grad=True)
    value = batch_spectral_shrinkage(features)
    assert value.item() == pytest.approx(1)
    (grad,) = torch.autograd.grad(value, features)
    torch.testing.assert_close(grad, torch.tensor([[0.0, 0.4, -0.8], [0.0, -0.8, 1.6]]))
    assert batch_spectral_shrinkage(features, k=2).item() == pytest.approx(7)  # all: the squared Frobenius norm


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("shape", "k"), [((48, 2048), 1), ((48, 2048), 5), ((64, 40), 2), ((7, 7), 7), ((1, 9), 1)])
def test_value_and_gradient_are_those_of_the_svd(shape: tuple[int, int], k: int, dtype: torch.dtype) -> None:
    features = draw(*shape, dtype=dtype)
    value, grad = value_and_grad(batch_spectral_shrinkage, features, k)
    expected, expected_grad = value_and_grad(by_svd, features, k)
    assert value.dtype == grad.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(value.double(), expected, rtol=tolerance, atol=0)
    scale = float(expected_grad.abs().max())
    torch.testing.assert_close(grad.double(), expected_grad.double(), rtol=0, atol=tolerance * scale)


def test_a_small_singular_value_beside_a_large_one_keeps_its_digits() -> None:
    u, _, v = torch.linalg.svd(draw(32, 256), full_matrices=False)
    features = (u * torch.logspace(3, -1, 32, dtype=torch.float64) @ v).float()  # squares from 1e6 to 1e-2
    value, grad = value_and_grad(batch_spectral_shrinkage, features, 1)
    expected, expected_grad = value_and_grad(by_svd, features, 1)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=1e-5 * float(expected_grad.abs().max()))


@pytest.mark.parametrize("shape", [(4, 6), (6, 4)])
def test_gradcheck_and_gradgradcheck(shape: tuple[int, int]) -> None:
    features = draw(*shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda f: batch_spectral_shrinkage(f, 2), features)
    assert torch.autograd.gradgradcheck(lambda f: batch_spectral_shrinkage(f, 2), features)


def test_rank_deficient_features_have_no_penalty_and_no_gradient() -> None:
    features = draw(8, 1) @ draw(1, 20)  # rank 1: seven singular values are 0
    value, grad = value_and_grad(batch_spectral_shrinkage, features, 7)
    torch.testing.assert_close(value, torch.zeros_like(value), rtol=0, atol=1e-12)
    torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-6)
    value, grad = value_and_grad(batch_spectral_shrinkage, torch.zeros(4, 4), 2)
    assert not value
    assert not grad.any()


def test_repeated_singular_values_have_the_formulas_gradient() -> None:
    features = torch.diag(torch.tensor([3.0, 2.0, 2.0, 1.0, 1.0])).double()
    value, grad = value_and_grad(batch_spectral_shrinkage, features, 4)
    assert value.item() == pytest.approx(10)
    torch.testing.assert_close(grad, 2 * torch.diag(torch.tensor([0.0, 2, 2, 1, 1])).double())
    value, grad = value_and_grad(batch_spectral_shrinkage, features, 1)  # one of two equal ones: a subgradient
    torch.testing.assert_close(grad.square().sum(), torch.tensor(4.0).double())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    features = draw(16, 64).to(dtype)
    with torch.autocast(torch.get_default_device().type, torch.bfloat16):
        value, grad = value_and_grad(batch_spectral_shrinkage, features, 1)
    expected, expected_grad = value_and_grad(by_svd, features, 1)
    assert value.dtype == torch.float32
    assert grad.dtype == dtype
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=0)
    resolution = torch.finfo(dtype).eps if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=resolution * float(expected_grad.abs().max()))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_give_a_loss_that_is_not(bad: float) -> None:
    features = draw(4, 6)
    features[1, 2] = bad
    assert not batch_spectral_shrinkage(features).isfinite()


def test_an_eigensolver_that_fails_on_finite_features_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Tensor) -> Tensor:
        raise torch.linalg.LinAlgError("failed to converge")  # type: ignore[attr-defined]

    monkeypatch.setattr(torch.linalg, "eigvalsh", fail)
    with pytest.raises(RuntimeError, match="failed to converge"):
        batch_spectral_shrinkage(draw(4, 6))


def test_a_descent_step_shrinks_the_smallest_values_alone() -> None:
    features = draw(6, 30)
    before = torch.linalg.svdvals(features)
    _, grad = value_and_grad(batch_spectral_shrinkage, features, 2)
    after = torch.linalg.svdvals(features - 0.1 * grad)
    torch.testing.assert_close(after, before * torch.tensor([1, 1, 1, 1, 0.8, 0.8]))


def test_the_regularizer_scales_the_penalty_of_the_steps_features() -> None:
    features = draw(5, 12, dtype=torch.float32)
    step = Step(torch.empty(5, 3, 2, 2), torch.zeros(5), torch.zeros(5, 2), features)
    torch.testing.assert_close(BSS(eta=0.25, k=2)(step), 0.25 * by_svd(features, 2).float())
    torch.testing.assert_close(BSS()(step), 1e-3 * by_svd(features).float())


@pytest.mark.parametrize("k", [0, -1, 5])
def test_k_beyond_the_number_of_singular_values_is_an_error(k: int) -> None:
    with pytest.raises(
        ValueError, match=rf"k must be in 1 ... min\(b, d\) = 4.*got {k} for features of shape \(4, 9\)"
    ):
        batch_spectral_shrinkage(torch.ones(4, 9), k)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"of shape \(b, d\).*got \(2, 3, 1, 1\); flatten"):
        batch_spectral_shrinkage(torch.ones(2, 3, 1, 1))
    with pytest.raises(ValueError, match=r"eta must be 0 or more, got -1"):
        BSS(eta=-1)
    for k in (0, 1.5):
        with pytest.raises(ValueError, match=rf"a whole number from 1 \(singular values to shrink\), got {k}"):
            BSS(k=k)  # type: ignore[arg-type]
