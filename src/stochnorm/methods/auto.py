"""The automatic choice: probe, warm-started candidates, and weights between them, within a budget of time."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stochnorm.methods.method import Method

__all__ = ["Auto", "AutoConfig", "seconds_of"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class AutoConfig:
    """Settings of the method auto."""

    budget: str = "8m"
    """Method auto: time for all that is tried, such as 90s, 10m or 1h."""
    refit: bool = True
    """Method auto: train what was chosen once more, on training and validation images together."""


class Auto(Method):
    """Try a linear probe and several ways to fine-tune, and keep the best on validation images."""

    name = "auto"
    title = "automatic choice"
    acts_on = "training"
    alone = True
    what = "probe, frozen, StochNorm and plain fine-tuning within a budget of time; the choice is made on validation"
    source = "Wortsman et al., CVPR 2022"
    flat = AutoConfig

    def describe(self, settings: AutoConfig) -> str:
        """Return the budget."""
        return f"within {settings.budget}"

    def check(self, settings: AutoConfig, images: int) -> None:
        """Raise ValueError unless the budget is a time."""
        seconds_of(settings.budget)


def seconds_of(budget: str) -> float:
    """Return a time in seconds.

    Raises:
        ValueError: It is not a positive number with a unit.

    Example:
        >>> seconds_of("90s"), seconds_of("10m"), seconds_of("1.5h")
        (90.0, 600.0, 5400.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget.strip().lower())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if seconds <= 0:
        raise ValueError(f"budget must be a time such as 90s, 10m or 1h, got {budget!r}; give --budget 10m")
    return seconds
