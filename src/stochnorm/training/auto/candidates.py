"""What `auto` tries."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from stochnorm.runs.config import FinetuneConfig

__all__ = ["Candidate", "Kind", "candidates", "cooler"]

_RECIPE = {"schedule": "cosine", "warmup": 0.1}
_HELD = {"method": "stochnorm", "p": 0.1, "norm_momentum": 0.0}
# In the order of their promise: where time is short, the last ones are left out. The first two differ in rate and
# crops, since images differ most in what they bear of these.
_TRIED: tuple[dict[str, Any], ...] = (
    {"method": "frozen", "head": "random", "lr": 0.001, "augment": "paper"},
    {"method": "frozen", "head": "random", "lr": 0.003, "augment": "gentle"},
    {"method": "frozen+sam", "head": "random", "lr": 0.001, "augment": "paper"},
    {"method": "frozen+sam", "head": "probe", "lr": 0.001, "augment": "gentle"},
    _HELD | {"head": "random", "lr": 0.003, "augment": "gentle"},
    {"method": "vanilla", "head": "random", "lr": 0.003, "augment": "gentle"},
)


class Kind(IntEnum):
    """Kinds of candidates, from the simplest to the least simple."""

    probe = 0
    between = 1
    frozen = 2
    stochnorm = 3
    vanilla = 4


@dataclass(frozen=True)
class Candidate:
    """One thing to try."""

    kind: Kind
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings that differ from those of the run, except the steps."""

    @property
    def name(self) -> str:
        """Name of its directory."""
        if self.kind is Kind.probe:
            return "probe"
        return f"{self.settings['method']}-{self.settings['head']}-{self.settings['lr']:g}"

    @property
    def title(self) -> str:
        """Its name for people.

        Example:
            >>> Candidate(Kind.frozen, {"method": "frozen+sam", "head": "probe", "lr": 0.003}).title
            'frozen+sam, lr 0.003, from the probe'
        """
        if self.kind is Kind.probe:
            return "linear probe"
        start = "from the probe" if self.warm else "new head"
        return f"{self.settings['method']}, lr {self.settings['lr']:g}, {start}"

    @property
    def cost(self) -> int:
        """Forward and backward passes of a step."""
        return 2 if "sam" in self.settings["method"].split("+") else 1

    @property
    def warm(self) -> bool:
        """True if it starts from the probe's head."""
        return self.settings.get("head") == "probe"


def candidates(config: FinetuneConfig, *, warm: bool = True, normalized: bool = True) -> list[Candidate]:
    """Return what to fine-tune, the most promising first.

    A setting that the user changed holds for all: a learning rate is the only one that is tried, a head too. With
    `compile` there is no SAM. Without BatchNorm there is nothing to freeze, and plain fine-tuning takes its place.

    Args:
        config: The settings of the run.
        warm: False for a network that cannot start from a probe.
        normalized: Whether the network has BatchNorm.

    Example:
        >>> [candidate.name for candidate in candidates(FinetuneConfig("photos/", lr=0.01, head="probe"))]
        ['frozen-probe-0.01', 'frozen+sam-probe-0.01', 'stochnorm-probe-0.01', 'vanilla-probe-0.01']
    """
    given = {name: getattr(config, name) for name in config.changed_fields() if name != "method"}
    found: dict[str, Candidate] = {}
    for tried in _TRIED:
        settings: dict[str, Any] = (
            _RECIPE | tried | {name: value for name, value in given.items() if name in _RECIPE | tried}
        )
        name, *sam = settings["method"].split("+")
        if name == "frozen" and not normalized:
            name = "vanilla"
        if name == "stochnorm" and not normalized:
            continue
        settings["method"] = name if config.compile or not sam else "sam" if name == "vanilla" else f"{name}+sam"
        settings |= {} if warm else {"head": "random"}
        candidate = Candidate(Kind[name], settings)
        found.setdefault(candidate.name, candidate)
    return list(found.values())


def cooler(candidate: Candidate) -> Candidate:
    """Return the candidate at a tenth of its learning rate, for one that collapsed."""
    return replace(candidate, settings=candidate.settings | {"lr": float(f"{candidate.settings['lr'] / 10:g}")})
