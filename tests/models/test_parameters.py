"""Parameter groups."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stochnorm import build_classifier
from stochnorm.models import parameter_groups
from stochnorm.models.parameters import stages
from stochnorm.nn import convert_batch_instance

CLASSES = ("a", "b", "c")


def named(model: nn.Module, group: dict[str, object]) -> set[str]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[parameter] for parameter in group["params"]}  # type: ignore[attr-defined]


def test_the_head_learns_ten_times_as_fast_and_each_parameter_once() -> None:
    classifier = build_classifier("test_resnet", "random", CLASSES)
    backbone, head = classifier.parameter_groups(0.01, 10)
    assert (backbone["lr"], head["lr"]) == (0.01, pytest.approx(0.1))
    assert named(classifier.model, head) == {"fc.weight", "fc.bias"}
    parameters = [*backbone["params"], *head["params"]]
    assert len({id(p) for p in parameters}) == len(parameters) == len(list(classifier.model.parameters()))
    assert "weight_decay" not in backbone | head


def test_auxiliary_heads_learn_as_fast_as_the_head_and_their_pre_trained_layers_do_not() -> None:
    classifier = build_classifier("googlenet", "random", CLASSES, image_size=64)
    backbone, head = classifier.parameter_groups(0.01)
    layers = ("fc", "aux1.fc2", "aux2.fc2")
    assert named(classifier.model, head) == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert "aux1.fc1.weight" in named(classifier.model, backbone)


def test_normalization_and_biases_go_without_weight_decay_on_request() -> None:
    classifier = build_classifier("torchvision/resnet18", "random", CLASSES, image_size=64)
    model = classifier.model
    groups = classifier.parameter_groups(0.1, weight_decay=0.5, no_decay_norm_bias=True)
    assert [(g["lr"], g["weight_decay"]) for g in groups] == [(0.1, 0.5), (1.0, 0.5), (0.1, 0.0), (1.0, 0.0)]
    normalizations = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert named(model, groups[2]) == {f"{name}.{kind}" for name in normalizations for kind in ("weight", "bias")}
    assert named(model, groups[1]) == {"fc.weight"}
    assert named(model, groups[3]) == {"fc.bias"}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert {group["weight_decay"] for group in classifier.parameter_groups(0.1, weight_decay=0.5)} == {0.5}


def test_what_is_exempt_is_not_decayed_by_an_optimizer_that_decays() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    groups = parameter_groups(model, [], lr=1.0, no_decay_norm_bias=True)
    optimizer = torch.optim.SGD(groups, lr=1.0, weight_decay=0.5)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name] * (0.5 if name == "0.weight" else 1.0)), name


def test_shared_parameters_come_once_and_as_the_heads() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    backbone, head = parameter_groups(model, [model[2]], lr=0.1)
    assert [id(p) for p in backbone["params"]] == [id(model[0].bias)]
    assert {id(p) for p in head["params"]} == {id(model[0].weight), id(model[2].bias)}


def test_frozen_parameters_and_empty_groups_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    (group,) = parameter_groups(model, [model[1]], lr=0.1)
    assert named(model, group) == {"1.weight", "1.bias"}
    assert group["lr"] == 1.0
    with pytest.raises(ValueError, match="Sequential has no parameter with requires_grad"):
        parameter_groups(model.requires_grad_(False), [model[1]], lr=0.1)


def test_the_proportions_of_batch_instance_normalization_learn_fast_and_never_decay() -> None:
    model = convert_batch_instance(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)))
    backbone, head, rho = parameter_groups(model, [model[2]], lr=0.1, weight_decay=0.5)
    assert named(model, rho) == {"1.rho"}
    assert (rho["lr"], rho["weight_decay"]) == (1.0, 0.0)
    assert (backbone["weight_decay"], head["weight_decay"]) == (0.5, 0.5)
    assert named(model, backbone) == {"0.weight", "0.bias", "1.weight", "1.bias"}


@pytest.mark.parametrize(("backbone", "count"), [("tf_efficientnet_lite0", 8), ("test_resnet", 5)])
def test_learning_rates_fall_from_stage_to_stage(backbone: str, count: int) -> None:
    classifier = build_classifier(backbone, "random", CLASSES, image_size=64)
    *stages, head = classifier.parameter_groups(0.01, 10, layer_decay=0.5)
    assert [group["lr"] for group in stages] == pytest.approx([0.01 * 0.5**n for n in range(count)][::-1])
    assert head["lr"] == pytest.approx(0.1)
    assert stages[0]["params"][0] is next(classifier.model.parameters())
    members = [parameter for group in (*stages, head) for parameter in group["params"]]
    assert len(members) == len(set(members)) == len(list(classifier.model.parameters()))


@pytest.mark.parametrize(
    ("name", "count"), [("resnet18", 5), ("mobilenet_v2", 19), ("vgg11_bn", 9), ("regnet_y_400mf", 5)]
)
def test_networks_without_named_stages_have_their_parts(name: str, count: int) -> None:
    classifier = build_classifier(f"torchvision/{name}", "random", CLASSES, image_size=64)
    found = stages(classifier.model, set(classifier.head[0].parameters()))
    order = list(classifier.model.parameters())
    assert len(found) == count
    assert [parameter for stage in found for parameter in stage] == order[: sum(map(len, found))]
