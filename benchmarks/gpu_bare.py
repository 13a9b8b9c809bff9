"""The least that trains a network on a GPU, and the least that evaluates it: what jobs and methods are compared with.

A batch of images lies on the device; a step normalizes it, runs forward, loss, backward and SGD, and does nothing else.
No file, no crop, no check, no sum, nothing that waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blend import blend_everywhere
from stochnorm.models import Classifier, build_classifier
from stochnorm.nn import convert, fuse
from training_step import BUNDLED, CLASSES


class Case(NamedTuple):
    """A network and its batch."""

    backbone: str
    batch_size: int = 48
    image_size: int = 224


CASES = {"EfficientNet-Lite0": Case(BUNDLED), "ResNet-50": Case("torchvision/resnet50")}
TINY = {"tiny ResNet": Case("test_resnet", 4, 32)}
WAYS = ("BatchNorm", "fused BatchNorm", "StochNorm", "blend")


def cases(tiny: bool) -> dict[str, Case]:
    return TINY if tiny else CASES


def network(case: Case, way: str, device: str) -> Classifier:
    """Return a network on the device, channels_last.

    Args:
        case: Backbone and image size; random weights, so that nothing else need be installed.
        way: `BatchNorm`, as it is; `fused BatchNorm` and `StochNorm`, as a job has them; `blend`, both branches.
        device: `cuda` or `cpu`.
    """
    classifier = build_classifier(case.backbone, "random", CLASSES, image_size=case.image_size)
    model = classifier.model
    if way == "blend":
        blend_everywhere(model)
    elif way == "StochNorm":
        convert(model, p=0.5)
    if way in ("fused BatchNorm", "StochNorm"):
        fuse(model)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return classifier


def batch(case: Case, device: str) -> tuple[Tensor, Tensor]:
    """Return images, uint8 (b, 3, s, s), channels_last, and their classes."""
    shape = (case.batch_size, 3, case.image_size, case.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    targets = torch.arange(case.batch_size, device=device) % len(CLASSES)
    return images.contiguous(memory_format=torch.channels_last), targets


def bare_step(case: Case, way: str, device: str, *, backend: str = "") -> Callable[[], None]:
    """Return a function that takes a training step in bfloat16 autocast; see the top of the file.

    Args:
        case: Network and batch.
        way: As for `network`.
        device: `cuda` or `cpu`.
        backend: Backend of `torch.compile`; empty: nothing is compiled.
    """
    classifier = network(case, way, device)
    images, targets = batch(case, device)
    optimizer = torch.optim.SGD(
        classifier.parameter_groups(1e-4),
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        fused=device == "cuda" or None,
    )
    model: nn.Module = classifier.model.train()
    run = torch.compile(model, fullgraph=True, dynamic=False, backend=backend) if backend else model

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        inputs = classifier.preprocessing.normalize(images)
        with torch.autocast(device, torch.bfloat16):
            loss = F.cross_entropy(run(inputs), targets)
        loss.backward()
        optimizer.step()

    return step


def bare_forward(classifier: Classifier, images: Tensor, device: str) -> Callable[[], Tensor]:
    """Return a function that computes logits of images, uint8 (b, 3, s, s), in bfloat16 autocast."""
    model = classifier.model.eval()

    @torch.no_grad()
    def forward() -> Tensor:
        inputs = classifier.preprocessing.normalize(images)
        with torch.autocast(device, torch.bfloat16):
            logits: Tensor = model(inputs)
        return logits

    return forward
