"""Batch-Instance Normalization against its written formula, and its conversion."""

from __future__ import annotations

import copy
import pickle

import pytest
import timm
import torch
import torchvision
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from stochnorm.nn import (
    BatchInstanceNorm1d,
    BatchInstanceNorm2d,
    BatchInstanceNorm3d,
    batch_instance_norm,
    convert,
    convert_batch_instance,
    restore,
    update_statistics,
)
from stochnorm.nn.batch_instance import clip_after_steps
from stochnorm.nn.timm_layers import BatchInstanceNormAct2d

pytestmark = pytest.mark.usefixtures("device")


def written_formula(x: Tensor, rho: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Equations 1 to 4 of the paper, term by term."""
    rho, weight, bias = (v.view(1, -1, *[1] * (x.dim() - 2)) for v in (rho, weight, bias))
    spatial = list(range(2, x.dim()))
    batch_mean = x.mean([0, *spatial], keepdim=True)
    batch_var = (x - batch_mean).square().mean([0, *spatial], keepdim=True)
    instance_mean = x.mean(spatial, keepdim=True)
    instance_var = (x - instance_mean).square().mean(spatial, keepdim=True)
    batch = (x - batch_mean) / (batch_var + eps).sqrt()
    instance = (x - instance_mean) / (instance_var + eps).sqrt()
    return (rho * batch + (1 - rho) * instance) * weight + bias


def layer_with(rho: Tensor, **settings: object) -> BatchInstanceNorm2d:
    layer = BatchInstanceNorm2d(len(rho), **settings)
    with torch.no_grad():
        layer.rho.copy_(rho)
    return layer


def test_golden_value() -> None:
    # One channel, two images of two pixels: batch mean 3, variance 5; instance means 1 and 5, variances 1.
    x = torch.tensor([0.0, 2.0, 4.0, 6.0]).view(2, 1, 1, 2)
    y = batch_instance_norm(
        x, None, None, torch.tensor([2.0]), torch.tensor([1.0]), rho=torch.tensor([0.25]), training=True, eps=1e-9
    )
    batch, instance = torch.tensor([-3.0, -1.0, 1.0, 3.0]) / 5**0.5, torch.tensor([-1.0, 1.0, -1.0, 1.0])
    torch.testing.assert_close(y.flatten(), 2 * (0.25 * batch + 0.75 * instance) + 1)


@pytest.mark.parametrize("shape", [(4, 3, 5), (4, 3, 2, 3), (4, 3, 2, 3, 2)])
def test_value_and_gradients_are_those_of_the_written_formula(shape: tuple[int, ...]) -> None:
    generator = torch.Generator(torch.get_default_device()).manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
    rho, weight, bias = (torch.rand(3, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(3))
    upstream = torch.randn(shape, dtype=torch.float64, generator=generator)
    y = batch_instance_norm(x, None, None, weight, bias, rho=rho, training=True)
    expected = written_formula(x, rho, weight, bias)
    torch.testing.assert_close(y, expected)
    leaves = (x, rho, weight, bias)
    for ours, theirs in zip(
        torch.autograd.grad(y, leaves, upstream), torch.autograd.grad(expected, leaves, upstream), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_of_one_image_is_right_in_every_memory_format(memory_format: torch.memory_format) -> None:
    x = torch.randn(1, 5, 4, 3, dtype=torch.float64)
    upstream = torch.randn_like(x).contiguous(memory_format=memory_format)
    rho, one, zero = (torch.full((5,), value, dtype=torch.float64) for value in (0.25, 1.0, 0.0))
    gradients = []
    for function in (
        lambda x: batch_instance_norm(x, None, None, rho=rho, training=True),
        lambda x: written_formula(x, rho, one, zero),
    ):
        leaf = x.contiguous(memory_format=memory_format).requires_grad_()
        gradients += torch.autograd.grad(function(leaf), leaf, upstream)
    torch.testing.assert_close(*gradients)


def test_gradcheck() -> None:
    x = torch.randn(
        3,
        2,
        2,
        2,
        dtype=torch.float64,
        requires_grad=True,
        generator=torch.Generator(torch.get_default_device()).manual_seed(0),
    )
    rho = torch.tensor([0.3, 1.0], dtype=torch.float64, requires_grad=True)
    for training in (True, False):
        mean, var = torch.full((2,), 0.5, dtype=torch.float64), torch.full((2,), 2.0, dtype=torch.float64)
        torch.autograd.gradcheck(
            lambda x, rho, t=training, m=mean, v=var: batch_instance_norm(x, m.clone(), v.clone(), rho=rho, training=t),
            (x, rho),
        )


def test_the_batch_part_uses_moving_statistics_in_eval_and_the_instance_part_does_not() -> None:
    x = torch.randn(4, 2, 3, 3)
    mean, var = torch.tensor([1.0, 2.0]), torch.tensor([4.0, 9.0])
    y = batch_instance_norm(x, mean, var, rho=torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(y[:, 0], (x[:, 0] - 1) / (4 + 1e-5) ** 0.5)
    torch.testing.assert_close(y[:, 1], nn.functional.instance_norm(x)[:, 1])


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 1), (4, 3, 1, 1)])
def test_a_single_value_per_image_is_zero_after_instance_normalization(shape: tuple[int, ...]) -> None:
    x, rho = torch.randn(shape), torch.tensor([1.0, 0.5, 0.0])
    y = batch_instance_norm(x, None, None, rho=rho, training=True)
    batch = nn.functional.batch_norm(x, None, None, training=True)
    torch.testing.assert_close(y, batch * rho.view(1, 3, *[1] * (x.dim() - 2)))


@pytest.mark.parametrize(
    ("ours", "theirs", "shape"),
    [
        (BatchInstanceNorm1d, nn.BatchNorm1d, (4, 3, 5)),
        (BatchInstanceNorm1d, nn.BatchNorm1d, (4, 3)),
        (BatchInstanceNorm2d, nn.BatchNorm2d, (4, 3, 2, 2)),
        (BatchInstanceNorm3d, nn.BatchNorm3d, (4, 3, 2, 2, 2)),
    ],
)
@pytest.mark.parametrize(
    "settings", [{}, {"momentum": None}, {"momentum": 0.3}, {"affine": False}, {"track_running_stats": False}]
)
def test_a_new_layer_is_batch_norm_bit_for_bit(
    ours: type[nn.Module], theirs: type[nn.Module], shape: tuple[int, ...], settings: dict[str, object]
) -> None:
    layer, reference = ours(3, **settings), theirs(3, **settings)
    for _ in range(2):
        x = torch.randn(shape)
        assert torch.equal(layer(x), reference(x))
    assert all(torch.equal(a, b) for a, b in zip(layer.buffers(), reference.buffers(), strict=True))
    assert torch.equal(layer.eval()(x), reference.eval()(x))


@pytest.mark.parametrize(("start", "beyond"), [(0.0, -0.5), (1.0, 1.5)])
def test_what_an_optimizer_makes_of_rho_is_clipped_and_comes_back(start: float, beyond: float) -> None:
    x = torch.randn(4, 2, 3, 3)
    layer, inside = layer_with(torch.full((2,), beyond)), layer_with(torch.full((2,), start))
    assert torch.equal(layer.eval()(x), inside.eval()(x))
    assert layer.rho[0] == beyond  # eval mode changes nothing
    y = layer.train()(x)
    assert torch.equal(y, inside.train()(x))
    assert layer.rho[0] == start
    y.square().sum().backward()
    assert (layer.rho.grad != 0).all()  # at the bound it can still leave it


def test_two_forward_passes_before_backward() -> None:
    layer, x = layer_with(torch.tensor([0.5, 1.5])), torch.randn(4, 2, 3, 3)
    (layer(x) + layer(x + 1)).square().sum().backward()
    assert layer.rho.grad is not None


def test_training_lowers_rho_where_image_style_is_noise() -> None:
    # The label is a spatial pattern; each image has a separate offset that hides it from batch normalization.
    generator = torch.Generator(torch.get_default_device()).manual_seed(0)
    pattern = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    layer = layer_with(torch.ones(1))
    optimizer = torch.optim.SGD([layer.rho], lr=0.5)
    for _ in range(20):
        sign = torch.randint(0, 2, (16, 1, 1, 1), generator=generator) * 2.0 - 1
        x = sign * pattern + 3 * torch.randn(16, 1, 1, 1, generator=generator)
        loss = (layer(x) - sign * pattern).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert layer.rho.clamp(0, 1) < 0.2


def test_conversion_keeps_the_function_bit_for_bit_and_everything_else() -> None:
    model = torchvision.models.resnet18(num_classes=3)
    reference = copy.deepcopy(model)
    tensors = {name: id(t) for name, t in (*model.named_parameters(), *model.named_buffers())}
    assert convert_batch_instance(model) is model
    after = {name: id(t) for name, t in (*model.named_parameters(), *model.named_buffers())}
    assert tensors.items() <= after.items()
    assert len(after) - len(tensors) == 20
    assert all(name.endswith(".rho") or name == "bn1.rho" for name in after.keys() - tensors.keys())
    x = torch.randn(4, 3, 32, 32)
    assert torch.equal(model(x), reference(x))
    assert torch.equal(model.eval()(x), reference.eval()(x))
    assert all(torch.equal(b, model.get_buffer(name)) for name, b in reference.named_buffers())


def test_timms_activation_runs() -> None:
    layer = BatchNormAct2d(64, act_layer=nn.ReLU)
    reference = copy.deepcopy(layer)
    convert_batch_instance(layer)
    assert type(layer) is BatchInstanceNormAct2d
    x = torch.randn(4, 64, 3, 3)
    assert torch.equal(layer(x), reference(x))
    with torch.no_grad():
        layer.rho.fill_(0.5)
    y = layer(x)
    assert y.min() == 0
    torch.testing.assert_close(y, written_formula(x, layer.rho, layer.weight, layer.bias).relu())


def test_a_second_conversion_keeps_what_was_learned() -> None:
    layer = layer_with(torch.tensor([0.5, 0.25]))
    convert_batch_instance(layer)
    assert layer.rho.tolist() == [0.5, 0.25]


def test_dtype_and_device_of_rho_are_the_layers() -> None:
    assert convert_batch_instance(nn.BatchNorm2d(3, dtype=torch.float64)).rho.dtype == torch.float64
    assert convert_batch_instance(nn.BatchNorm2d(3, affine=False).to(torch.bfloat16)).rho.dtype == torch.bfloat16


def test_output_keeps_dtype_and_memory_format_under_autocast() -> None:
    layer = layer_with(torch.tensor([0.5, 0.25]))
    x = torch.randn(4, 2, 3, 3).to(memory_format=torch.channels_last)
    with torch.autocast(torch.get_default_device().type, dtype=torch.bfloat16):
        y = layer(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y.float(), layer(x), atol=0.05, rtol=0.05)


def test_copies_pickles_and_state_dicts_carry_rho() -> None:
    layer = layer_with(torch.tensor([0.5, 0.25]))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):  # noqa: S301
        assert type(twin) is BatchInstanceNorm2d
        assert twin.rho.tolist() == [0.5, 0.25]
    fresh = BatchInstanceNorm2d(2)
    fresh.load_state_dict(layer.state_dict())
    assert fresh.rho.tolist() == [0.5, 0.25]


def test_a_state_dict_holds_rho_inside_its_range_whatever_the_optimizer_made_of_it() -> None:
    model = nn.Sequential(layer_with(torch.tensor([-4.3, 0.5, 18.1])))
    x = torch.randn(4, 3, 3, 3)
    before = model.eval()(x)
    state = model.state_dict()
    assert state["0.rho"].tolist() == [0, 0.5, 1]
    assert state["0.rho"].data_ptr() == model[0].rho.data_ptr()  # not a copy, as in every state dict
    assert torch.equal(model(x), before)


def test_clipping_after_steps_changes_no_training() -> None:
    x, labels = torch.randn(16, 3, 4, 4), torch.randn(16, 3, 4, 4)
    ends = []
    for clips in (False, True):
        layer = layer_with(torch.full((3,), 0.5))
        optimizer = torch.optim.SGD([layer.rho], lr=100.0, momentum=0.9)
        if clips:
            clip_after_steps(optimizer, layer)
        seen = []
        for _ in range(12):
            optimizer.zero_grad()
            (layer(x) - labels).square().mean().backward()
            optimizer.step()
            seen.append(layer.rho.detach().clone())
        outside = [bool(((rho < 0) | (rho > 1)).any()) for rho in seen]
        assert any(outside) is not clips
        ends.append(layer.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_restore_goes_back_only_where_nothing_was_learned() -> None:
    model = convert_batch_instance(nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2)))
    with torch.no_grad():
        model[1].rho[0] = 0.5
    with pytest.raises(ValueError, match=r"cannot restore 1: its rho fell to 0.5.*Deploy the model as it is"):
        restore(model)
    assert type(model[0]) is BatchInstanceNorm2d  # all or none
    model[1].rho.data.fill_(1.2)
    restore(model)
    assert [type(m) for m in model] == [nn.BatchNorm2d] * 2
    assert "1.rho" not in model.state_dict()


def test_a_layer_follows_one_method() -> None:
    with pytest.raises(ValueError, match=r"cannot turn StochNorm2d at '0' into BatchInstanceNorm2d.*restore"):
        convert_batch_instance(convert(nn.Sequential(nn.BatchNorm2d(2))))
    with pytest.raises(ValueError, match="cannot turn BatchInstanceNorm2d into StochNorm2d"):
        convert(layer_with(torch.ones(2)))


def test_nothing_to_convert_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to convert in Linear"):
        convert_batch_instance(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"rho must be of shape \(3,\)"):
        batch_instance_norm(torch.randn(2, 3, 2, 2), None, None, rho=torch.ones(1), training=True)


def test_moving_statistics_can_be_recomputed() -> None:
    x = torch.randn(8, 2, 3, 3) + 5
    layer = update_statistics(layer_with(torch.tensor([0.5, 1.0])), [x])
    torch.testing.assert_close(layer.running_mean, x.mean((0, 2, 3)))


def test_a_converted_timm_model_learns_rho() -> None:
    model = convert_batch_instance(timm.create_model("efficientnet_lite0", num_classes=3))
    model(torch.randn(4, 3, 32, 32)).square().sum().backward()
    gates = [p for name, p in model.named_parameters() if name.endswith("rho")]
    assert len(gates) == 49
    assert all(p.grad is not None for p in gates)
    assert sum(bool(p.grad.any()) for p in gates) > 30  # maps of one pixel have no instance statistics
