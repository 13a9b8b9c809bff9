"""One training step: what it sums, and what it does with a loss that is not finite."""

from __future__ import annotations

import math
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

import stochnorm.training.loop
from stochnorm import FinetuneConfig
from stochnorm.evaluation.tasks import MultiLabel, SingleLabel, Task
from stochnorm.models import Classifier, build_classifier
from stochnorm.regularizers import Regularizer, Step
from stochnorm.training.objective import Objective
from stochnorm.training.rates import Rates
from stochnorm.training.step import TrainingStep

CLASSES = ("a", "b", "c")


class Penalty(Regularizer):
    """The mean of the inputs, of which each part has its own."""

    def forward(self, step: Step) -> Tensor:
        return step.inputs.mean()


def training_step(task: Task, *, tensors: bool = False, accumulate: int = 1) -> TrainingStep:
    fabric = Fabric(accelerator="cpu", devices=1)
    multi_label = isinstance(task, MultiLabel)
    torch.manual_seed(0)
    classifier: Classifier = build_classifier("test_resnet", "random", CLASSES, image_size=32, multi_label=multi_label)
    optimizer: Any = torch.optim.SGD(classifier.model.parameters(), 0.1, fused=tensors or None)
    model, optimizer = fabric.setup(classifier.model, optimizer)
    config = FinetuneConfig("photos", method="vanilla", batch_size=8, accumulate=accumulate)
    objective = Objective(classifier, task, {"mean": Penalty()})
    rates = Rates(optimizer, fabric.device if tensors else None)
    return TrainingStep(config, objective, fabric, model, rates, lambda images, targets: (images, targets))


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("tensors", [False, True])
def test_values_are_summed_over_images(accumulate: int, tensors: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python's numbers, part by part: means times images, the score in percent, the loss that is minimized."""
    step = training_step(SingleLabel(CLASSES), tensors=tensors, accumulate=accumulate)
    seen: list[Any] = []
    original = Objective.__call__

    def spy(*args: Any, **options: Any) -> Any:
        seen.append(original(*args, **options))
        return seen[-1]

    monkeypatch.setattr(Objective, "__call__", spy)
    images, targets = torch.rand(8, 3, 32, 32), torch.arange(8) % 3
    expected = dict.fromkeys(("penalty_mean", "loss", "score", "total"), 0.0)
    for number in range(2):
        step(number, [images, targets])
        of_step = dict.fromkeys(expected, 0.0)
        for terms, of_part in zip(seen, targets.tensor_split(accumulate), strict=True):
            count, right = len(of_part), (terms.logits.argmax(1) == of_part).float().mean()
            of_step["penalty_mean"] += terms.penalties["mean"].item() * count
            of_step["loss"] += terms.task_loss.item() * count
            of_step["score"] += 100 * right.item() * count
            of_step["total"] += terms.loss.item()
        expected = {name: value + of_step[name] for name, value in expected.items()}
        seen.clear()
    assert step.sums.read() == (2, {"images": 16, **expected})


def test_several_labels_have_no_score_in_training() -> None:
    step = training_step(MultiLabel(CLASSES))
    step(0, [torch.rand(8, 3, 32, 32), torch.zeros(8, 3)])
    assert set(step.sums.read().sums) == {"images", "penalty_mean", "loss", "total"}


@pytest.mark.parametrize("tensors", [False, True])
def test_a_bad_loss_stops_a_cpu_at_once_and_a_gpu_at_the_next_read(tensors: bool) -> None:
    """On a CPU the weights are still those of the step before."""
    step = training_step(SingleLabel(CLASSES), tensors=tensors)
    before = step.network.fc.weight.clone()
    inputs = [torch.full((8, 3, 32, 32), math.nan), torch.arange(8) % 3]
    if tensors:
        step(0, inputs)
        step(1, inputs)
        with pytest.raises(FloatingPointError, match=r"^the loss is nan at step 1$"):
            step.sums.read()
    else:
        with pytest.raises(FloatingPointError, match=r"^the loss is nan at step 1$"):
            step(0, inputs)
        assert torch.equal(step.network.fc.weight, before)


def test_a_step_draws_by_its_number_alone() -> None:
    draws = []
    for number in (3, 4, 3):
        training_step(SingleLabel(CLASSES)).prepare(number)
        draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])


def test_the_rates_decay_once() -> None:
    step = training_step(SingleLabel(CLASSES))
    assert step.config.steps == 300
    assert [step.decay(number) for number in (0, 197, 198, 299)] == [1.0, 1.0, 0.1, 0.1]


@pytest.mark.parametrize(("device", "processes", "asked"), [("cpu", 2, 48), ("cuda", 1, 48), ("cuda", 2, 3)])
def test_processes_on_gpus_ask_each_other_seldom(
    device: str, processes: int, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether to stop: the answer makes the host wait."""
    calls = []
    monkeypatch.setattr(stochnorm.training.loop, "agreed", lambda fabric, stop: calls.append(stop) or stop)
    job, stop = Mock(), Mock()
    job.fabric.device, job.fabric.world_size = torch.device(device), processes
    stop.is_set.return_value = True
    stopped = [stochnorm.training.loop._stops(job, stop, number) for number in range(48)]
    assert sum(stopped) == len(calls) == asked
