"""The paper's three backbones take a few steps with every method (random weights, small images)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm import DELTAConfig, FinetuneConfig, L2SPConfig, build_classifier
from stochnorm.data import Split
from stochnorm.evaluation.tasks import SingleLabel
from stochnorm.methods.catalogue import check_method
from stochnorm.models import Classifier
from stochnorm.nn.select import normalization_layers
from stochnorm.training.objective import Objective
from stochnorm.training.prepare import prepare

CLASSES = ("a", "b", "c")
METHODS = ["vanilla", "stochnorm", "bin", "frozen", "l2sp", "delta", "bss", "stochnorm+l2sp+delta+bss"]
KINDS = {"stochnorm": "StochNorm2d", "bin": "BatchInstanceNorm2d", "frozen": "FrozenNorm2d"}


@pytest.fixture(scope="module", params=[("resnet50", 64, 53), ("vgg16_bn", 32, 13), ("inception_v3", 96, 94)])
def backbone(request: pytest.FixtureRequest) -> tuple[Classifier, int]:
    """A fresh classifier, which tests copy, and how many normalization layers it has."""
    name, size, layers = request.param
    return build_classifier(f"torchvision/{name}", "random", CLASSES, image_size=size, auxiliary=False), layers


def noise(classifier: Classifier) -> Split:
    """Training images, which random weights get their first statistics from: without them 94 layers explode."""
    side, generator = classifier.preprocessing.resize, torch.Generator().manual_seed(1)
    store: Any = torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8, generator=generator)
    return Split(store, list(range(4)), torch.arange(4) % 3)


def train(
    classifier: Classifier, method: str, steps: int, batch_size: int = 3
) -> tuple[list[Any], list[torch.Tensor | None]]:
    """The terms of each step, and the moving means that they began with; without terms for the head alone."""
    delta, l2sp = DELTAConfig(attention="uniform", beta=0.0), L2SPConfig(beta=0.0)
    config = FinetuneConfig("-", method=method, delta=delta, l2sp=l2sp, batch_size=4)
    regularizers = prepare(config, classifier, noise(classifier), Fabric(accelerator="cpu"))
    means = [copy.deepcopy(layer.running_mean) for layer in normalization_layers(classifier.model)]
    objective = Objective(classifier, SingleLabel(CLASSES), regularizers)
    optimizer = torch.optim.SGD(classifier.parameter_groups(1e-3), momentum=0.9)
    size, generator = classifier.preprocessing.image_size, torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 3, size, size, generator=generator)
    terms = []
    classifier.model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        terms.append(objective(classifier.model, images, torch.arange(batch_size) % 3))
        terms[-1].loss.backward()
        optimizer.step()
    return terms, means


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains(backbone: tuple[Classifier, int], method: str) -> None:
    original, count = backbone
    classifier = copy.deepcopy(original)
    terms, means = train(classifier, method, steps=2)
    names = check_method(method)
    layers = normalization_layers(classifier.model)
    kind = next((KINDS[name] for name in names if name in KINDS), "BatchNorm2d")
    assert [type(layer).__name__ for layer in layers] == [kind] * count
    assert all(term.loss.isfinite() for term in terms)
    assert set(terms[1].penalties) == set(names) & {"l2sp", "delta", "bss"}
    assert all(penalty > 0 for penalty in terms[1].penalties.values())
    for layer, mean in zip(layers, means, strict=True):
        assert isinstance(layer, _BatchNorm)
        assert mean is not None
        assert torch.equal(layer.running_mean, mean) == ("frozen" in names)
    first = next(classifier.model.parameters())
    assert first.grad is not None
    assert first.grad.abs().sum() > 0
    assert not torch.equal(classifier.head[0].weight, original.head[0].weight)
    if "bin" in names:
        assert any((layer.rho.grad != 0).any() for layer in layers)  # type: ignore[union-attr]


def test_inceptions_auxiliary_head_counts_four_tenths() -> None:
    classifier = build_classifier("torchvision/inception_v3", "random", CLASSES)
    assert classifier.preprocessing.image_size == 299
    head = classifier.auxiliary_heads[0]
    before = head.weight.clone()
    put_out = []
    head.register_forward_hook(lambda module, inputs, output: put_out.append(output.detach()))
    (terms,), _ = train(classifier, "stochnorm", steps=1, batch_size=2)
    auxiliary = torch.nn.functional.cross_entropy(put_out[0], torch.tensor([0, 1]))
    assert terms.loss.item() == pytest.approx(terms.task_loss.item() + 0.4 * auxiliary.item(), rel=1e-5)
    assert not torch.equal(before, head.weight)
