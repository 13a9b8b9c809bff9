"""Compare the rows of the evidence on its data sets: learning rates chosen on validation, then repeated runs.

    python results/evidence.py birds groceries --out DIR --image-size 128 --steps 150 --repeats 5 --rows random warm

A row is a variant as `stochnorm compare --methods` takes it, or a name of ROWS. Each row whose learning rate can be
chosen runs the first repetition at every rate of LEARNING_RATES; the best on validation images (then the lower
validation loss) is kept for all repetitions; a rate at which training collapses is out. The other rows run as they
are. Every row of a repetition sees the same images. Rerun the command to resume; with more rows or repetitions it
adds to what is there.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

from stochnorm import Comparison, FinetuneConfig, Grid, Variant, compare
from stochnorm.comparison.grid import parse_variant
from stochnorm.comparison.publish import publish
from stochnorm.files import write_text
from stochnorm.runs.records import Record

__all__ = ["LEARNING_RATES", "ROWS", "SETS", "best_rate", "main", "variants"]

LEARNING_RATES = (0.001, 0.003, 0.01)

SETS = {
    "birds": ("CUB_100", 15.0),
    "groceries": ("grocery", 15.0),
    "radiographs": ("NIH_1000", 100.0),
    "cells": ("elpv", 15.0),
    "demo": ("groceries", 100.0),
}
"""Data (a folder below --data, or the name of an installed set) and percentage of the training images."""

METHODS = ("vanilla", "frozen", "stochnorm", "l2sp", "delta", "bss")
ROWS = {
    "probe": ["probe"],
    "random": list(METHODS),
    "warm": [f"{method}:head=probe" for method in METHODS],
    "held": ["stochnorm:norm_momentum=0:p=0.1", "stochnorm:norm_momentum=0:p=0.1:head=probe"],
    "auto": ["auto:budget=5m"],
}
"""Groups of rows by name."""
FIXED = ("probe", "auto")
"""Methods whose learning rate is not searched."""


def variants(names: list[str]) -> tuple[Variant, ...]:
    """Return the variants of rows; a name of ROWS is all of its rows."""
    texts = [text for name in names for text in ROWS.get(name, [name])]
    return tuple(Variant(text, parse_variant(text).settings) for text in dict.fromkeys(texts))


def at_rate(variant: Variant, rate: float) -> Variant:
    """Return the variant with a learning rate."""
    return Variant(f"{variant.label}:lr={rate:g}", {**variant.settings, "lr": rate})


def best_rate(trials: dict[float, Record]) -> float:
    """Return the learning rate of the trial with the best validation score, then the lowest validation loss."""

    def merit(rate: float) -> tuple[float, float]:
        found = trials[rate].validation
        return found[trials[rate].score], -found["loss"]

    return max(trials, key=merit)


def run_set(name: str, options: argparse.Namespace) -> None:
    """Choose the learning rates on a data set, run all repetitions, and write tables and picture."""
    data, rate = SETS[name]
    folder = options.data / data
    out = options.out / name
    base = FinetuneConfig(
        str(folder) if folder.is_dir() else data,
        backbone=options.backbone,
        rate=rate,
        image_size=options.image_size,
        steps=options.steps,
        log="none",
        device=options.device,
    )

    def run(grid: Grid) -> Comparison:
        return compare(grid, out, workers=options.workers, threads=options.threads, quiet=True)

    chosen: dict[str, float] = {}
    final = []
    for variant in variants(options.rows):
        if variant.settings["method"] in FIXED:
            final.append(variant)
            continue
        trials = {rate: run(Grid(base, (at_rate(variant, rate),))).records for rate in LEARNING_RATES}
        ended = {rate: records[0] for rate, records in trials.items() if records}
        chosen[variant.label] = best_rate(ended)
        scores = [
            f"lr {rate:g}: " + (f"{ended[rate].validation[ended[rate].score]:.1f}" if rate in ended else "collapsed")
            for rate in LEARNING_RATES
        ]
        say(f"{name}, {variant.label}, validation: {', '.join(scores)}; chosen {chosen[variant.label]:g}")
        final.append(Variant(variant.label, at_rate(variant, chosen[variant.label]).settings))
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "chosen.json", json.dumps(chosen, indent=2) + "\n")
    grid = Grid(base, tuple(final), repeats=options.repeats)
    for repeats in range(1, options.repeats + 1):
        comparison = run(replace(grid, repeats=repeats))
        comparison.check()
        records = comparison.records[-len(final) :]
        values = [f"{record.variant} {record.value:.1f}" for record in records if record.value is not None]
        say(f"{name}, repetition {repeats} of {options.repeats}, test: {', '.join(values)}")
    publish(run(grid), reference=final[0].label)
    say(f"{name}: tables and report in {out}")


def say(line: str) -> None:
    """Print a line with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+", choices=SETS, help="data sets")
    parser.add_argument("--out", type=Path, required=True, help="directory of the comparisons, one folder a set")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the image sets")
    parser.add_argument("--rows", nargs="+", default=["probe", "random", "held"], help=f"rows, or {', '.join(ROWS)}")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--image-size", type=int, default=128, help="side of the network's input, pixels")
    parser.add_argument("--steps", type=int, default=150, help="training steps of a run")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of a run")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    for name in options.sets:
        run_set(name, options)


if __name__ == "__main__":
    main()
