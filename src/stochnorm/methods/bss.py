"""Batch Spectral Shrinkage (Chen et al., NeurIPS 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from stochnorm.methods.method import Method, Setup
from stochnorm.methods.ranges import Range, Search

if TYPE_CHECKING:
    from stochnorm.regularizers import Regularizer

__all__ = ["BSS", "BSSConfig"]


@dataclass(frozen=True)
class BSSConfig:
    """Method bss: penalty on the smallest singular values of a batch's features."""

    eta: Annotated[float, Range(0), Search(1e-5, 0.1)] = 0.001
    """Strength of the penalty."""
    k: Annotated[int, Range(1)] = 1
    """Number of singular values to shrink."""


class BSS(Method):
    """Penalize the smallest singular values of the features."""

    name = "bss"
    title = "Batch Spectral Shrinkage"
    acts_on = "loss"
    what = "shrink the smallest singular values of a batch's features"
    source = "Chen et al., NeurIPS 2019"
    group = BSSConfig

    def check(self, settings: BSSConfig, images: int) -> None:
        """Raise ValueError where k is more than the singular values of the features."""
        if settings.k > images:
            raise ValueError(
                f"bss.k must be at most {images}, the images of a forward pass (batch_size / accumulate), got "
                f"{settings.k}; give --bss.k {images} or less"
            )

    def describe(self, settings: BSSConfig) -> str:
        """Return strength and number."""
        return f"eta={settings.eta:g} k={settings.k}"

    def apply(self, setup: Setup, settings: BSSConfig) -> Regularizer:
        """Return the penalty."""
        from stochnorm import regularizers

        return regularizers.BSS(eta=settings.eta, k=settings.k)
