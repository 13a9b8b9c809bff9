"""A grid of runs: what is compared, on which data, at which rates, how often."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from stochnorm.data.splits import derive_seed
from stochnorm.methods.catalogue import check_method, concerns
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.directory import run_name

__all__ = ["Grid", "GridRun", "Variant", "override", "parse_variant"]


@dataclass(frozen=True)
class Variant:
    """One thing to compare."""

    label: str
    """In tables and plots."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of :class:`FinetuneConfig` it sets, those of a regularizer as ``"l2sp.alpha"``; at least ``method``."""


class GridRun(NamedTuple):
    """One run of a grid."""

    variant: str
    """Its label."""
    repeat: int
    config: FinetuneConfig
    """Complete, but for ``out``: its directory goes by :func:`stochnorm.runs.directory.run_name`."""


@dataclass(frozen=True)
class Grid:
    """Every variant on every data set, backbone and rate, ``repeats`` times.

    A repetition draws its own images (``data_seed``) and its own training (``seed``: head, order, augmentation,
    masks). Both are derived from ``seed``: the images from the repetition alone, so that a smaller rate's are part of a
    larger one's; the training from repetition and rate. All variants of a cell see the same images in the same order.
    """

    base: FinetuneConfig
    """What all runs share; its ``data``, ``backbone`` and ``rate`` unless those below are given."""
    variants: tuple[Variant, ...]
    rates: tuple[float, ...] = ()
    data: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    repeats: int = 1
    seed: int = 0
    same_images: bool = False
    """Repetitions differ in their training alone, as in the paper."""

    def __post_init__(self) -> None:
        """Raises ValueError where nothing is left to run, or a variant stands twice or sets what there is not."""
        if self.repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {self.repeats}")
        if not self.variants:
            raise ValueError("a grid needs something to compare; give at least one method")
        labels = [variant.label for variant in self.variants]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} stands twice among the variants; name each of them once")
        for variant in self.variants:
            override(self.base, variant.settings).check_used()

    def runs(self) -> Iterator[GridRun]:
        """All runs; repetition by repetition, so that a grid that is stopped has whole ones."""
        axes = (
            range(self.repeats),
            self.data or (self.base.data,),
            self.backbones or (self.base.backbone,),
            self.rates or (self.base.rate,),
            self.variants,
        )
        for repeat, data, backbone, rate, variant in itertools.product(*axes):
            shared = replace(
                self.base,
                data=data,
                backbone=backbone,
                rate=rate,
                data_seed=_seed("images", self.seed, 0 if self.same_images else repeat),
                seed=_seed("training", self.seed, repeat, rate),
                out="",
                resume=False,
                overwrite=False,
            )
            yield GridRun(variant.label, repeat, override(shared, variant.settings))

    def directory(self, run: GridRun, out: Path) -> Path:
        """Of a run of the grid that lives in ``out``; named by its settings."""
        return out / "runs" / run_name(run.config)


def override(config: FinetuneConfig, settings: Mapping[str, Any]) -> FinetuneConfig:
    """The settings with some replaced, and without what the method does not look at, which would name another run.

    Raises:
        ValueError: There is no such setting, or its value is out of range.
    """
    changes: dict[str, Any] = {}
    for name, value in settings.items():
        outer, _, inner = name.partition(".")
        group = changes.get(outer, getattr(config, outer, None))
        if inner and is_dataclass(group) and inner in {f.name for f in fields(group)}:
            changes[outer] = replace(group, **{inner: value})  # type: ignore[type-var]
        elif not inner and outer in {f.name for f in fields(config)} and not is_dataclass(group):
            changes[outer] = value
        else:
            raise ValueError(f"there is no setting {name!r}; settings are the options of stochnorm finetune --help")
    changed = replace(config, **changes)
    for name in settings:
        if not concerns(name, changed.method):
            raise ValueError(f"{name} has no part in method {changed.method}; leave it out of that variant")
    return changed.without_unused()


def parse_variant(text: str) -> Variant:
    """A method, or a method with settings of its own: ``METHOD[:SETTING=VALUE]...``.

    Example:
        >>> parse_variant("stochnorm+l2sp:p=0.3:l2sp.alpha=0.01").settings
        {'method': 'stochnorm+l2sp', 'p': 0.3, 'l2sp.alpha': 0.01}
    """
    method, *pairs = text.split(":")
    method = "+".join(check_method(method))
    settings: dict[str, Any] = {"method": method}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{text!r}: {pair!r} is no setting; write METHOD:SETTING=VALUE, such as stochnorm:p=0.3")
        settings[name.replace("-", "_")] = _parse(value)
    return Variant(method + "".join(f", {pair.replace('=', ' = ')}" for pair in pairs), settings)


def _parse(value: str) -> Any:
    try:
        return json.loads(value.lower() if value in ("True", "False") else value)
    except ValueError:
        return value


def _seed(*key: object) -> int:
    return derive_seed(*key) % 2**31
