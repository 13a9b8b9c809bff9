"""Frozen normalization: common practice for small batches and small data sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stochnorm.methods.method import Method, Setup

__all__ = ["Frozen", "FrozenConfig"]


@dataclass(frozen=True)
class FrozenConfig:
    """Settings of the method frozen."""

    freeze: Literal["statistics", "affine", "both"] = "statistics"
    """Method frozen: keep the inherited statistics, scale and shift (affine), or both."""


class Frozen(Method):
    """Keep what the normalization layers inherited."""

    name = "frozen"
    title = "frozen normalization"
    acts_on = "normalization"
    what = "keep the inherited statistics, scale and shift, or both"
    source = "common practice"
    flat = FrozenConfig

    def describe(self, settings: FrozenConfig) -> str:
        """Return what is frozen."""
        return settings.freeze

    def apply(self, setup: Setup, settings: FrozenConfig) -> None:
        """Freeze the layers."""
        from stochnorm.nn import freeze

        freeze(setup.classifier.model, what=settings.freeze, where=setup.where)
