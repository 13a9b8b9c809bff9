"""Presets: named sets of settings. A new one has its entry here."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["PRESETS", "Preset", "preset_settings"]


class Preset(NamedTuple):
    """A named set of settings."""

    what: str
    """One line: what it is for."""
    settings: Mapping[str, Any]
    """Fields of [stochnorm.FinetuneConfig][] by name."""


PRESETS: dict[str, Preset] = {
    "auto": Preset("try several ways within --budget and keep the best on validation: the default", {"method": "auto"}),
    "paper": Preset("the paper's protocol: the defaults, with its method", {"method": "stochnorm"}),
    "gentle": Preset(
        "stay near the pre-trained network: start at the linear probe, held statistics, small steps, large crops",
        {
            "method": "frozen",
            "head": "probe",
            "optimizer": "sgd",
            "schedule": "cosine",
            "warmup": 0.05,
            "lr": 0.001,
            "augment": "gentle",
            "resize": "crop",
        },
    ),
    "strong": Preset(
        "train hard and long: AdamW, strong augmentation, averaged weights; give it many steps",
        {
            "method": "stochnorm",
            "optimizer": "adamw",
            "schedule": "cosine",
            "warmup": 0.1,
            "lr": 3e-4,
            "weight_decay": 0.05,
            "label_smoothing": 0.1,
            "augment": "rand",
            "mixup": 0.2,
            "ema": 0.99,
        },
    ),
}


def preset_settings(name: str) -> dict[str, Any]:
    """Return the settings of a preset.

    Raises:
        ValueError: There is no such preset; the message names those there are.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise ValueError(f"unknown preset {name!r}{hint}; presets are {', '.join(PRESETS)}")
    return dict(PRESETS[name].settings)
