"""L2-SP (Li et al., ICML 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from stochnorm.methods.method import Method, Setup
from stochnorm.methods.ranges import Range, Search

if TYPE_CHECKING:
    from stochnorm.regularizers import Regularizer

__all__ = ["L2SP", "L2SPConfig"]


@dataclass(frozen=True)
class L2SPConfig:
    """Method l2sp: penalty on the distance of the weights to the pre-trained ones."""

    alpha: Annotated[float, Range(0), Search(1e-3, 1.0)] = 0.1
    """Strength of the penalty on the backbone."""
    beta: Annotated[float, Range(0)] = 0.01
    """Strength of the weight decay of the new head."""
    scope: Literal["weights", "all"] = "weights"
    """Convolution and linear weights, or biases and normalization too."""


class L2SP(Method):
    """Penalize the distance to the pre-trained weights."""

    name = "l2sp"
    title = "L2-SP"
    acts_on = "loss"
    what = "hold the weights near the pre-trained ones"
    source = "Li et al., ICML 2018"
    group = L2SPConfig
    replaces_weight_decay = True

    def describe(self, settings: L2SPConfig) -> str:
        """Return the strengths."""
        return f"alpha={settings.alpha:g} beta={settings.beta:g}"

    def apply(self, setup: Setup, settings: L2SPConfig) -> Regularizer:
        """Return the penalty, anchored at the weights as they are."""
        from stochnorm import regularizers

        model, head = setup.classifier.model, setup.classifier.new_layers
        return regularizers.L2SP(model, head, alpha=settings.alpha, beta=settings.beta, scope=settings.scope)
