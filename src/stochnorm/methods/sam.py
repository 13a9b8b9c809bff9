"""Sharpness-Aware Minimization (Foret et al., ICLR 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from stochnorm.methods.method import Method
from stochnorm.methods.ranges import Range, Search

__all__ = ["SAM", "SAMConfig"]


@dataclass(frozen=True)
class SAMConfig:
    """Method sam: the gradient at the sharpest point nearby."""

    rho: Annotated[float, Range(0), Search(0.01, 0.5)] = 0.05
    """Distance to the sharpest point; 0 for a plain step."""


class SAM(Method):
    """Take the gradient where the loss is largest nearby, so that the minimum found is a flat one."""

    name = "sam"
    title = "SAM"
    acts_on = "gradient"
    what = "take the gradient at the sharpest point nearby, with masks and statistics held; two passes a step"
    source = "Foret et al., ICLR 2021"
    group = SAMConfig
    needs = (("compile", False, "compiled code keeps no masks to repeat in the second pass"),)

    def describe(self, settings: SAMConfig) -> str:
        """Return the distance."""
        return f"rho={settings.rho:g}"

    def climb(self, settings: SAMConfig) -> float:
        """Return the distance."""
        return settings.rho
