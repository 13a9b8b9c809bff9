"""A network with its head, classes and preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from torch import Tensor, nn

from stochnorm.data.images.pictures import Picture, is_picture, square
from stochnorm.data.images.preprocessing import Preprocessing, stack
from stochnorm.models.heads import names_of
from stochnorm.models.parameters import parameter_groups

__all__ = ["Classifier"]


@dataclass(eq=False)
class Classifier(nn.Module):
    """A network with its head, classes and preprocessing.

    It is a module, which is called as its network is: `classifier(classifier.preprocess(["new.jpg"]))` gives logits.
    """

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

    def __new__(cls, *_: Any, **__: Any) -> Classifier:
        """Make the module, before the fields of the dataclass become its attributes."""
        module = super().__new__(cls)
        nn.Module.__init__(module)
        return module

    def forward(self, images: Tensor) -> Any:
        """Return what the network gives for its input: logits (b, num_classes), in training also auxiliary ones.

        Args:
            images: Normalized images (b, 3, s, s), such as `preprocess` returns.
        """
        return self.model(images)

    def preprocess(self, images: Picture | Sequence[Picture]) -> Tensor:
        """Return the network's input for pictures, as in evaluation: float32 (b, 3, s, s), on the network's device.

        Args:
            images: A file, a PIL image, an array (h, w, 3) uint8 or a tensor (3, h, w) uint8, or several of them.

        Raises:
            ValueError: A file cannot be read as an image, or an array has another shape or dtype.
        """
        several = [cast("Picture", images)] if is_picture(images) else cast("Sequence[Picture]", images)
        batch = stack([square(image, self.preprocessing) for image in several])
        device = next(iter(self.model.parameters()), batch).device
        return self.preprocessing.normalize(self.preprocessing.center_crop(batch).to(device))

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
