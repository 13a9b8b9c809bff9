"""A normalization layer with what is behind it: the same values as from its modules, which run where they must."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from stochnorm.nn import convert, convert_batch_instance, freeze
from stochnorm.nn.fusion.one_pass import is_normalization, normalize
from stochnorm.nn.fusion.timm_blocks import OnePassBatchNormAct2d

pytestmark = pytest.mark.usefixtures("device")

KINDS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "batch": lambda layer: layer,
    "stochastic": partial(convert, p=0.5),
    "p = 1": partial(convert, p=1.0),
    "frozen": partial(freeze, what="statistics"),
    "batch-instance": convert_batch_instance,
}


def run(function: Callable[[Tensor, Tensor], Tensor], layer: nn.Module) -> list[Tensor]:
    """Return output, gradients and buffers of two steps and an inference."""
    generator = torch.Generator(torch.get_default_device()).manual_seed(0)
    torch.manual_seed(0)
    results = []
    for training in (True, True, False):
        layer.train(training)
        x, residual = (torch.randn(4, 3, 5, 5, generator=generator, dtype=torch.float64) for _ in range(2))
        leaves = [x.requires_grad_(), residual.requires_grad_(), *layer.parameters()]
        y = function(x, residual)
        results += [y, *torch.autograd.grad(y.square().sum(), leaves, allow_unused=True)]
    return [result for result in (*results, *layer.buffers()) if result is not None]


def same(layer: nn.Module, residual: bool, activation: nn.Module | None) -> None:
    """Check that `normalize` computes what its modules do."""
    layer = layer.double()
    twin = copy.deepcopy(layer)

    def in_steps(x: Tensor, other: Tensor) -> Tensor:
        y = twin(x) + other if residual else twin(x)
        return y if activation is None else activation(y)

    def at_once(x: Tensor, other: Tensor) -> Tensor:
        return normalize(layer, x, other if residual else None, activation)

    for ours, theirs in zip(run(at_once, layer), run(in_steps, twin), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("activation", [None, nn.ReLU(), nn.ReLU6(), nn.SiLU(), nn.GELU()], ids=repr)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_layer(
    kind: str, residual: bool, activation: nn.Module | None, one_pass: list[nn.Module], device: torch.device
) -> None:
    same(KINDS[kind](nn.BatchNorm2d(3)), residual, activation)
    assert len(one_pass) == 3 or device.type != "cpu"  # float64 is PyTorch's there


@pytest.mark.parametrize("apply_act", [True, False])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_timms_layers_with_an_activation_of_their_own(
    kind: str, residual: bool, apply_act: bool, one_pass: list[nn.Module], device: torch.device
) -> None:
    same(KINDS[kind](BatchNormAct2d(3, act_layer=nn.SiLU, apply_act=apply_act)), residual, None)
    if device.type == "cpu" and apply_act and residual and kind in ("batch", "batch-instance"):
        assert one_pass == []  # the residual comes behind the activation
    elif device.type == "cpu":
        assert len(one_pass) >= 3


@pytest.mark.parametrize("settings", [{"momentum": None}, {"affine": False}, {"track_running_stats": False}], ids=str)
@pytest.mark.usefixtures("one_pass")
def test_settings_of_the_layer(settings: dict[str, object]) -> None:
    layer = nn.BatchNorm2d(3, **settings)
    same(layer, True, nn.ReLU())
    assert layer.num_batches_tracked is None or layer.num_batches_tracked == 2


@pytest.mark.parametrize("where", ["layer", "activation", "forward", "global"])
def test_a_hook_sees_what_it_would_see(where: str, one_pass: list[nn.Module]) -> None:
    layer, relu, seen = nn.BatchNorm2d(3), nn.ReLU(), []
    x = torch.randn(4, 3, 5, 5)

    def keep(module: nn.Module, taken: object, put: Tensor) -> None:
        seen.append(put)

    if where == "global":
        handle = nn.modules.module.register_module_forward_hook(keep)
    elif where == "forward":  # as a part of a network is replaced while it runs
        layer.forward = lambda input: seen.append(input) or input
    else:
        {"layer": layer, "activation": relu}[where].register_forward_hook(keep)
    y = normalize(layer, x, activation=relu)
    if where == "global":
        handle.remove()
    assert len(seen) == {"global": 2}.get(where, 1)
    assert one_pass == []
    torch.testing.assert_close(y, x.relu() if where == "forward" else copy.deepcopy(layer).train()(x).relu())


def test_other_modules_are_called(one_pass: list[nn.Module]) -> None:
    class Doubled(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    x = torch.randn(4, 3, 5, 5)
    for layer in (nn.Identity(), nn.GroupNorm(3, 3), Doubled(3)):
        assert not is_normalization(layer)
        assert torch.equal(normalize(layer, x, x), layer(x) + x)
    assert one_pass == []


@pytest.mark.usefixtures("one_pass")
def test_what_batch_normalization_refuses_is_refused() -> None:
    layer = nn.BatchNorm2d(3)
    with pytest.raises(ValueError, match="expected 4D input"):
        normalize(layer, torch.randn(4, 3, 5))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        normalize(layer, torch.randn(1, 3, 1, 1))
    assert layer.num_batches_tracked == 0


def test_an_ordinary_layer_of_timm_on_the_cpu_is_timms() -> None:
    layer = BatchNormAct2d(3)
    twin = copy.deepcopy(layer)
    twin.__class__ = OnePassBatchNormAct2d
    x = torch.randn(4, 3, 5, 5)
    assert torch.equal(twin(x), layer(x))
    assert torch.equal(twin.eval()(x), layer.eval()(x))
