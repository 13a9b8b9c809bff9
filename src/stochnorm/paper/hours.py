"""The hours that the paper's tables and figures take, computed from images per second; pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stochnorm.data import DATASETS
from stochnorm.methods.catalogue import methods_of
from stochnorm.paper.catalogue import EXPERIMENTS
from stochnorm.paper.reproduce import Scale, grids
from stochnorm.paper.small import images_of
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.names import run_name

__all__ = ["Estimate", "Hours", "Speeds", "Work", "hours_of", "runs_of", "work_of"]

_TEN_CROPS = 10


@dataclass(frozen=True)
class Speeds:
    """The speeds of a device."""

    training: Mapping[str, Mapping[str, float]]
    """Images per second of a training step, by backbone and method; sums of methods follow from their parts."""
    evaluation: Mapping[str, float]
    """Crops per second of an evaluation, by backbone."""
    start: float = 0.0
    """Seconds of a run that are neither steps nor evaluations: building the model, files."""
    device: str = "one device"
    """Name of the device."""
    devices: int = 1
    """Number of such devices in the machine."""
    how: str = ""
    """How the speeds were measured."""

    def training_seconds(self, backbone: str, method: str) -> float:
        """Return the seconds for an image of a training step; a sum adds what each method adds to plain fine-tuning."""
        known = self.training[backbone]
        plain = 1 / known["vanilla"]
        return plain + sum(1 / known[part.name] - plain for part in methods_of(method))


class Work(NamedTuple):
    """What a run computes."""

    images: int
    """Images of all training steps."""
    crops: int
    """Crops of all evaluations."""


class Hours(NamedTuple):
    """The hours of an experiment."""

    name: str
    title: str
    runs: int
    steps: int
    """Training steps of all runs."""
    hours: float
    """Hours for all runs, one after the other, on one device."""


@dataclass(frozen=True)
class Estimate:
    """The hours of experiments on a machine."""

    lines: tuple[Hours, ...]
    """Each experiment by itself."""
    total: Hours
    """All of them; a run that several need is counted once."""
    speeds: Speeds
    devices: int
    """Devices that work at a time."""


def hours_of(
    names: Sequence[str], speeds: Speeds, *, scale: Scale = "paper", repeats: int = 0, workers: int = 0
) -> Estimate:
    """Compute the hours of the paper's tables and figures from speeds.

    They are steps, batch size and runs over images per second, with the validations and the test of each run. The
    decoding of the images at their first use and DELTA's measurement of channel attention are not counted.

    Args:
        names: Experiments, some of `stochnorm.paper.NAMES`.
        speeds: Speeds of the device.
        scale: Scale, as in [stochnorm.paper.reproduce.reproduce][]; so is `repeats`.
        repeats: Runs per cell; 0: those of the scale.
        workers: Runs at a time; 0: one for each device. Devices beyond them are idle, and several runs on a device are
            not counted as faster.

    Example:
        >>> from stochnorm.paper.experiment import RESNET50
        >>> speeds = Speeds({RESNET50: {"vanilla": 4000, "stochnorm": 3600, "bin": 2000}}, {RESNET50: 12000})
        >>> hours_of(["figure4d"], speeds).total.runs
        45
    """
    runs = {name: list(runs_of(name, scale, repeats)) for name in names}
    lines = [_hours(name, EXPERIMENTS[name].title, each, scale, speeds) for name, each in runs.items()]
    unique = {run_name(config): config for each in runs.values() for config in each}
    total = _hours("total", "all of them", unique.values(), scale, speeds)
    return Estimate(tuple(lines), total, speeds, min(workers or speeds.devices, speeds.devices))


def runs_of(name: str, scale: Scale = "paper", repeats: int = 0) -> Iterator[FinetuneConfig]:
    """Yield the settings of the runs of an experiment; their DATA is the name of the data set."""
    experiment = EXPERIMENTS[name]
    for grid in grids(experiment, {data: data for data in experiment.data}, scale=scale, repeats=repeats):
        yield from (run.config for run in grid.runs())


def work_of(config: FinetuneConfig, images: Mapping[str, int]) -> Work:
    """Return what a run computes.

    Args:
        config: Its settings.
        images: Number of images of the data set by split: train, test, and val if it has one.
    """
    given = images.get("val", 0)
    pool = images["train"] + (given if config.pool_val else 0)
    sampled = math.ceil(config.rate / 100 * pool)
    val = given if given and not config.pool_val else round(config.val_fraction * sampled)
    train = sampled - (0 if given and not config.pool_val else val)
    validations = math.ceil(config.steps / config.eval_every_used(train)) + 1  # and one of the kept model
    crops = validations * val + images["test"] * (_TEN_CROPS if config.ten_crop else 1)
    return Work(config.steps * config.batch_size, crops)


def _hours(name: str, title: str, runs: Iterable[FinetuneConfig], scale: Scale, speeds: Speeds) -> Hours:
    seconds, steps, number = 0.0, 0, 0
    for config in runs:
        images = images_of(config.data) if scale == "small" else DATASETS[config.data].counts
        work = work_of(config, images)
        seconds += speeds.start + work.images * speeds.training_seconds(config.backbone, config.method)
        seconds += work.crops / speeds.evaluation[config.backbone]
        steps, number = steps + config.steps, number + 1
    return Hours(name, title, number, steps, seconds / 3600)
