"""What a regularizer is: a term of the loss that sees one training step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Regularizer", "Step"]


class Step(NamedTuple):
    """One training step, all that a regularizer sees of it."""

    inputs: Tensor
    """(b, 3, h, w): the normalized images, as the model got them."""
    targets: Tensor
    """(b,) class indices, or (b, num_classes) in {0, 1} with several labels an image."""
    logits: Tensor
    """(b, num_classes), with gradient."""
    features: Tensor
    """(b, d): what the head took in, with gradient."""
    share: float = 1.0
    """Of the batch that these images are, where it is computed part by part."""


class Regularizer(nn.Module, ABC):
    """A penalty that is added to the loss of any training loop.

    The model is not a child: its parameters stay its own, and ``.to()`` and ``state_dict()`` here reach the
    regularizer's anchors alone.
    """

    @abstractmethod
    def forward(self, step: Step) -> Tensor:
        """The penalty of a step, its strength included: a scalar of float32 with gradient.

        Of a part of a batch, what the whole would have if all of it were alike: parts count by their share.
        """


def as_modules(head: nn.Module | Iterable[nn.Module]) -> tuple[nn.Module, ...]:
    """The new layers of a network, of which most have one."""
    modules = (head,) if isinstance(head, nn.Module) else tuple(head)
    for module in modules:
        if not isinstance(module, nn.Module):
            raise TypeError(f"head is the new layers themselves, such as [model.fc], got {module!r}")
    return modules


def wide(tensor: Tensor) -> Tensor:
    """At least float32, so that sums of bfloat16 are exact enough."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
