"""Linear probe: a logistic regression on the frozen backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stochnorm.methods.method import Method

__all__ = ["Probe", "ProbeConfig"]


@dataclass(frozen=True)
class ProbeConfig:
    """Method probe, and every method with --head probe: a logistic regression on frozen features."""

    views: Literal["center", "flip", "crops"] = "flip"
    """Views of each image to fit on: center crop; its mirror image too; or ten crops."""


# fmt: off
_OF_TRAINING = frozenset((
    "steps", "lr", "head_lr_factor", "momentum", "weight_decay", "decay_norm_bias", "decay_at", "accumulate",
    "auxiliary", "statistics", "norm_momentum", "eval_every", "select", "head", "optimizer", "schedule", "warmup",
    "layer_decay", "clip_grad", "ema", "drop_path", "label_smoothing", "patience", "augment", "crop_scale", "mixup",
    "cutmix",
))
# fmt: on


class Probe(Method):
    """Fit the head alone, in closed form: the backbone stays as it was pre-trained."""

    name = "probe"
    title = "linear probe"
    acts_on = "training"
    alone = True
    trains = False
    what = "logistic regression on the features of the frozen backbone, in one pass over the images"
    source = "common practice"
    group = ProbeConfig
    without = _OF_TRAINING

    def describe(self, settings: ProbeConfig) -> str:
        """Return the views."""
        return f"views={settings.views}"
