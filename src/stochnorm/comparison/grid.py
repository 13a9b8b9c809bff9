"""A grid of runs: variants, data sets, backbones, rates and repetitions."""

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
from stochnorm.runs.names import run_name
from stochnorm.runs.presets import preset_settings

__all__ = ["Grid", "GridRun", "Variant", "override", "parse_variant"]


@dataclass(frozen=True)
class Variant:
    """A method with its settings, as one side of a comparison."""

    label: str
    """Name in tables and plots."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of [stochnorm.FinetuneConfig][] to set, at least `method`; a group's as `"l2sp.alpha"`."""


class GridRun(NamedTuple):
    """One run of a grid."""

    variant: str
    """Label of its variant."""
    repeat: int
    """Number of the repetition, from 0."""
    config: FinetuneConfig
    """Complete settings except `out`, which follows from [stochnorm.runs.names.run_name][]."""


@dataclass(frozen=True)
class Grid:
    """Every variant on every data set, backbone and rate, `repeats` times.

    Each repetition draws its own images (`data_seed`) and its own training seed (`seed`: head, order, augmentation,
    masks); the test images are the same for all. Both seeds are derived from the grid's `seed`. The image seed depends
    on the repetition alone, so that the images of a smaller rate are a subset of those of a larger rate; the training
    seed depends on repetition and rate. All variants of a cell see the same images in the same order.
    """

    base: FinetuneConfig
    """Settings that all runs share; its `data`, `backbone` and `rate` apply where the fields below are empty."""
    variants: tuple[Variant, ...]
    rates: tuple[float, ...] = ()
    data: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    repeats: int = 1
    seed: int = 0
    same_images: bool = False
    """Same images in all repetitions, as in the paper."""
    one_test: tuple[str, ...] = ()
    """Data without a test split, whose test images all repetitions draw as the first one does;
    [stochnorm.compare][] fills it, so that no search and no repetition trains on images that another is tested on."""

    def __post_init__(self) -> None:
        """Raise ValueError if nothing is to run, a label is used twice or a variant has an unknown setting."""
        if self.repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {self.repeats}")
        if not self.variants:
            raise ValueError("a grid needs at least one method, got none; name methods such as vanilla,stochnorm")
        labels = [variant.label for variant in self.variants]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)}: duplicate variant; list each variant once")
        for variant in self.variants:
            settings = override(self.base, variant.settings)
            if settings.folds:
                raise ValueError(
                    f"a comparison draws its own splits in each repetition, so folds {settings.folds} has no place in "
                    "it; remove it, and ask for more repetitions (--seeds)"
                )
            settings.check_used()

    def runs(self) -> Iterator[GridRun]:
        """Yield all runs, repetition by repetition, so that a stopped grid has complete repetitions."""
        axes = (
            range(self.repeats),
            self.data or (self.base.data,),
            self.backbones or (self.base.backbone,),
            self.rates or (self.base.rate,),
            self.variants,
        )
        first = _seed("images", self.seed, 0)
        for repeat, data, backbone, rate, variant in itertools.product(*axes):
            images = first if self.same_images else _seed("images", self.seed, repeat)
            drawn_again = data in self.one_test and images != first and self.base.test_seed is None
            shared = replace(
                self.base,
                data=data,
                backbone=backbone,
                rate=rate,
                data_seed=images,
                test_seed=first if drawn_again else self.base.test_seed,
                seed=_seed("training", self.seed, repeat, rate),
                out="",
                resume=False,
                overwrite=False,
            )
            yield GridRun(variant.label, repeat, override(shared, variant.settings))

    def directory(self, run: GridRun, out: Path) -> Path:
        """Return the directory of a run of the grid in `out`; it is named by the settings of the run."""
        return out / "runs" / run_name(run.config)


def override(config: FinetuneConfig, settings: Mapping[str, Any]) -> FinetuneConfig:
    """Return the settings with some replaced, and with defaults for those that the method does not use.

    Unused settings would otherwise change the name of the run.

    Raises:
        ValueError: A setting is unknown, not used by the method, or out of its range.
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
            raise ValueError(f"unknown setting {name!r}; settings are the options of stochnorm finetune --help")
    changed = replace(config, **changes)
    for name in settings:
        if not concerns(name, changed.method):
            raise ValueError(f"method {changed.method} does not use {name}; remove it from this variant")
    return changed.without_unused()


def parse_variant(text: str) -> Variant:
    """Parse a method with its settings, if any: `METHOD[:SETTING=VALUE]...`.

    `preset=NAME` is short for the settings of a preset but its method; others of the text replace them.

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
            raise ValueError(
                f"{text!r}: {pair!r} is not a setting; write METHOD:SETTING=VALUE, such as stochnorm:p=0.3"
            )
        settings[name.replace("-", "_")] = _parse(value)
    if (preset := settings.pop("preset", None)) is not None:
        settings = preset_settings(str(preset)) | settings
    return Variant(method + "".join(f", {pair.replace('=', ' = ')}" for pair in pairs), settings)


def _parse(value: str) -> Any:
    try:
        return json.loads(value.lower() if value in ("True", "False") else value)
    except ValueError:
        return value


def _seed(*key: object) -> int:
    return derive_seed(*key) % 2**31
