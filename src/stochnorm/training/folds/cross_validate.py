"""The option `--folds`: a run for each fold, one for use, and their result together."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from stochnorm.data import Row, Source, export_lists, read_lists, read_source
from stochnorm.data.folds import fold_splits
from stochnorm.data.splits import assign_splits
from stochnorm.evaluation.tasks import task_for
from stochnorm.files import write_text
from stochnorm.methods.auto import seconds_of
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.directory import Run
from stochnorm.runs.hardware import check_device, check_one_process
from stochnorm.runs.images import check_images
from stochnorm.text import duration
from stochnorm.training.composite import in_its_directory
from stochnorm.training.display import Display
from stochnorm.training.folds.pooled import fold_facts, in_words, pool, spread
from stochnorm.training.train import Result, write_page

__all__ = ["cross_validate"]

_FINAL = "final"


def cross_validate(
    config: FinetuneConfig,
    work: Callable[..., Result],
    *,
    quiet: bool = False,
    validated: Callable[[dict[str, Any]], None] | None = None,
) -> Result:
    """Test every image once, by a model that has not seen it; then train a model for use on all images.

    Each fold is an ordinary run in `folds/`, whose training and validation images are of the other folds. Finished
    folds are kept when the command is stopped.

    Args:
        config: The settings, with `folds`.
        work: Does a run.
        quiet: Print nothing.
        validated: Called with the record of each validation of each run.

    Returns:
        The result, whose `test` is that of all images.

    Raises:
        ValueError, FileNotFoundError, FileExistsError, FloatingPointError, KeyboardInterrupt: As
            [stochnorm.finetune][].
    """
    config.check_used()
    check_device(config.device, config.precision)
    check_one_process("folds work in one process", "start without torchrun")
    display = Display(quiet=quiet)

    def all_folds(run: Run) -> None:
        _work(config, run, work, display, validated)

    return in_its_directory(config, display, all_folds, kept="finished folds are")


def _work(
    config: FinetuneConfig,
    run: Run,
    work: Callable[..., Result],
    display: Display,
    validated: Callable[[dict[str, Any]], None] | None,
) -> None:
    source = read_source(config.data)
    splits = _splits(source, config)
    names = [*map(str, range(1, config.folds + 1)), _FINAL]
    for name in names:
        if Run(run.folds / name).result.is_file():  # the others look for themselves
            check_images(Run(run.folds / name), source.root)
    run.open(config)
    for name, rows in zip(names, splits, strict=True):
        _keep_list(run.folds / "lists" / name, rows, config)
    display.facts(
        {
            "data": config.data,
            "images": f"{len(splits[-1])}, {len(source.classes)} classes{_pooled(source)}",
            "folds": f"{config.folds}, and a model of all images",
        }
    )
    results, spent = [], 0.0
    for left, name in zip(range(len(names), 0, -1), names, strict=True):
        title = f"fold {name} of {config.folds}" if name != _FINAL else "model of all images"
        settings = _settings(config, run, name, spent, left)
        start = time.monotonic()
        results.append(_one(settings, title, work, display, validated))
        spent += max(time.monotonic() - start, results[-1]["cost"]["seconds"])
    record = _result(config, run, source, splits[-1], results)
    write_text(run.result, json.dumps(record, indent=2, allow_nan=False) + "\n")
    if config.report:
        write_page(run)


def _pooled(source: Source) -> str:
    """Say that the splits of the data do not count, where it has some."""
    own = sorted({row.split for row in source.rows} - {""})
    return f"; DATA's own splits ({', '.join(own)}) are pooled, so its test images are trained on too" if own else ""


def _splits(source: Source, config: FinetuneConfig) -> list[list[Row]]:
    """Return the rows of each fold and of the model for use: all labelled images, or the sample that `rate` asks."""
    rows = [row._replace(split="") for row in source.rows]
    several = source.multi_label
    sampled = assign_splits(
        rows, rate=config.rate, val_fraction=0.5, test_fraction=0, seed=config.data_seed, multi_label=several
    )
    return fold_splits(
        sampled,
        source.classes,
        config.folds,
        val_fraction=config.val_fraction,
        seed=config.data_seed,
        multi_label=several,
    )


def _keep_list(folder: Path, rows: Sequence[Row], config: FinetuneConfig) -> None:
    """Write the lists of a fold, or check those of an earlier start."""
    if not folder.is_dir():
        export_lists(rows, folder, empty=True)
        return
    try:
        same = read_lists(folder, rows) == sorted(rows)
    except ValueError:
        same = False
    if not same:
        raise ValueError(
            f"cannot resume: the images of {config.data} are not those of {folder}; restore the images, or start again "
            "with --overwrite"
        )


def _settings(config: FinetuneConfig, run: Run, name: str, spent: float, left: int) -> FinetuneConfig:
    """Return the settings of a fold's run.

    Args:
        config: The settings of the whole.
        run: The whole.
        name: Name of the fold.
        spent: Seconds that the runs before took.
        left: Number of runs that share the rest of the budget; each has a quarter of an equal share at least.
    """
    before = Run(run.folds / name).config
    budget = FinetuneConfig.budget
    if config.method == "auto":
        whole = seconds_of(config.budget)
        seconds = max((whole - spent) / left, whole / (config.folds + 1) / 4)
        budget = FinetuneConfig.load(before).budget if before.is_file() else f"{max(seconds, 1.0):.0f}s"
    return replace(
        config,
        folds=0,
        split_lists=str(run.folds / "lists" / name),
        rate=100.0,
        budget=budget,
        out=str(run.folds / name),
        report=False,
        resume=before.is_file(),
        overwrite=False,
    )


def _one(
    settings: FinetuneConfig,
    title: str,
    work: Callable[..., Result],
    display: Display,
    validated: Callable[[dict[str, Any]], None] | None,
) -> dict[str, Any]:
    """Do a run, or take it up; return its result."""
    with display.measuring(title) as progress:
        progress(0.0)

        def tell(record: dict[str, Any]) -> None:
            progress(min(record["step"] / settings.steps, 1.0))
            if validated is not None:
                validated(record)

        try:
            record = work(settings, quiet=True, validated=tell).record
        except FloatingPointError as error:
            raise type(error)(f"{title}: {error}") from error
    display.note(_line(title, record))
    return record


def _line(title: str, record: dict[str, Any]) -> str:
    """Return what a run reached, in a line."""
    score = record["score"]
    reached = [
        f"{name} {record[name][score]:.1f} %"
        for name in ("test", "validation")
        if record[name] and record[name][score] is not None
    ]
    chosen = record["method"].get("chosen")
    return f"{title}: {', '.join([*reached, *([chosen] if chosen else []), duration(record['cost']['seconds'])])}"


def _result(
    config: FinetuneConfig, run: Run, source: Source, rows: Sequence[Row], results: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Put the files of the model for use into the directory, and the predictions of the folds; return the result."""
    final, last = Run(run.folds / _FINAL), results[-1]
    run.take(final, "model", "metrics", "curves", "curves_svg", "split")
    folds = [Run(run.folds / str(number)) for number in range(1, config.folds + 1)]
    task = task_for(tuple(last["classes"]), source.multi_label)
    pooled = pool(folds, {row.path: row for row in rows}, task, multi_label=source.multi_label)
    write_text(run.predictions, pooled.predictions_csv())
    if confusion := pooled.confusion_csv():
        write_text(run.confusion, confusion)
    parts = [fold_facts(number, result) for number, result in enumerate(results[:-1], start=1)]
    asked = {"out", "folds", "split_lists", "rate", "budget", "report", "resume", "overwrite"}
    return last | {
        "config": last["config"] | {name: value for name, value in asdict(config).items() if name in asked},
        "test": pooled.metrics,
        "folds": {
            "count": config.folds,
            "parts": parts,
            **spread(parts, task.score),
            **in_words(parts, task.score_title, last),
        },
        "cost": last["cost"] | {"seconds": sum(result["cost"]["seconds"] for result in results)},
    }
