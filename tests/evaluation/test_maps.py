"""Maps of what a network sees: at the right place, by the formula."""

from __future__ import annotations

import timm
import torch
from torch import nn

from stochnorm.data import Preprocessing
from stochnorm.evaluation.maps import activation_maps
from stochnorm.models import Classifier


def spots() -> Classifier:
    """A network whose logit of a class is the mean of one channel, after two stages that halve the resolution."""
    model = nn.Sequential(
        nn.Conv2d(3, 3, 2, 2, groups=3, bias=False), nn.ReLU(),
        nn.Conv2d(3, 3, 2, 2, groups=3, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3),
    )  # fmt: skip
    for layer in (model[0], model[2]):
        nn.init.constant_(layer.weight, 0.25)
    nn.init.eye_(model[6].weight)
    return Classifier(model, [model[6]], "spots", "random", ("r", "g", "b"), Preprocessing(32, (0, 0, 0), (1, 1, 1)))


def test_a_spot_of_a_class_is_where_it_is() -> None:
    images = torch.zeros(2, 3, 32, 32)
    images[0, 0, 4:8, 20:24] = 1.0
    images[0, 2, 24:28, 4:8] = 1.0
    images[1, 1, 16:20, 16:20] = 1.0
    maps = activation_maps(spots(), images.repeat_interleave(2, 0)[:3], torch.tensor([0, 2, 0]))
    assert maps.shape == (3, 32, 32)
    for number, (top, left) in enumerate([(4, 20), (24, 4)]):
        assert maps[number, top : top + 4, left : left + 4].min() > 0.5
        assert maps[number].max() == 1.0
        elsewhere = maps[number].clone()
        elsewhere[max(top - 4, 0) : top + 8, max(left - 4, 0) : left + 8] = 0
        assert elsewhere.max() == 0
    assert torch.equal(maps[2], torch.zeros(32, 32))  # nothing speaks for red in the third


def test_the_last_stage_has_the_map_of_the_formula() -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=4).eval()
    classifier = Classifier(
        model, [model.get_classifier()], "test_resnet", "random", tuple("abcd"), Preprocessing(64, (0, 0, 0), (1, 1, 1))
    )
    images, targets = torch.randn(2, 3, 64, 64), torch.tensor([1, 3])
    maps = activation_maps(classifier, images, targets)
    features = model.forward_features(images)
    weight = model.get_classifier().weight[targets] / features.shape[2] / features.shape[3]  # gradient of an average
    expected = (weight[:, :, None, None].relu() * features).sum(1).relu()
    expected = expected / expected.amax((1, 2), keepdim=True)
    corner = torch.nn.functional.interpolate(expected[:, None], (64, 64), mode="bilinear")[:, 0]
    assert (maps >= corner - 1e-5).all()
    assert maps.amax((1, 2)).tolist() == [1.0, 1.0]
    assert all(parameter.grad is None for parameter in model.parameters())
