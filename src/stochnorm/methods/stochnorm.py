"""Stochastic Normalization (Kou et al., NeurIPS 2020)."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import Annotated, Literal

from stochnorm.methods.method import Method, Setup
from stochnorm.methods.ranges import Range, Search

__all__ = ["StochNorm", "StochNormConfig"]


@dataclass(frozen=True)
class StochNormConfig:
    """Settings of the method stochnorm."""

    p: Annotated[float, Range(0, 1), Search(0.1, 0.9, log=False, step=0.1)] = 0.5
    """Method stochnorm: probability that a channel is normalized by batch statistics; 1 is BatchNorm."""
    p_end: Annotated[float, Range(0, 1)] = 0.5
    """Method stochnorm: p at the last step, with --p-schedule linear or cosine."""
    p_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Method stochnorm: course of p from --p to --p-end."""
    sync_norm: bool = False
    """Method stochnorm: batch statistics over all processes of torchrun, and one mask for all;
    no effect in one process."""


class StochNorm(Method):
    """Replace BatchNorm by StochNorm, Algorithm 1 of the paper."""

    name = "stochnorm"
    title = "Stochastic Normalization"
    acts_on = "normalization"
    what = "normalize each channel by batch or moving statistics, drawn at each step"
    source = "Kou et al., NeurIPS 2020"
    flat = StochNormConfig

    def describe(self, settings: StochNormConfig) -> str:
        """Return p, and where a schedule takes it."""
        schedule = "" if settings.p_schedule == "constant" else f" to {settings.p_end:g} ({settings.p_schedule})"
        return f"p={settings.p:g}{schedule}{', synchronized' if settings.sync_norm else ''}"

    def apply(self, setup: Setup, settings: StochNormConfig) -> None:
        """Convert the layers."""
        from stochnorm.nn import convert

        if settings.sync_norm and int(os.environ.get("WORLD_SIZE", 1)) == 1:
            warnings.warn("sync_norm changes nothing in a single process; torchrun starts several", stacklevel=2)
        convert(setup.classifier.model, p=settings.p, where=setup.where, sync=settings.sync_norm)
