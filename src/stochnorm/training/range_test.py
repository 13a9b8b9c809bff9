from __future__ import annotations

from dataclasses import dataclass


def rates_between(lowest, highest, steps):
    return [lowest * (highest / lowest) ** (n / (steps - 1)) for n in range(steps)]


@dataclass(frozen=True)
class RangeTest:
    method: str
    rates: tuple
    losses: tuple
