"""freeze, unfreeze and name_matches: what is frozen stays frozen."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torchvision
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from stochnorm.nn import (
    FrozenNorm2d,
    StochNorm2d,
    convert,
    convert_batch_instance,
    freeze,
    name_matches,
    restore,
    unfreeze,
    update_statistics,
)
from stochnorm.nn.timm_layers import FrozenNormAct2d

pytestmark = pytest.mark.usefixtures("device")


def small_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))


def images() -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator(torch.get_default_device()).manual_seed(0)) + 2


def copied_by_pickle(model: nn.Module) -> nn.Module:
    copy_: nn.Module = pickle.loads(pickle.dumps(model))  # noqa: S301
    return copy_


@pytest.mark.parametrize("again", [lambda m: m, copy.deepcopy, copied_by_pickle], ids=["itself", "copy", "pickle"])
def test_frozen_statistics_normalize_in_training_as_in_eval_and_stay(again: object) -> None:
    net = small_net()
    net(images())
    reference = copy.deepcopy(net).eval()
    net = again(freeze(net, what="statistics"))  # type: ignore[operator]
    net.train()
    buffers = [b.clone() for b in net.buffers()]
    y = net(images())
    assert torch.equal(y, reference(images()))
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), buffers, strict=True))
    y.square().sum().backward()
    assert net[1].weight.grad.any()  # the affine part learns on


def test_the_rest_of_the_model_follows_train() -> None:
    net = freeze(nn.Sequential(BatchNormAct2d(2, drop_layer=nn.Dropout), nn.Dropout())).eval().train()
    assert type(net[0]) is FrozenNormAct2d
    assert not net[0].training
    assert net[0].drop.training
    assert net[1].training


def test_timms_activation_runs() -> None:
    layer = BatchNormAct2d(3, act_layer=nn.ReLU)
    layer(images())
    reference = copy.deepcopy(layer).eval()
    freeze(layer).train()
    assert torch.equal(layer(images()), reference(images()))
    assert layer(images() - 5).min() == 0


@pytest.mark.parametrize(("what", "statistics", "affine"), [("affine", 0, 2), ("statistics", 2, 0), ("both", 2, 2)])
def test_what_says_what_is_frozen(what: str, statistics: int, affine: int) -> None:
    net = freeze(small_net(), what=what)
    assert sum(isinstance(m, FrozenNorm2d) for m in net) == statistics
    norms = [net[1], net[4]]
    assert sum(not m.weight.requires_grad and not m.bias.requires_grad for m in norms) == affine
    assert net[0].weight.requires_grad


def test_an_optimizer_made_before_does_not_move_a_frozen_affine() -> None:
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0, weight_decay=0.1)
    net(images()).square().sum().backward()
    before = net[1].weight.clone()
    freeze(net, what="affine")
    optimizer.step()
    assert torch.equal(net[1].weight, before)


def test_parameters_buffers_hooks_sharing_and_state_dict_stay() -> None:
    net = small_net()
    net.append(net[1])
    calls: list[int] = []
    net[1].register_forward_hook(lambda *_: calls.append(1))
    tensors = {name: id(t) for name, t in (*net.named_parameters(), *net.named_buffers())}
    keys = list(net.state_dict())
    freeze(net)
    assert {name: id(t) for name, t in (*net.named_parameters(), *net.named_buffers())} == tensors
    assert list(net.state_dict()) == keys
    assert net[1] is net[5]
    net(images())
    assert calls == [1, 1]
    plain = small_net().append(nn.BatchNorm2d(4))
    plain.load_state_dict(net.state_dict())


@pytest.mark.parametrize("back", [restore, unfreeze])
@pytest.mark.parametrize("mode", [True, False])
def test_the_way_back_gives_batch_norm_in_the_mode_asked_for(back: object, mode: bool) -> None:
    net = freeze(small_net()).train(mode)
    assert back(net) is net  # type: ignore[operator]
    assert [type(net[i]) for i in (1, 4)] == [nn.BatchNorm2d] * 2
    assert [net[i].training for i in (1, 4)] == [mode] * 2
    assert "_asked" not in net[1].__dict__
    assert net[1].weight.requires_grad == (back is unfreeze)


def test_freezing_twice_remembers_the_mode_from_before() -> None:
    net = freeze(freeze(small_net()))
    assert unfreeze(net)[1].training


def test_unfreeze_takes_a_part() -> None:
    net = unfreeze(freeze(small_net()), what="affine", where=name_matches("^1$"))
    assert isinstance(net[1], FrozenNorm2d)
    assert [net[i].weight.requires_grad for i in (1, 4)] == [True, False]
    assert type(unfreeze(net, what="statistics")[1]) is nn.BatchNorm2d
    assert not net[4].weight.requires_grad


def test_freezing_wins_over_stochnorm_in_either_order() -> None:
    first, second = small_net(), small_net()
    freeze(convert(first, p=0.5), what="statistics", where=name_matches("1"))
    convert(freeze(second, what="statistics", where=name_matches("1")), p=0.5)
    for net in (first, second):
        assert [type(net[i]) for i in (1, 4)] == [FrozenNorm2d, StochNorm2d]
    assert "_p" not in first[1].__dict__
    restore(first)
    assert [type(first[i]) for i in (1, 4)] == [nn.BatchNorm2d] * 2


def test_a_frozen_affine_goes_with_every_method() -> None:
    assert type(freeze(convert(small_net()), what="affine")[1]) is StochNorm2d
    net = freeze(convert_batch_instance(small_net()), what="affine")
    assert [net[1].weight.requires_grad, net[1].rho.requires_grad] == [False, True]
    with pytest.raises(ValueError, match="cannot turn BatchInstanceNorm2d at '1' into FrozenNorm2d"):
        freeze(convert_batch_instance(small_net()), what="statistics")


def test_recomputing_statistics_is_an_explicit_request() -> None:
    layer = freeze(nn.BatchNorm2d(3))
    update_statistics(layer, [images()])
    torch.testing.assert_close(layer.running_mean, images().mean((0, 2, 3)))
    assert not layer.training


def test_a_converted_model_of_frozen_layers_alone_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"its normalization is FrozenNorm2d, .* excluded"):
        convert(freeze(small_net()))


@pytest.mark.parametrize(
    ("model", "what", "message"),
    [
        (nn.Linear(2, 2), "both", "nothing to freeze in Linear: it has no normalization layer"),
        (nn.BatchNorm2d(2), "all", "what must be statistics, affine or both, got 'all'"),
        (nn.LazyBatchNorm2d(), "both", "cannot freeze the lazy layer"),
    ],
)
def test_what_cannot_be_frozen_is_an_error(model: nn.Module, what: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        freeze(model, what=what)  # type: ignore[arg-type]


def test_a_pattern_picks_layers_by_name() -> None:
    model = convert(torchvision.models.resnet18(num_classes=3), where=name_matches("layer[34]"))
    picked = {name.split(".")[0] for name, m in model.named_modules() if isinstance(m, StochNorm2d)}
    assert picked == {"layer3", "layer4"}


@pytest.mark.parametrize(
    ("pattern", "message"), [("layer[3", "'layer\\[3' is not a regular expression"), ("", "empty")]
)
def test_a_pattern_that_is_none_is_an_error(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        name_matches(pattern)


def test_a_pattern_that_finds_nothing_is_an_error_that_lists_layers() -> None:
    model = torchvision.models.resnet18(num_classes=3)
    with pytest.raises(ValueError, match=r"picked none of its 20 BatchNorm layers, among them bn1, layer1"):
        freeze(model, where=name_matches("stage5"))
