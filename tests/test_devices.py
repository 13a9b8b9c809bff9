"""No training step mixes devices or reads from one: shown on the device `meta`, which has shapes and no data.

An operation on tensors of `meta` and of the CPU raises, and so does reading a value (`.item()`, `if tensor`).
`make test-gpu` tests what a GPU computes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import nn

import stochnorm
from stochnorm.evaluation.tasks import MultiLabel, SingleLabel, Task
from stochnorm.models import Classifier, build_classifier
from stochnorm.nn import StochNorm2d, convert_batch_instance, freeze, hold_statistics, set_p
from stochnorm.regularizers import DELTA, L2SP, Step
from stochnorm.training.objective import Objective

META = torch.device("meta")
CONVERSIONS: dict[str, Callable[[nn.Module], Any]] = {
    "vanilla": lambda model: model,
    "stochnorm": stochnorm.convert,
    "bin": convert_batch_instance,
    "frozen": freeze,
}


def classifier() -> Classifier:
    built = build_classifier("test_resnet", "random", ("a", "b", "c"), image_size=32)
    built.model.to(META)
    return built


@pytest.mark.parametrize(
    ("task", "targets"),
    [
        (SingleLabel(("a", "b", "c")), torch.zeros(8, dtype=torch.int64)),
        (MultiLabel(("a", "b", "c"), torch.ones(3)), torch.zeros(8, 3)),
    ],
    ids=["single label", "multi-label"],
)
@pytest.mark.parametrize("method", CONVERSIONS)
def test_a_training_step_stays_on_its_device(method: str, task: Task, targets: torch.Tensor) -> None:
    built = classifier()
    model = built.model
    CONVERSIONS[method](model)
    weights = {"layer4": torch.ones(model.feature_info[-1]["num_chs"])}
    reference = copy.deepcopy(model)
    regularizers = {
        "l2sp": L2SP(model, built.new_layers),
        "delta": DELTA(model, reference, built.new_layers, layers=["layer4"], weights=weights),
    }
    objective = Objective(built, task, {name: each.to(META) for name, each in regularizers.items()})
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True)
    images = torch.zeros(8, 3, 40, 40, dtype=torch.uint8, device=META)
    inputs = built.preprocessing.normalize(images[..., 4:36, 4:36])
    model.train()
    terms = objective(model, inputs, targets.to(META))
    terms.loss.backward()
    optimizer.step()
    assert set(terms.penalties) == {"l2sp", "delta"}
    for tensor in (terms.loss, terms.logits, *(p.grad for p in model.parameters() if p.requires_grad)):
        assert tensor is not None and tensor.device == META


def test_a_training_step_on_a_gpu_does_not_wait_for_it(device: torch.device) -> None:
    """CUDA itself raises when the processor reads from the GPU; BSS does, in its eigenvalue solver."""
    if device.type != "cuda":
        pytest.skip("needs a GPU; the device meta shows it above")
    model = stochnorm.convert(timm.create_model("test_resnet", num_classes=3))
    reference = copy.deepcopy(model)
    regularizers = [L2SP(model, model.fc), DELTA(model, reference, model.fc, layers=["layer4"])]
    images, targets = torch.randn(8, 3, 32, 32), torch.arange(8) % 3
    for mode in ("default", "error"):  # the first step may initialize libraries
        torch.cuda.set_sync_debug_mode(mode)
        try:
            logits = model(images)
            step = Step(images, targets, logits, logits)
            loss = nn.functional.cross_entropy(logits, targets) + sum(each(step) for each in regularizers)
            loss.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_second_pass_of_held_statistics_stays_on_its_device() -> None:
    model = stochnorm.convert(timm.create_model("test_resnet").to(META))
    x = torch.randn(4, 3, 32, 32, device=META)
    model(x)
    set_p(model, 0.25)
    with hold_statistics(model):
        assert model(x).device == META


def test_a_layer_on_the_wrong_device_is_noticed_here() -> None:
    """The check itself can fail."""
    layer = StochNorm2d(3, device=META)
    layer.running_mean = torch.zeros(3)
    with pytest.raises(RuntimeError, match="device"):
        layer(torch.randn(4, 3, 5, 5, device=META))
