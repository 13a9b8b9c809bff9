"""A network and what belongs to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from stochnorm.data.images.preprocessing import Preprocessing
from stochnorm.models.heads import names_of
from stochnorm.models.parameters import parameter_groups

__all__ = ["Classifier"]


@dataclass
class Classifier:
    """A network and what belongs to it."""

    model: nn.Module
    """Images (b, 3, s, s) to logits (b, num_classes); in training mode with those of auxiliary heads, if it has
    some: :meth:`outputs` takes them apart."""
    head: list[nn.Module]
    """The new layers; one, but for backbones with two classifiers."""
    backbone: str
    weights: str
    """bundled, pretrained, random, or a file."""
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    auxiliary_heads: list[nn.Module] = field(default_factory=list)
    """The new layers of auxiliary classifiers (Inception-v3, GoogLeNet), which only training runs."""
    auxiliary_weight: float = 0.0
    """Of each auxiliary classifier's loss, beside 1 for the main one."""
    multi_label: bool = False
    """An image may have several classes, or none."""

    @property
    def new_layers(self) -> list[nn.Module]:
        """All layers without pre-trained weights: heads and auxiliary heads."""
        return [*self.head, *self.auxiliary_heads]

    @property
    def head_name(self) -> str:
        """The module whose input are the features, as in ``model.named_modules()``; for a tap.

        What it takes in may be a map, where the head is a convolution: :func:`stochnorm.models.pooled` averages it.
        """
        module = self.head[0]
        while isinstance(module, nn.ModuleList):  # is not called itself; its last member sees the deepest features
            module = module[-1]
        return names_of(self.model, [module])[0]

    def outputs(self, raw: Tensor | tuple[Tensor | None, ...]) -> tuple[Tensor, list[Tensor]]:
        """The model's output as logits and auxiliary logits, each (b, num_classes).

        Without auxiliary heads, and in evaluation, the list is empty, so that one line serves all:
        ``loss = criterion(logits, y) + weight * sum(criterion(each, y) for each in auxiliary)``.
        """
        if isinstance(raw, Tensor):
            return raw, []
        logits, *auxiliary = (output for output in raw if output is not None)
        return logits, auxiliary

    def parameter_groups(self, lr: float, head_lr_factor: float = 10.0, **options: Any) -> list[dict[str, Any]]:
        """:func:`stochnorm.models.parameter_groups` with the new layers as the head."""
        return parameter_groups(self.model, self.new_layers, lr, head_lr_factor, **options)
