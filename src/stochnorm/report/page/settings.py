"""Settings and environments of runs, for people: what runs share, and what differs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from stochnorm.methods.catalogue import concerns
from stochnorm.runs.config import FinetuneConfig, flat
from stochnorm.runs.records import Record
from stochnorm.text import DASH

__all__ = ["Setting", "compare_settings", "environments", "settings_of", "show"]

_AXES = {"data", "backbone", "rate", "data_seed", "seed"}  # of a grid; shown elsewhere


class Setting(NamedTuple):
    """One setting of a run."""

    name: str
    value: str
    changed: bool
    """True if it differs from the default."""


def show(value: Any) -> str:
    """Write a setting for people.

    Example:
        >>> show(None), show(("layer1", "layer2")), show(""), show(0.5), show(0.00094397451)
        ('none', 'layer1, layer2', '-', '0.5', '0.000944')
    """
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value is None else str(value) or "-"


def settings_of(record: Record) -> list[Setting]:
    """Return the settings of one run."""
    default = json.loads(json.dumps(flat(asdict(FinetuneConfig("")))))
    return [Setting(name, show(value), value != default.get(name)) for name, value in flat(record.settings).items()]


def compare_settings(
    records: Sequence[Record], variants: Sequence[str]
) -> tuple[list[tuple[str, str]], dict[str, list[str]]]:
    """Return the settings that all runs share, and by name those that differ, with the value of each variant."""
    by_variant: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        by_variant[record.variant].append({k: v for k, v in flat(record.settings).items() if k not in _AXES})
    own = {variant: _common(settings) for variant, settings in by_variant.items()}
    shared = _common(own.values())
    names = list(dict.fromkeys(name for settings in own.values() for name in settings if name not in shared))
    differing = {name: [_value_of(own[v], name) for v in variants] for name in names}
    if differing.get("method") == list(variants):  # their names already say it
        del differing["method"]
    return [(name, show(value)) for name, value in shared.items()], differing


def environments(records: Iterable[Record]) -> list[tuple[int, dict[str, str]]]:
    """Return the different environments and the number of their runs, the most frequent first."""
    counts: dict[str, int] = defaultdict(int)
    for record in records:
        counts[json.dumps(record.environment, sort_keys=True)] += 1
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return [(n, {k: show(v) for k, v in json.loads(text).items()}) for text, n in ordered]


def _common(settings: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] | None = None
    for one in settings:
        found = dict(one) if found is None else {k: v for k, v in found.items() if k in one and one[k] == v}
    return found or {}


def _value_of(settings: Mapping[str, Any], name: str) -> str:
    if "method" in settings and not concerns(name, settings["method"]):
        return DASH
    return show(settings[name]) if name in settings else "varies"
