"""Bi-Tuning (Zhong et al., 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from stochnorm.methods.method import Method, Setup
from stochnorm.methods.ranges import Range, Search

if TYPE_CHECKING:
    from stochnorm.regularizers import Regularizer

__all__ = ["BiTuning", "BiTuningConfig"]

_MIXED = "a mixed image has no class whose keys it could be told by"


@dataclass(frozen=True)
class BiTuningConfig:
    """Method bituning: contrastive losses of the head and of a projection."""

    strength: Annotated[float, Range(0), Search(0.01, 3.0)] = 1.0
    """Weight of the two losses."""
    temperature: Annotated[float, Range(0, above=True)] = 0.07
    """Temperature of the similarities."""
    momentum: Annotated[float, Range(0, 1)] = 0.999
    """Share of itself that the slow network, which makes the keys, keeps at each step."""
    keys: Annotated[int, Range(1, 10_000)] = 40
    """Keys of each class that are kept."""
    dimension: Annotated[int, Range(1, 10_000)] = 128
    """Dimension of the projection."""


class BiTuning(Method):
    """Tell classes, and single images, from keys of earlier images."""

    name = "bituning"
    title = "Bi-Tuning"
    acts_on = "loss"
    what = "draw features of a class together and apart from others, against keys of earlier images"
    source = "Zhong et al., 2020"
    group = BiTuningConfig
    needs = (("mixup", 0.0, _MIXED), ("cutmix", 0.0, _MIXED))

    def describe(self, settings: BiTuningConfig) -> str:
        """Return strength and temperature."""
        return f"strength={settings.strength:g} temperature={settings.temperature:g}"

    def apply(self, setup: Setup, settings: BiTuningConfig) -> Regularizer:
        """Return the losses; the slow network begins as a copy of the model as it is."""
        import torch
        from torch import nn

        from stochnorm import regularizers
        from stochnorm.data.splits import derive_seed

        classifier = setup.classifier
        if classifier.multi_label:
            raise ValueError("bituning needs one label per image, and these images have several; choose lwf instead")
        head = classifier.head[0]
        weight = getattr(head, "weight", None)
        features = 1 if weight is None else weight[0].numel()
        with torch.random.fork_rng(devices=[]):  # other methods draw as without it
            torch.manual_seed(derive_seed("bituning", setup.seed))
            projection = nn.Linear(features, settings.dimension).to(setup.device)
        return regularizers.BiTuning(
            classifier.model,
            head,
            classifier.head_name,
            projection,
            strength=settings.strength,
            temperature=settings.temperature,
            momentum=settings.momentum,
            keys=settings.keys,
        )
