"""Statistics recomputed from data, and the ones that fine-tuning starts from."""

from __future__ import annotations

import copy
from collections import defaultdict

import pytest
import torch
import torchvision
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from stochnorm import convert, update_statistics
from stochnorm.nn import freeze, initialize_statistics
from stochnorm.nn.select import normalization_layers

pytestmark = pytest.mark.usefixtures("device")


def batches() -> list[Tensor]:
    return list(torch.randn(3, 4, 3, 32, 32, generator=torch.Generator(torch.get_default_device()).manual_seed(0)) + 2)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_each_layer_gets_mean_and_variance_of_all_that_it_saw_whatever_p(p: float) -> None:
    model = torchvision.models.resnet18(num_classes=3)
    reference, seen = copy.deepcopy(model).train(), defaultdict(list)
    for layer in normalization_layers(reference):
        layer.register_forward_pre_hook(lambda layer, inputs: seen[layer].append(inputs[0].detach()))
    every = [*batches(), batches()[0][:2]]
    for x in every:
        reference(x)
    update_statistics(convert(model, p=p), [(x, torch.zeros(len(x))) for x in every])
    for ours, theirs in zip(normalization_layers(model), normalization_layers(reference), strict=True):
        var, mean = torch.var_mean(torch.cat(seen[theirs]).double(), (0, 2, 3))
        torch.testing.assert_close(ours.running_mean.double(), mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.running_var.double(), var, rtol=1e-4, atol=1e-5)
        assert ours.num_batches_tracked == len(every)


@pytest.mark.parametrize("model", [nn.BatchNorm2d(3), BatchNormAct2d(3)], ids=["torch", "timm"])
def test_order_and_size_of_the_batches_do_not_matter(model: nn.Module) -> None:
    """Of images in two groups, which come one after the other, far from 0, or in any order."""
    images = torch.randn(40, 3, 4, 4) + 100
    images[20:] += 50
    var, mean = torch.var_mean(images.double(), (0, 2, 3))
    for order, size in (
        (torch.arange(40), 8),
        (torch.arange(40), 7),
        (torch.randperm(40), 13),
        (torch.randperm(40), 1),
    ):
        model = convert(model, p=0.5)
        update_statistics(model, images[order].split(size))
        torch.testing.assert_close(model.running_mean.double(), mean, rtol=1e-6, atol=0)
        torch.testing.assert_close(model.running_var.double(), var, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_statistics_of_half_precision_are_rounded_once(dtype: torch.dtype) -> None:
    """Not those of each batch: the mean of these values is far larger than their deviations."""
    values = (300 + torch.randn(64, 2, 6, 6)).to(dtype)
    layer = update_statistics(convert(nn.BatchNorm2d(2)).to(dtype), values.split(8))
    exact = values.double().movedim(1, 0).flatten(1)
    assert torch.equal(layer.running_mean, exact.mean(1).to(dtype))  # type: ignore[arg-type]
    assert torch.equal(layer.running_var, exact.var(1).to(dtype))  # type: ignore[arg-type]


def test_held_statistics_and_those_of_layers_that_did_not_run_stay() -> None:
    model = convert(nn.Sequential(*(nn.BatchNorm2d(3) for _ in range(3))))
    for layer in model:
        nn.init.uniform_(layer.running_mean)
    model[1].track_running_stats = False
    before = copy.deepcopy(model.state_dict())
    model.forward = lambda x: model[1](model[0](x))  # type: ignore[method-assign]
    update_statistics(model, batches())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == (not name.startswith("0.") or "weight" in name or "bias" in name)
    assert model[1].momentum == 0.1


def test_weights_that_autocast_remembers_are_forgotten(device: torch.device) -> None:
    """Before the statistics, which are then those of the present weights; and after, as these have no gradient."""
    model = convert(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    with torch.autocast(device.type, dtype=torch.bfloat16):
        model(batches()[0])
        with torch.no_grad():
            model[0].weight.mul_(3)
        update_statistics(model, batches())
        output = model(batches()[0])
    output.float().square().sum().backward()
    assert model[0].weight.grad is not None
    got = model[1].running_var.clone()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        update_statistics(model, batches())
    torch.testing.assert_close(model[1].running_var, got, rtol=0.3, atol=0)


def test_a_compiled_model_gets_the_same(request: pytest.FixtureRequest) -> None:
    request.addfinalizer(torch.compiler.reset)
    model = convert(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, backend="eager")
    compiled(batches()[0]), twin(batches()[0])
    update_statistics(compiled, batches())
    update_statistics(twin, batches())
    torch.testing.assert_close(model.state_dict(), twin.state_dict(), rtol=0, atol=0)


def test_p_momentum_and_modes_are_as_before() -> None:
    model = convert(nn.Sequential(nn.BatchNorm2d(3, momentum=0.3), nn.Dropout(), nn.BatchNorm2d(3)), p=0.2)
    model[2].eval()
    update_statistics(model, batches())
    assert (model[0].p, model[0].momentum, model[2].momentum) == (0.2, 0.3, 0.1)
    assert [m.training for m in model] == [True, True, False]


def test_dropout_does_not_enter_the_statistics() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(3))
    update_statistics(model, [torch.ones(4, 3, 2, 2)])
    assert torch.equal(model[1].running_mean, torch.ones(3))


def test_dropout_inside_a_normalization_layer_stays_off() -> None:
    model = nn.Sequential(BatchNormAct2d(3, apply_act=False, drop_layer=nn.Dropout), nn.BatchNorm2d(3))
    twins = [copy.deepcopy(model) for _ in range(2)]
    for twin in twins:
        update_statistics(twin, batches())
    assert torch.equal(twins[0][1].running_var, twins[1][1].running_var)


def test_an_error_on_the_way_leaves_everything_as_it_was() -> None:
    model = convert(nn.Sequential(nn.BatchNorm2d(3)), p=0.2)
    model(batches()[0])
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="expected 4D"):
        update_statistics(model, [batches()[0], torch.ones(2, 3)])
    assert model[0].p == 0.2
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_nothing_to_do_is_an_error() -> None:
    with pytest.raises(ValueError, match="no BatchNorm or StochNorm layer"):
        update_statistics(nn.Linear(2, 2), batches())
    model = nn.BatchNorm2d(3)
    model(batches()[0])
    mean = model.running_mean.clone()
    with pytest.raises(ValueError, match="no batch"):
        update_statistics(model, [])
    assert torch.equal(model.running_mean, mean)


def inherited() -> nn.Sequential:
    model = convert(nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)), p=0.5)
    for layer in (model[0], model[2]):
        layer.running_mean.fill_(7.0)
        layer.running_var.fill_(3.0)
        layer.num_batches_tracked.fill_(5)
    return model


def images() -> list[Tensor]:
    return list(torch.randn(3, 4, 2, 5, 5, generator=torch.Generator(torch.get_default_device()).manual_seed(0)) + 2)


def test_initial_pretrained_changes_nothing() -> None:
    model = inherited()
    before = copy.deepcopy(model.state_dict())
    initialize_statistics(model, "pretrained")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_zero_one_forgets_the_statistics_and_nothing_else() -> None:
    model = inherited()
    weight = model[1].weight.clone()
    initialize_statistics(model, "zero_one")
    for layer in (model[0], model[2]):
        assert torch.equal(layer.running_mean, torch.zeros_like(layer.running_mean))
        assert torch.equal(layer.running_var, torch.ones_like(layer.running_var))
        assert layer.num_batches_tracked == 0
        assert layer.p == 0.5
    assert torch.equal(model[1].weight, weight)


def test_target_takes_them_from_the_images() -> None:
    model = inherited()
    reference = update_statistics(copy.deepcopy(model), images())
    initialize_statistics(model, "target", images())
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), reference.buffers(), strict=True))
    torch.testing.assert_close(model[0].running_mean, torch.stack(images()).mean((0, 1, 3, 4)))


def test_frozen_layers_start_there_too() -> None:
    model = freeze(inherited())
    initialize_statistics(model, "zero_one")
    assert model[0].running_mean.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("model", "how", "message"),
    [
        (nn.BatchNorm2d(2), "imagenet", "must be pretrained, zero_one or target, got 'imagenet'"),
        (nn.BatchNorm2d(2), "target", "need batches of training images"),
        (nn.Linear(2, 2), "zero_one", "Linear has no BatchNorm"),
        (nn.Linear(2, 2), "pretrained", "Linear has no BatchNorm"),
    ],
)
def test_initial_statistics_that_cannot_be_set_are_an_error(model: nn.Module, how: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        initialize_statistics(model, how)  # type: ignore[arg-type]
