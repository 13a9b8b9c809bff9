"""The layer with its activation: the kernel does both in one pass, and it is what the two do one after the other."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from stochnorm.nn import convert, restore
from stochnorm.nn.cpu import kernel
from stochnorm.nn.cpu.accelerate import accelerate, accelerate_convolutions, decelerate, plain_class
from stochnorm.nn.cpu.fused_norm import FusedBatchNormAct2d

SHAPES = [(5, 3, 9, 9), (7, 65, 1, 1), (5, 70, 17, 19)]


def layer_of(channels: int, activation: type[nn.Module], dtype: torch.dtype = torch.float32) -> BatchNormAct2d:
    generator = torch.Generator(torch.get_default_device()).manual_seed(1)
    layer = BatchNormAct2d(channels, act_layer=activation).to(dtype)
    for vector in (layer.weight, layer.bias, layer.running_mean):
        vector.data = torch.randn(channels, generator=generator, dtype=torch.float64).to(dtype) * 3
    convert(layer, p=0.5)
    return layer


def in_two_steps(layer: BatchNormAct2d) -> nn.Module:
    """Return the layer with its activation outside."""
    normalize = copy.deepcopy(layer)
    normalize.act = nn.Identity()
    return nn.Sequential(normalize, copy.deepcopy(layer.act))


def trained(module: nn.Module, x: Tensor, grad: Tensor) -> list[Tensor]:
    torch.manual_seed(0)
    x = x.detach().requires_grad_()
    y = module(x)
    return [y.detach(), *torch.autograd.grad(y, [x, *module.parameters()], grad), *module.buffers()]


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.SiLU, nn.Identity])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", SHAPES)
def test_normalizes_then_activates(
    shape: tuple[int, ...], memory_format: torch.memory_format, dtype: torch.dtype, activation: type[nn.Module]
) -> None:
    x, grad = (torch.randn(shape).to(dtype).contiguous(memory_format=memory_format) for _ in range(2))
    layer = layer_of(shape[1], activation, torch.float64 if dtype is torch.float64 else torch.float32)
    two_steps = in_two_steps(layer)
    output, *others = trained(layer, x, grad)
    expected, *expected_others = trained(two_steps, x, grad)
    assert torch.equal(output, expected)
    for ours, theirs in zip(others, expected_others, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.skipif(kernel.library is None, reason="the kernel was not built")
def test_relu6_runs_in_the_kernel() -> None:
    layer = layer_of(3, nn.ReLU6)
    node = layer(torch.randn(4, 3, 5, 5, requires_grad=True)).grad_fn
    assert node.name() == "_FusedBackward"
    assert [function.name() for function, _ in node.next_functions[:1]] == ["torch::autograd::AccumulateGrad"]


@pytest.mark.usefixtures("device")
def test_hooks_of_the_activation_run() -> None:
    layer, seen = layer_of(3, nn.ReLU), []
    layer.act.register_forward_hook(lambda module, taken, put: seen.append(put.min().item()))
    layer(torch.randn(4, 3, 5, 5))
    assert seen == [0.0]


@pytest.mark.usefixtures("device")
def test_the_gradient_is_zero_on_the_bounds_and_passes_nan() -> None:
    layer = layer_of(1, nn.ReLU6)
    nn.init.zeros_(layer.weight)
    for bias, passes in ((0.0, False), (6.0, False), (3.0, True), (float("nan"), True)):
        nn.init.constant_(layer.bias, bias)
        grad_bias = trained(layer, torch.randn(2, 1, 4, 4), torch.ones(2, 1, 4, 4))[3]
        assert grad_bias.item() == (32 if passes else 0), bias


def test_what_bfloat16_rounds_onto_a_bound_is_on_it() -> None:
    layer = layer_of(1, nn.ReLU6)
    nn.init.zeros_(layer.weight)
    x, grad = torch.randn(2, 1, 4, 4).bfloat16(), torch.ones(2, 1, 4, 4).bfloat16()
    for bias, stored in ((5.99, 6.0), (5.984375, 6.0), (5.984, 5.96875), (1e-41, 0.0), (1e-38, 1e-38)):
        nn.init.constant_(layer.bias, bias)
        output, _, _, grad_bias, *_ = trained(layer, x, grad)
        assert output[0, 0, 0, 0].item() == pytest.approx(stored, rel=4e-3, abs=0)
        assert grad_bias.item() == (32 if 0 < stored < 6 else 0), bias


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6])
def test_gradients_of_the_first_and_second_order(activation: type[nn.Module]) -> None:
    layer = layer_of(3, activation, torch.float64)
    layer.momentum = 0.0  # the same function at each call

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        torch.manual_seed(0)
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    leaves = [torch.randn(4, 3, 2, 2, dtype=torch.float64), layer.weight.detach(), layer.bias.detach()]
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves)


@pytest.mark.skipif(kernel.library is None, reason="the kernel was not built")
@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6, nn.SiLU])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_accelerated_batch_norm_is_timms(activation: type[nn.Module], memory_format: torch.memory_format) -> None:
    layer = restore(layer_of(7, activation, torch.float64))
    accelerated = copy.deepcopy(layer)
    assert accelerate(accelerated) == 1
    x, grad = (torch.randn(4, 7, 5, 3, dtype=torch.float64).contiguous(memory_format=memory_format) for _ in range(2))
    for ours, theirs in zip(trained(accelerated, x, grad), trained(layer, x, grad), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
    assert accelerated.num_batches_tracked == layer.num_batches_tracked == 1
    layer.load_state_dict(accelerated.state_dict())
    assert torch.equal(accelerated.eval()(x), layer.eval()(x))


@pytest.mark.skipif(kernel.library is None, reason="the kernel was not built")
@pytest.mark.parametrize(("activation", "last"), [(nn.ReLU6, "_FusedBackward"), (nn.SiLU, "SiluBackward0")])
def test_accelerated_batch_norm_runs_in_the_kernel_where_that_can_activate(
    activation: type[nn.Module], last: str
) -> None:
    layer = restore(layer_of(3, activation))
    accelerate(layer)
    assert layer(torch.randn(4, 3, 5, 5, requires_grad=True)).grad_fn.name() == last


@pytest.mark.skipif(kernel.library is None, reason="the kernel was not built")
def test_what_the_kernel_is_not_made_for_is_timms() -> None:
    layer = restore(layer_of(3, nn.ReLU))
    layer.momentum = None  # the cumulative average
    accelerated = copy.deepcopy(layer)
    accelerate(accelerated)
    x, grad = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    for ours, theirs in zip(trained(accelerated, x, grad), trained(layer, x, grad), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        accelerated(torch.randn(1, 3, 1, 1))


@pytest.mark.skipif(kernel.library is None, reason="the kernel was not built")
def test_an_accelerated_layer_knows_what_it_was_and_is_it_again() -> None:
    model = nn.Sequential(BatchNormAct2d(3), nn.BatchNorm2d(3))
    assert accelerate_convolutions(model) == 0
    assert accelerate(model) == 1
    assert [type(layer) for layer in model] == [FusedBatchNormAct2d, nn.BatchNorm2d]
    assert [plain_class(layer) for layer in model] == [BatchNormAct2d, nn.BatchNorm2d]
    with pytest.raises(TypeError, match="FusedBatchNormAct2d"):
        convert(model)
    assert decelerate(model) == 1
    assert [type(layer) for layer in model] == [BatchNormAct2d, nn.BatchNorm2d]


@pytest.mark.skipif(kernel.library is None, reason="the kernel was not built")
def test_an_accelerated_layer_at_p_1_is_the_accelerated_batch_norm_and_goes_back_to_the_plain_one() -> None:
    plain = BatchNormAct2d(6, act_layer=nn.ReLU)
    ours = convert(copy.deepcopy(plain), p=1.0)
    assert accelerate(nn.Sequential(plain, ours)) == 2
    for _ in range(2):
        x, grad = torch.randn(4, 6, 5, 5), torch.randn(4, 6, 5, 5)
        assert all(torch.equal(a, b) for a, b in zip(trained(ours, x, grad), trained(plain, x, grad), strict=True))
    assert type(restore(copy.deepcopy(ours))) is BatchNormAct2d
    assert type(convert(restore(ours), p=0.5)).__name__ == "StochNormAct2d"
