"""The settings of a run. The command line is made from these fields and their documentation."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from stochnorm.kinds import check_kinds, parse_json
from stochnorm.methods.catalogue import METHODS, MethodSettings, check_method, concerns, methods_of, trains
from stochnorm.methods.ranges import check_ranges
from stochnorm.runs.paths import FROM, plain_path
from stochnorm.runs.presets import preset_settings
from stochnorm.runs.settings import ImageSettings, RecipeSettings, RunSettings
from stochnorm.runs.trackers import tracker_names

__all__ = ["BOOKKEEPING", "FinetuneConfig", "added", "flat"]

# How a run computes and what it writes, not what it computes. Compiled code rounds differently and draws other masks
# with the same law.
BOOKKEEPING = (
    "out", "resume", "overwrite", "report", "log", "strict", "workers", "cache", "compile", "deterministic",
)  # fmt: skip
_DIVIDING = ("split_lists", "pool_val", "test_fraction", "test_seed")
_MOST_EVALUATIONS = 15  # by default
_LEAST_SIDE = 32  # pixels
# The settings of the first version. A later one is in a run's name only where it is not the default.
_FIRST = (
    "data method backbone weights steps batch_size image_size lr head_lr_factor momentum weight_decay decay_norm_bias "
    "decay_at accumulate auxiliary rate val_fraction test_fraction data_seed split_lists pool_val balance statistics "
    "norm_momentum eval_every select ten_crop seed device precision p p_end p_schedule norm_layers freeze l2sp delta "
    "bss"
)


@dataclass(frozen=True)
class FinetuneConfig(MethodSettings, ImageSettings, RecipeSettings, RunSettings):
    """Fine-tune a pre-trained backbone on your images; keep the best validation checkpoint; score it on test images.

    The fields are those of `RunSettings`, `RecipeSettings` and `ImageSettings`, then those of the methods
    (`stochnorm.methods`). Values are checked when the
    object is made.

    Raises:
        ValueError: A value is out of its range; the message names the field.
        TypeError: A value is not of its field's type.

    Example:
        >>> FinetuneConfig("photos/", method="l2sp+stochnorm", lr=0.01).method
        'stochnorm+l2sp'
    """

    def __post_init__(self) -> None:
        for name in ("data", "weights", "split_lists", "out"):
            if not isinstance(path := getattr(self, name), (str, os.PathLike)):
                raise TypeError(f"{name} must be a path, got {path!r}")
            if "\0" in os.fspath(path):
                raise ValueError(f"{name} must be a path, which has no NUL, got {path!r}")
            object.__setattr__(self, name, os.fspath(path))
        object.__setattr__(self, "data", plain_path(self.data))  # photos and photos/ are one run
        for name, method in METHODS.items():
            if method.group and not isinstance(group := getattr(self, name), method.group):
                raise TypeError(f"{name} must be {method.group.__name__}, got {group!r}")
        check_kinds(type(self), self.__dict__)
        check_ranges(self)
        for method in METHODS.values():
            method.check_ranges(self)
        if self.batch_size < 2 * self.accumulate:
            raise ValueError(
                f"accumulate must leave at least 2 images in each part of a batch of {self.batch_size}, got "
                f"{self.accumulate}; give --accumulate {self.batch_size // 2} or less"
            )
        tracker_names(self.log)
        object.__setattr__(self, "method", "+".join(check_method(self.method)))  # one name for one sum
        for method in methods_of(self.method):
            method.check(method.settings_of(self), self.batch_size // self.accumulate)
        if self.optimizer == "adamw" and self.momentum == 1:
            raise ValueError("momentum must be below 1 with --optimizer adamw, whose first beta it is, got 1")
        if self.split_lists and self.rate != 100:
            raise ValueError(f"split_lists already names the training images; remove rate {self.rate:g}")
        if self.folds == 1:
            raise ValueError("folds must be at least 2, or 0 for no cross-validation, got 1; give --folds 5")

    def _chooser(self) -> str:
        """Return what of the settings chooses by validation images; empty if nothing does."""
        if self.method in ("auto", "soup", "wise") or self.fits_probe:
            return f"method {self.method}" if self.head == "random" else f"head {self.head}"
        others = {"folds": self.folds, "patience": self.patience}
        asked = next((f"{name} {value}" for name, value in others.items() if value), "")
        return asked or ("" if self.select == "last" else f"select {self.select}")

    def check_used(self) -> None:
        """Raise ValueError where a setting that the method does not use is not the default, or no run can begin.

        Raises:
            ValueError: The message names the setting, and what to do.
        """
        if 0 < self.image_size < _LEAST_SIDE:  # and in bfloat16 CPUs compute wrong gradients where a map is one pixel
            raise ValueError(
                f"image_size {self.image_size} leaves nothing of an image, whose side networks halve five times; give "
                f"--image-size {_LEAST_SIDE} or more: smaller images are enlarged"
            )
        if not self.val_fraction and (chooser := self._chooser()):
            raise ValueError(f"val_fraction 0 leaves no image for {chooser} to choose by; give a fraction such as 0.2")
        for method in methods_of(self.method):
            for name, wanted, why in method.needs:
                if (given := getattr(self, name)) != wanted:
                    do = f"give --{name} {wanted}" if isinstance(wanted, str) else f"remove --{name}"
                    raise ValueError(f"{method.name} cannot work with {name} {given}: {why}; {do}")
        for name, value in self.changed().items():
            if self.folds and name in _DIVIDING:
                raise ValueError(f"folds divides all images itself, so {name} {value} has no effect; remove it")
            if name in methods_of(self.method)[0].without:
                raise ValueError(f"method {self.method} does not train, so {name} {value} has no effect; remove it")
            if name.startswith("probe.") and not self.fits_probe:
                raise ValueError(f"{name} {value} is for --method probe and --head probe; add one, or remove it")
            if not concerns(name, self.method):
                owners = [owner for owner in METHODS if concerns(name, owner)]
                raise ValueError(
                    f"method {self.method} does not use {name}, which is for {' or '.join(owners)}; remove it, or "
                    "choose another --method"
                )
            if name == "statistics" and self.head == "probe":
                raise ValueError(f"head probe needs the inherited statistics, got {value}; remove --statistics")
            if name == "p_end" and self.p_schedule == "constant":
                raise ValueError(f"p_end {value} needs a schedule, but p is constant; give --p-schedule linear")

    def changed(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults; those of a group as `l2sp.alpha`."""
        default = flat(asdict(FinetuneConfig(self.data)))
        return {name: value for name, value in flat(asdict(self)).items() if value != default[name]}

    def without_unused(self) -> FinetuneConfig:
        """Return a copy with the defaults for the settings that the method does not use."""
        default = FinetuneConfig(self.data)
        unused = [f.name for f in fields(self) if not concerns(f.name, self.method)]
        changed = replace(self, **{name: getattr(default, name) for name in unused})
        return changed if changed.fits_probe else replace(changed, probe=default.probe)

    @classmethod
    def of_preset(cls, preset: str, data: str | Path, **settings: Any) -> FinetuneConfig:
        """Return the settings of a preset, some of them replaced.

        Raises:
            ValueError: There is no such preset, or a value is out of its range.

        Example:
            >>> FinetuneConfig.of_preset("gentle", "photos/", lr=0.002).schedule
            'cosine'
        """
        return cls(os.fspath(data), **(preset_settings(preset) | settings))

    @classmethod
    def load(cls, path: str | Path) -> FinetuneConfig:
        """Read the settings in a JSON file: a run's `config.json`, or `chosen.json` of `stochnorm tune`.

        Raises:
            ValueError: The file is damaged, or has an unknown setting or a value out of its range.
        """
        try:
            settings = parse_json(Path(path).read_text(encoding="utf-8"), dict[str, Any])
            settings.pop(FROM, None)
            check_kinds(cls, settings)
            return cls.from_dict(settings)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not a file of stochnorm's settings ({error})") from error

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> FinetuneConfig:
        """Return the settings in a mapping, as JSON has them; missing ones take their defaults.

        Raises:
            TypeError: There is no such setting, or a group is not a mapping.
            ValueError: A value is out of its range.
        """
        _check_known(cls, settings)
        groups: dict[str, Any] = {}
        for name, method in METHODS.items():
            if method.group:
                given = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.get(name, {}).items()}
                _check_known(method.group, given, f"{name}.")
                groups[name] = method.group(**given)
        return cls(**{**settings, **groups})

    def as_fields(self) -> dict[str, Any]:
        """Return the fields as they are, to make another object from."""
        return {f.name: getattr(self, f.name) for f in fields(FinetuneConfig)}

    def result_fields(self) -> dict[str, Any]:
        """Return the fields that the result depends on; the run is named by them."""
        left_out = {*BOOKKEEPING, *(added() - self.changed_fields())}
        used = {"head_lr_factor": self.head_lr_factor_used}
        return {name: value for name, value in (asdict(self) | used).items() if name not in left_out}

    def changed_fields(self) -> set[str]:
        """Return the fields that differ from the defaults; a group as one."""
        default = FinetuneConfig(self.data)
        return {f.name for f in fields(self) if getattr(self, f.name) != getattr(default, f.name)}

    @property
    def fits_probe(self) -> bool:
        """True if the head is the linear probe, or starts at it."""
        return self.head == "probe" or not trains(self.method)

    @property
    def head_lr_factor_used(self) -> float:
        """The learning-rate multiplier of the head as set; else 1 if it starts at the probe, or 10 as in the paper."""
        if self.head_lr_factor is not None:
            return self.head_lr_factor
        return 1.0 if self.head == "probe" else 10.0

    @property
    def weight_decay_used(self) -> float:
        """The weight decay as set; else 0 with a method that replaces it, else 5e-4 as in the paper."""
        if self.weight_decay is not None:
            return self.weight_decay
        return 0.0 if any(method.replaces_weight_decay for method in methods_of(self.method)) else 5e-4

    def eval_every_used(self, images: int) -> int:
        """Return the steps between two validations, for so many training images: as set; else an epoch or more."""
        return self.eval_every or max(images // self.batch_size, math.ceil(self.steps / _MOST_EVALUATIONS))


def _check_known(kind: type, settings: Mapping[str, Any], prefix: str = "") -> None:
    """Raise TypeError for a name that is no field of a dataclass."""
    known = {f.name for f in fields(kind)}
    for name in settings:
        if name not in known:
            raise TypeError(f"there is no setting {prefix}{name}")


def added() -> frozenset[str]:
    """Return the settings that runs of the first version lack."""
    return frozenset(f.name for f in fields(FinetuneConfig)) - {*_FIRST.split()}


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without groups: those of a group as `l2sp.alpha`."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {name: value}
    return found
