"""Co-Tuning (You et al., NeurIPS 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from stochnorm.methods.method import Method, Setup
from stochnorm.methods.ranges import Range, Search

if TYPE_CHECKING:
    from torch import Tensor, nn

    from stochnorm.regularizers import Regularizer

__all__ = ["CoTuning", "CoTuningConfig"]

_BATCHES = (32, 31, 29)  # images at once, to learn the relationship from; a last batch of one would be left out


@dataclass(frozen=True)
class CoTuningConfig:
    """Method cotuning: loss of the pre-training's classifier on what the new classes mean in its classes."""

    strength: Annotated[float, Range(0), Search(0.1, 10.0)] = 1.0
    """Weight of the loss (the paper's lambda)."""
    relationship: Literal["direct", "reverse"] = "direct"
    """How to learn what a class means in the source classes: mean answers, or a calibrated logistic regression."""


class CoTuning(Method):
    """Train the classifier of the pre-training too, on the relationship of its classes with the new ones."""

    name = "cotuning"
    title = "Co-Tuning"
    acts_on = "loss"
    what = "train the pre-training's classifier too, on what the new classes mean in its classes"
    source = "You et al., NeurIPS 2020"
    group = CoTuningConfig

    def describe(self, settings: CoTuningConfig) -> str:
        """Return strength and kind of relationship."""
        return f"strength={settings.strength:g} {settings.relationship} relationship"

    def apply(self, setup: Setup, settings: CoTuningConfig) -> Regularizer:
        """Return the loss; the relationship is learned from the training images, by the model as it is."""
        from stochnorm import regularizers
        from stochnorm.regularizers.cotuning import direct_relationship, reverse_relationship

        classifier = setup.classifier
        if classifier.multi_label:
            raise ValueError("cotuning needs one label per image, and these images have several; choose lwf instead")
        head, network = setup.source()
        learn = direct_relationship if settings.relationship == "direct" else reverse_relationship
        probabilities, labels = _answers(setup, network)
        relationship = learn(probabilities, labels, len(classifier.classes))
        return regularizers.CoTuning(head, relationship, strength=settings.strength)


def _answers(setup: Setup, network: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the source probabilities of all training images, and their labels, on the CPU."""
    import torch

    batch_size = next(size for size in _BATCHES if setup.train_images % size != 1)
    answers, labels = [], []
    with torch.no_grad():
        for images, targets in setup.crops(range(setup.train_images), batch_size):
            answers.append(network(images).float().softmax(1).cpu())
            labels.append(targets.cpu())
    return torch.cat(answers), torch.cat(labels)
