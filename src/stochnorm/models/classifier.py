"""A network with its head, classes and preprocessing."""

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
    """A network with its head, classes and preprocessing."""

    model: nn.Module
    """Network from images (b, 3, s, s) to logits (b, num_classes). In training mode it also returns the logits of its
    auxiliary heads, if it has any; `outputs` separates them."""
    head: list[nn.Module]
    """The new layers; one, except for backbones with several classifiers."""
    backbone: str
    """Name of the backbone."""
    weights: str
    """bundled, pretrained, random, or a file."""
    classes: tuple[str, ...]
    """Class names in the order of the logits."""
    preprocessing: Preprocessing
    """Size and normalization of its input."""
    auxiliary_heads: list[nn.Module] = field(default_factory=list)
    """The new layers of auxiliary classifiers (Inception-v3, GoogLeNet), which run only in training."""
    auxiliary_weight: float = 0.0
    """Weight of the loss of each auxiliary classifier, relative to the main one."""
    multi_label: bool = False
    """True if an image has any number of classes instead of one."""

    @property
    def new_layers(self) -> list[nn.Module]:
        """The layers without pre-trained weights: heads and auxiliary heads."""
        return [*self.head, *self.auxiliary_heads]

    @property
    def head_name(self) -> str:
        """Name in `model.named_modules()` of the module whose inputs are the features.

        The inputs are maps if the head is a convolution; [stochnorm.models.pooled][] averages them.
        """
        module = self.head[0]
        while isinstance(module, nn.ModuleList):  # not called itself; its last member gets the deepest features
            module = module[-1]
        return names_of(self.model, [module])[0]

    def outputs(self, raw: Tensor | tuple[Tensor | None, ...]) -> tuple[Tensor, list[Tensor]]:
        """Separate the model's output into logits and auxiliary logits, each (b, num_classes).

        Without auxiliary heads, and in evaluation, the list is empty, so that one line is enough for all cases:
        `loss = criterion(logits, y) + weight * sum(criterion(each, y) for each in auxiliary)`.
        """
        if isinstance(raw, Tensor):
            return raw, []
        logits, *auxiliary = (output for output in raw if output is not None)
        return logits, auxiliary

    def parameter_groups(self, lr: float, head_lr_factor: float = 10.0, **options: Any) -> list[dict[str, Any]]:
        """Make parameter groups with the new layers as the head; see [stochnorm.models.parameter_groups][]."""
        return parameter_groups(self.model, self.new_layers, lr, head_lr_factor, **options)
