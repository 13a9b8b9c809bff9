"""One training step as the main job takes it, for the benchmarks that time and weigh steps."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stochnorm import DELTAConfig
from stochnorm.data import Split
from stochnorm.evaluation.tasks import SingleLabel
from stochnorm.models import Classifier, build_classifier
from stochnorm.nn.cpu.accelerate import plain_class
from stochnorm.nn.cpu.depthwise import DepthwiseConv2d
from stochnorm.nn.masks import JointMasks
from stochnorm.nn.stochastic import _StochNorm
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.hardware import launch, precision_of
from stochnorm.training.objective import Objective
from stochnorm.training.prepare import prepare
from stochnorm.training.rates import Rates
from stochnorm.training.step import TrainingStep

BUNDLED = "tf_efficientnet_lite0"
CLASSES = tuple(map(str, range(100)))


class Training(NamedTuple):
    classifier: Classifier
    model: nn.Module
    """The model for training, as Fabric wraps it."""
    on: Callable[[Tensor, Tensor], None]
    """Function that takes a step on images, uint8 (b, 3, s, s), and their classes."""
    images: Tensor
    """A random batch."""
    precision: str
    """Precision, in Fabric's words."""
    whole: TrainingStep
    """The step with what the host decides in it."""

    def step(self) -> None:
        """Take a step on the random batch."""
        self.on(self.images, torch.arange(len(self.images)) % len(self.classifier.classes))


def training(
    backbone: str,
    method: str = "vanilla",
    *,
    batch_size: int,
    image_size: int = 0,
    depthwise: bool = True,
    precision: str = "auto",
    classes: tuple[str, ...] = CLASSES,
    device: str = "auto",
) -> Training:
    """Model, methods, loss and SGD of a job; its precision and memory format.

    Args:
        backbone: With random weights, but the bundled ones where they fit.
        method: As of ``stochnorm finetune``; DELTA with uniform attention, whose steps cost the same.
        batch_size: Of the random batch.
        image_size: Pixels; 0: the backbone's own.
        depthwise: With the compiled kernel for depthwise convolutions, as a job has it.
        precision: As of ``stochnorm finetune``.
        classes: Of the head.
        device: As of ``stochnorm finetune``.
    """
    config = FinetuneConfig("-", method=method, backbone=backbone, delta=DELTAConfig(attention="uniform"))
    weights = "auto" if backbone == BUNDLED else "random"
    classifier = build_classifier(backbone, weights, classes, image_size=image_size or None)
    fabric = launch(device, precision, classifier.model)
    side = classifier.preprocessing.resize
    noise: Any = torch.randint(0, 256, (8, 3, side, side), dtype=torch.uint8)  # for random weights' first statistics
    regularizers = prepare(config, classifier, Split(noise, list(range(8)), torch.arange(8)), fabric)
    for module in classifier.model.modules():
        if isinstance(module, DepthwiseConv2d) and not depthwise:
            module.__class__ = plain_class(module)
    objective = Objective(classifier, SingleLabel(classifier.classes), regularizers, fabric.autocast)
    on_gpu = fabric.device.type == "cuda"
    optimizer = torch.optim.SGD(
        classifier.parameter_groups(1e-4),
        momentum=0.9,
        nesterov=True,
        weight_decay=config.weight_decay_used,
        fused=True if on_gpu else None,
    )
    model, optimizer = fabric.setup(classifier.model, optimizer)
    preprocessing = classifier.preprocessing

    def make(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return preprocessing.normalize(images), targets

    rates = Rates(optimizer, fabric.device if on_gpu else None)
    stochastic = any(isinstance(layer, _StochNorm) for layer in classifier.model.modules())
    masks = JointMasks(classifier.model) if on_gpu and stochastic else None
    whole = TrainingStep(config, objective, fabric, model, rates, make, masks=masks)
    size = preprocessing.image_size
    images = torch.randint(0, 256, (batch_size, 3, size, size), dtype=torch.uint8)
    return Training(classifier, model, whole.compute, images, precision_of(fabric), whole)


def step_memory(trained: Training) -> float:
    """Gigabytes (1e9) that tensors hold in a step beyond what they held before it, at the most; after a first step.

    By the allocations, since what a process takes from the system differs from one to the next by a tenth.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")
    trained.classifier.model.zero_grad(set_to_none=True)  # what was allocated before is not seen to go
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        trained.step()
    # profile.events() sums over functions; the allocations themselves stand behind it.
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(changes)) / 1e9
