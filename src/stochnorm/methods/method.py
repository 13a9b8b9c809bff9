"""A method: its settings, what is searched of them, and what it does to a model before training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from stochnorm.methods.ranges import Search, check_ranges, noted

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from stochnorm.data.images.center import CenterCrops
    from stochnorm.models.classifier import Classifier
    from stochnorm.nn.select import Where
    from stochnorm.regularizers import Regularizer

__all__ = ["Method", "Setup", "percent", "shown"]


@dataclass(frozen=True)
class Setup:
    """The material of a method: a pre-trained model on its device, before there is an optimizer, and images."""

    classifier: Classifier
    """The model with its new head, to be changed in place."""
    device: torch.device
    where: Where | None
    """Which normalization layers to change; None for all."""
    seed: int
    crops: Callable[[Iterable[int], int], CenterCrops]
    """`crops(order, batch_size)`: training images as the network sees them in evaluation, with targets."""
    train_images: int
    source: Callable[[], tuple[nn.Module, nn.Module]]
    """`source()`: the classifier that came with the weights, and a frozen copy of the network that ends in it."""
    progress: Callable[[float], None] | None = None
    """Told the fraction of a long measurement that is done."""


class Method:
    """One way to keep fine-tuning from over-fitting, in one file.

    A subclass sets the class attributes and overrides what it needs. Nothing here imports torch: `apply` does it
    inside, so that `--help` and wrong settings do not wait for it.
    """

    name: ClassVar[str]
    """The method on the command line."""
    title: ClassVar[str]
    acts_on: ClassVar[Literal["nothing", "normalization", "loss", "gradient", "weights", "training"]]
    """What it changes: normalization layers, the loss, the gradient of a step, the weights after training, or the whole
    training."""
    alone: ClassVar[bool] = False
    """True if it cannot be part of a sum."""
    trains: ClassVar[bool] = True
    """False if no step of training is made: the head is the linear probe."""
    without: ClassVar[frozenset[str]] = frozenset()
    """Settings of a run that have no effect with the method."""
    needs: ClassVar[tuple[tuple[str, Any, str], ...]] = ()
    """Settings of a run that must have a value: name, value, and why."""
    mixes_probe: ClassVar[bool] = False
    """True if `keep` starts at the linear probe, also where the training starts at a random head."""
    what: ClassVar[str]
    """One line: what the method does."""
    source: ClassVar[str] = ""
    """The paper."""
    group: ClassVar[type | None] = None
    """Dataclass of the settings `NAME.x`, in the field NAME of the catalogue's `MethodSettings`."""
    flat: ClassVar[type | None] = None
    """Dataclass of settings without a prefix, a base of the catalogue's `MethodSettings`."""
    replaces_weight_decay: ClassVar[bool] = False
    """True if the method's penalty replaces weight decay."""

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of the settings that the method uses, such as `l2sp.alpha`."""
        grouped = [f"{self.name}.{field.name}" for field in fields(self.group)] if self.group else []
        flat = [field.name for field in fields(self.flat)] if self.flat else []
        return (*grouped, *flat, *["norm_layers"] * (self.acts_on == "normalization"))

    @property
    def options(self) -> tuple[str, ...]:
        """The settings as options of the command line."""
        return tuple(f"--{name.replace('_', '-')}" for name in self.settings)

    @property
    def searched(self) -> dict[str, Search]:
        """The settings that `stochnorm tune` searches."""
        grouped = {f"{self.name}.{name}": found for name, found in noted(self.group, Search)} if self.group else {}
        return grouped | (dict(noted(self.flat, Search)) if self.flat else {})

    def settings_of(self, config: Any) -> Any:
        """Return the method's own settings of a run: its group, or the run's settings, which hold the flat ones."""
        return getattr(config, self.name) if self.group else config

    def check_ranges(self, config: Any) -> None:
        """Raise ValueError where a setting of the group is out of its range."""
        if self.group:
            check_ranges(self.settings_of(config), f"{self.name}.")

    def check(self, settings: Any, images: int) -> None:
        """Raise ValueError where the settings cannot work with so many images in a forward pass."""

    def describe(self, settings: Any) -> str:
        """Return the settings in a few words, such as `p=0.5`."""
        return ""

    def climb(self, settings: Any) -> float:
        """Return how far from the weights, along the gradient, each step takes its gradient; 0 for at the weights."""
        return 0.0

    def runs(self, settings: Any) -> int:
        """Return how many trainings, with a random seed each, lead to the weights that are kept."""
        return 1

    def keep(
        self,
        start: Mapping[str, Tensor],
        ends: Sequence[Mapping[str, Tensor]],
        judge: Callable[[Mapping[str, Tensor]], tuple[float, float]],
        settings: Any,
    ) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
        """Return the weights to keep after training, and facts about them for the result, as JSON has them.

        Args:
            start: The weights that the trainings started at; where the method mixes the probe, with the probe's head.
            ends: The weights that each training kept.
            judge: Returns the validation score, in percent, and the negative validation loss of weights.
            settings: The method's own settings.
        """
        return ends[0], {}

    def tell(self, facts: Mapping[str, Any]) -> str:
        """Return the facts about the weights that are kept, in a sentence."""
        return ""

    def apply(self, setup: Setup, settings: Any) -> Regularizer | None:
        """Change the model's normalization layers in place, or return the term to add to the loss.

        Terms of the loss are made first, while the model is as it was pre-trained.

        Raises:
            ValueError: The model does not allow it.
        """
        return None


def percent(score: float) -> float | None:
    """Return a validation score as JSON has it: None where no finding has both positive and negative images."""
    return score if math.isfinite(score) else None


def shown(score: float | None) -> str:
    """Return a validation score for people.

    Example:
        >>> shown(71.25), shown(None)
        ('71.2 %', '-')
    """
    return "-" if score is None else f"{score:.1f} %"


@dataclass(frozen=True)
class NormLayers:
    """The setting that all methods of the normalization layers share."""

    norm_layers: str = ""
    """Methods that change normalization: regular expression for the layers' names ('layer[34]'); empty for all."""
