"""Learning without Forgetting (Li & Hoiem, ECCV 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from stochnorm.methods.method import Method, Setup
from stochnorm.methods.ranges import Range, Search

if TYPE_CHECKING:
    from stochnorm.regularizers import Regularizer

__all__ = ["LwF", "LwFConfig"]


@dataclass(frozen=True)
class LwFConfig:
    """Method lwf: distillation of the pre-trained network's answers in its own classes."""

    alpha: Annotated[float, Range(0), Search(0.01, 10.0)] = 1.0
    """Strength of the distillation."""
    temperature: Annotated[float, Range(0, above=True)] = 2.0
    """Temperature of the answers."""


class LwF(Method):
    """Keep the answers of the classifier that the network was pre-trained with."""

    name = "lwf"
    title = "LwF"
    acts_on = "loss"
    what = "hold the answers in the pre-training's classes near the pre-trained network's"
    source = "Li & Hoiem, ECCV 2016"
    group = LwFConfig

    def describe(self, settings: LwFConfig) -> str:
        """Return strength and temperature."""
        return f"alpha={settings.alpha:g} temperature={settings.temperature:g}"

    def apply(self, setup: Setup, settings: LwFConfig) -> Regularizer:
        """Return the penalty; its reference is a copy of the model as it is, with the classifier of its weights."""
        from stochnorm import regularizers

        head, reference = setup.source()
        return regularizers.LwF(head, reference, alpha=settings.alpha, temperature=settings.temperature)
