"""The interface of a regularizer: a term of the loss that gets one training step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Regularizer", "Step", "trained_groups", "trained_terms"]


class Step(NamedTuple):
    """The parts of a training step that a regularizer gets."""

    inputs: Tensor
    """(b, 3, h, w): the normalized images, the input of the model."""
    targets: Tensor
    """(b,) class indices, or (b, num_classes) in {0, 1} with several labels per image."""
    logits: Tensor
    """(b, num_classes), with gradient."""
    features: Tensor
    """(b, d): the input of the head, with gradient."""
    share: float = 1.0
    """Fraction of the batch that these images are; below 1 if the batch is computed in parts."""
    again: bool = False
    """True in a further pass on the same images, as SAM makes one: what a regularizer gathers is gathered already."""


class Regularizer(nn.Module, ABC):
    """A penalty that is added to the loss of any training loop.

    The model is not a child: it keeps its parameters, and `.to()` and `state_dict()` of a regularizer concern only the
    regularizer's own anchors.

    One that has parameters of its own, such as a further head, is trained with the model: its `parameters()` that
    require a gradient belong to the optimizer, and its state dict to a checkpoint.

    Attributes:
        waits: What makes each step wait for the device, so that no CUDA graph can hold it; empty if nothing does.
    """

    waits: ClassVar[str] = ""

    @abstractmethod
    def forward(self, step: Step) -> Tensor:
        """Return the penalty of a step, including its strength: a float32 scalar with gradient.

        For part of a batch, return the penalty of a full batch made of such parts; the caller weighs it by its share.
        """

    def stepped(self) -> None:
        """Do what follows a step of the optimizer; a training calls it there. What a regularizer keeps changes here."""

    def forget(self) -> None:
        """Release what the model's last forward pass left here; a training calls it after it used the model otherwise.

        The tensors need memory, and compiled code distinguishes whether there are any.
        """

    def facts(self) -> dict[str, Any]:
        """Return what the regularizer chose by itself, for the result of a run: as JSON has it."""
        return {}


def trained_terms(regularizers: Mapping[str, Regularizer]) -> dict[str, nn.Module]:
    """Return the regularizers that are trained, as one module `terms`, for a checkpoint; empty if there are none."""
    trained = {name: term for name, term in regularizers.items() if any(p.requires_grad for p in term.parameters())}
    return {"terms": nn.ModuleDict(trained)} if trained else {}


def trained_groups(regularizers: Mapping[str, Regularizer], lr: float) -> list[dict[str, Any]]:
    """Return the parameters of the trained regularizers as a group of the optimizer; empty if there are none."""
    parameters = [p for term in regularizers.values() for p in term.parameters() if p.requires_grad]
    return [{"params": parameters, "lr": lr}] if parameters else []


def as_modules(head: nn.Module | Iterable[nn.Module]) -> tuple[nn.Module, ...]:
    """Return the new layers of a network as a tuple; most networks have one."""
    modules = (head,) if isinstance(head, nn.Module) else tuple(head)
    for module in modules:
        if not isinstance(module, nn.Module):
            raise TypeError(f"head must be modules, such as [model.fc], got {module!r}")
    return modules


def wide(tensor: Tensor) -> Tensor:
    """Return a tensor in at least float32, so that sums of bfloat16 values are exact enough."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
