"""Layers under the transforms of torch.func and forward-mode differentiation, and what traces or scripts a model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, replace_all_batch_norm_modules_, vjp, vmap

from stochnorm.nn import convert, convert_batch_instance, freeze, hold_statistics, set_p
from stochnorm.nn.cpu.accelerate import accelerate

# PyTorch's own formulas of forward-mode differentiation are scripted at its first use.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

CONVERSIONS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "stochastic": lambda model: convert(model, p=0.5),
    "accelerated": lambda model: (convert(model, p=0.5), accelerate(model))[0],
    "batch-instance": convert_batch_instance,
    "frozen": lambda model: freeze(model, what="statistics"),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    norms = nn.BatchNorm2d(4), BatchNormAct2d(4)
    for norm in norms:
        nn.init.uniform_(norm.running_mean)  # type: ignore[arg-type]
    depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
    return nn.Sequential(nn.Conv2d(3, 4, 1), norms[0], nn.SiLU(), depthwise, norms[1]).double()


def images(n: int = 6) -> Tensor:
    return torch.randn(n, 3, 5, 5, generator=torch.Generator().manual_seed(1)).double()


def loss(model: nn.Module, values: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Any]:
    buffers = {name: buffer.clone() for name, buffer in buffers.items()}
    return functional_call(model, (values, buffers), (x,)).sin().sum(), buffers


@pytest.mark.parametrize("how", list(CONVERSIONS))
def test_functional_gradients_are_those_of_backward(how: str) -> None:
    """Of grad, vjp and jvp; and the buffers that were given are updated as those of the model."""
    model, x = CONVERSIONS[how](network()), images()
    given, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    kept = copy.deepcopy(buffers)
    torch.manual_seed(2)
    grads, updated = grad(lambda q: loss(model, q, buffers, x), has_aux=True)(given)
    torch.manual_seed(2)
    _, pulled = vjp(lambda q: loss(model, q, buffers, x)[0], given)
    direction = {name: torch.ones_like(value) for name, value in given.items()}
    torch.manual_seed(2)
    _, along = jvp(lambda q: loss(model, q, buffers, x)[0], (given,), (direction,))
    assert all(torch.equal(buffer, kept[name]) for name, buffer in buffers.items())
    torch.manual_seed(2)
    model(x).sin().sum().backward()
    expected = {name: parameter.grad for name, parameter in given.items()}
    torch.testing.assert_close(grads, expected, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(pulled(torch.ones(()).double())[0], expected, rtol=1e-8, atol=1e-10)
    total = sum(value.sum() for value in expected.values())  # type: ignore[union-attr]
    torch.testing.assert_close(along, total, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(updated, dict(model.named_buffers()))


@pytest.mark.parametrize("how", list(CONVERSIONS))
def test_models_side_by_side_under_vmap_are_the_models_one_by_one(how: str) -> None:
    models, x = [CONVERSIONS[how](network()) for _ in range(2)], images()
    with torch.no_grad():
        for parameter in models[1].parameters():
            parameter.mul_(1.5)
    set_p(models[0], 0.0) if how in ("stochastic", "accelerated") else None  # masks of vmap come in another order
    values, buffers = torch.func.stack_module_state(models)
    losses, updated = vmap(lambda q, b: loss(models[0], q, b, x), randomness="different")(values, buffers)
    set_p(models[1], 0.0) if how in ("stochastic", "accelerated") else None
    for number, model in enumerate(models):
        torch.testing.assert_close(losses[number], model(x).sin().sum())
        torch.testing.assert_close({k: v[number] for k, v in updated.items()}, dict(model.named_buffers()))


def test_vmap_draws_a_mask_for_each_as_it_is_told() -> None:
    model, x = convert(nn.Sequential(nn.BatchNorm1d(64)), p=0.5), torch.randn(8, 64) + 3
    batched = {name: torch.stack([buffer] * 3) for name, buffer in model.named_buffers()}

    def masks(randomness: str) -> Tensor:
        outputs = vmap(lambda b: functional_call(model, b, (x,)), randomness=randomness)(batched)
        return outputs.detach().mean(1).abs() < 1  # by moving statistics it is 3

    assert len({tuple(mask.tolist()) for mask in masks("different")}) == 3
    assert len({tuple(mask.tolist()) for mask in masks("same")}) == 1


def test_forward_mode_agrees_with_backward() -> None:
    model, x = convert(network(), p=0.5), images().requires_grad_()
    torch.manual_seed(2)
    with forward_ad.dual_level():
        along = forward_ad.unpack_dual(model(forward_ad.make_dual(x, torch.ones_like(x))).sin().sum()).tangent
    model.load_state_dict(network().state_dict())
    torch.manual_seed(2)
    (grads,) = torch.autograd.grad(model(x).sin().sum(), x)
    torch.testing.assert_close(along, grads.sum(), rtol=1e-8, atol=1e-10)


def test_a_held_pass_may_be_functional() -> None:
    model, x = convert(network(), p=0.5), images()
    given, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    model(x).sin().sum().backward()
    with hold_statistics(model):
        grads, _ = grad(lambda q: loss(model, q, buffers, x), has_aux=True)(given)
    for name, parameter in given.items():
        torch.testing.assert_close(grads[name], parameter.grad, rtol=1e-8, atol=1e-10)
    with hold_statistics(model), pytest.raises(RuntimeError, match=r"nor do the transforms of torch\.func"):
        functional = convert(network(), p=0.5)
        grad(lambda q: loss(functional, q, buffers, x)[0])(given)
        with hold_statistics(functional):
            functional(x)


def test_without_moving_statistics_only_p_1_works() -> None:
    model, x = replace_all_batch_norm_modules_(convert(network(), p=0.5)), images()
    given = dict(model.named_parameters())
    with pytest.raises(ValueError, match="this layer has none any more"):
        grad(lambda q: loss(model, q, {}, x)[0])(given)
    set_p(model, 1.0)
    plain = replace_all_batch_norm_modules_(network())
    expected = grad(lambda q: loss(plain, q, {}, x)[0])(dict(plain.named_parameters()))
    torch.testing.assert_close(grad(lambda q: loss(model, q, {}, x)[0])(given), expected, rtol=0, atol=0)
