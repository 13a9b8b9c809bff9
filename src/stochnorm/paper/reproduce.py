"""Reproduce the paper's tables and figures: find the data, do the missing runs, compare with the paper."""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from stochnorm.comparison.compare import Comparison, compare
from stochnorm.comparison.grid import Grid
from stochnorm.comparison.tune import tune_variants
from stochnorm.data import DATASETS, verify
from stochnorm.data.published.catalogue import recognise
from stochnorm.files import write_text
from stochnorm.paper.catalogue import EXPERIMENTS
from stochnorm.paper.experiment import PAPER, Experiment
from stochnorm.paper.figures import draw
from stochnorm.paper.outcome import Outcome, Place, format_csv, format_markdown, lines_of, show
from stochnorm.paper.small import BACKBONES, SMALL, small_set
from stochnorm.plotting import save_figure
from stochnorm.runs.records import LABELS, Failure, Record, write_records
from stochnorm.terminal import Terminal
from stochnorm.text import some
from stochnorm.tuning.study import import_optuna

__all__ = ["Scale", "find_data", "grids", "reproduce", "write_outcome"]

Scale = Literal["paper", "small"]

_REPEATS_SMALL = 2
_TRIALS = 8  # of a search for strengths


def reproduce(
    name: str,
    *,
    data_root: str = "",
    scale: Scale = "paper",
    weights: str = "pretrained",
    out: str = "",
    repeats: int = 0,
    trials: int | None = None,
    workers: int = 0,
    executor_name: str = "local",
    quiet: bool = False,
) -> Outcome:
    """Do the missing runs of a table or figure of the paper and compare it with the published numbers.

    This writes `OUT/NAME/` with `NAME.md`, `NAME.csv` and `records.jsonl`, and for a figure `NAME.png` and `NAME.svg`.
    The runs of all experiments are in `OUT/runs/`, so that a run that two experiments need is trained once.

    Args:
        name: Name of the experiment, one of `stochnorm.paper.NAMES`.
        data_root: Folder of the data sets in their official formats; optional at small scale.
        scale: `paper`; or `small`: the same cells with tiny networks, few images and two steps, which is no result.
        weights: `pretrained` downloads ImageNet weights; or a file, or a folder with one file per backbone.
        out: Output directory; empty: runs/paper or runs/paper-small.
        repeats: Runs per cell; 0: five as in the paper, or two at small scale.
        trials: Trials of a search for the strengths of each method that has some, for each data set and backbone, on
            the validation images: the paper selects on them. 0: the strengths of the released code, and all sampled
            images train. None: eight at the paper's scale; at small scale no search.
        workers: Runs at a time, as in [stochnorm.compare][]; so are `executor_name` and `quiet`.

    Raises:
        FileNotFoundError: No data set or no weights were found.
        ValueError: Options contradict each other; or runs failed, after all files are written.
        ModuleNotFoundError: A search needs Optuna, which is not installed.
    """
    experiment, folder = EXPERIMENTS[name], Path(out or f"runs/paper{'-small' if scale == 'small' else ''}")
    _check(experiment, folder, data_root, scale, weights)
    trials = (0 if scale == "small" else _TRIALS) if trials is None else trials
    if trials < 0:
        raise ValueError(f"trials must be at least 0, got {trials}")
    if trials:
        import_optuna()  # before anything is done
    data, notes = _data(experiment, folder, data_root, scale)
    records: list[Record] = []
    failures: list[Failure] = []
    for grid in grids(experiment, data, scale=scale, weights=weights, repeats=repeats, trials=trials):
        threads = int(scale == "small")  # more would only wait for each other
        for part in _with_strengths(grid, folder, trials, workers, threads, executor_name, quiet):
            comparison = compare(
                part,
                folder,
                workers=workers,
                threads=threads,
                executor_name=executor_name,
                scale="small" if scale == "small" else "",
                quiet=quiet,
            )
            records += comparison.records
            failures += comparison.failures
    notes += _failed(failures)
    lines = lines_of(experiment, records, _places(experiment, data, scale))
    outcome = Outcome(experiment, lines, scale, tuple(notes))
    console = Terminal(quiet=quiet)
    show(console, outcome)
    for file in write_outcome(outcome, records, folder):
        console.print(str(file), markup=False, style="dim", soft_wrap=True)
    Comparison(folder, records, failures).check()
    return outcome


def grids(
    experiment: Experiment,
    data: Mapping[str, str],
    *,
    scale: Scale = "paper",
    weights: str = "pretrained",
    repeats: int = 0,
    trials: int = _TRIALS,
) -> Iterator[Grid]:
    """Yield the grids of an experiment, one per backbone, because weights belong to a backbone.

    Args:
        experiment: The experiment.
        data: DATA of `stochnorm finetune` by the name of the data set; missing data sets are skipped.
        scale: Scale, as in `reproduce`; so are the other arguments.

    Raises:
        FileNotFoundError: The folder of weights has no file for a backbone.
    """
    for backbone in experiment.backbones:
        if scale == "small":
            base = replace(SMALL, backbone=BACKBONES[backbone])
        else:
            base = replace(PAPER, backbone=backbone, weights=_weights(backbone, weights))
            base = base if trials else replace(base, val_fraction=0.0)  # which would decide nothing
        yield Grid(
            base,
            experiment.variants,
            rates=experiment.rates,
            data=tuple(data[name] for name in experiment.data if name in data),
            repeats=repeats or (_REPEATS_SMALL if scale == "small" else experiment.repeats),
            same_images=True,  # the paper's lists are fixed
        )


def _with_strengths(
    grid: Grid, out: Path, trials: int, workers: int, threads: int, executor_name: str, quiet: bool
) -> Iterator[Grid]:
    """Yield the grid; with trials, the grid of each data set, with strengths that its validation images chose."""
    if not trials:
        yield grid
        return
    for data in grid.data:
        part = replace(grid, data=(data,))
        yield tune_variants(
            part,
            out,
            trials=trials,
            only_strengths=True,
            workers=workers,
            threads=threads,
            executor_name=executor_name,
            quiet=quiet,
        )


def find_data(root: Path, names: Sequence[str]) -> dict[str, Path]:
    """Find data sets in their official formats, in a folder or its subfolders.

    Args:
        root: Folder to search.
        names: Names of the data sets, as in `stochnorm ls datasets`.

    Returns:
        The folders that were found, by name.

    Raises:
        FileNotFoundError: None was found.
    """
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())] if root.is_dir() else []
    found: dict[str, Path] = {}
    for known in filter(None, map(recognise, folders)):
        found.setdefault(known[0].name, known[1])
    if not found.keys() & set(names):
        where = f"looked in it and in {some([f.name for f in folders[1:]]) or 'no folder'}" if folders else "no folder"
        wanted = "; ".join(f"{DATASETS[name].title}: {', '.join(DATASETS[name].files)}" for name in names)
        get = next((name for name in names if DATASETS[name].url), "")
        remedy = f"stochnorm download {get} {root}" if get else DATASETS[names[0]].obtain
        raise FileNotFoundError(f"{root}: none of the data sets is here ({where}). Wanted: {wanted}. Get: {remedy}")
    return {name: found[name] for name in names if name in found}


def write_outcome(outcome: Outcome, records: Sequence[Record], out: Path) -> list[Path]:
    """Write `out/NAME/`: the table as Markdown and CSV, the records, and the picture of a figure.

    Returns:
        The files.
    """
    name = outcome.experiment.name
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    table, numbers, lines = folder / f"{name}.md", folder / f"{name}.csv", folder / "records.jsonl"
    write_text(table, format_markdown(outcome))
    write_text(numbers, format_csv(outcome))
    write_records(lines, [replace(record, run=f"../{record.run}") for record in records])
    if not outcome.experiment.figure:
        return [table, numbers, lines]
    save_figure(draw(outcome), folder / f"{name}.png")
    return [table, numbers, lines, folder / f"{name}.png", folder / f"{name}.svg"]


def _check(experiment: Experiment, out: Path, data_root: str, scale: Scale, weights: str) -> None:
    """Raise ValueError if options contradict each other, before anything is done."""
    if scale == "small" and weights != "pretrained":
        raise ValueError(f"small scale uses random weights, got --weights {weights}; remove --weights")
    if scale == "paper" and not data_root:
        titles = ", ".join(DATASETS[name].title for name in experiment.data)
        raise ValueError(
            f"{experiment.name} needs {titles} in the official format; add --data-root FOLDER with their "
            "folders, or --scale small, which needs no data and gives no result"
        )
    if scale == "paper" and len(experiment.backbones) > 1 and Path(weights).is_file():
        raise ValueError(
            f"{experiment.name} has several backbones, got one file {weights}; give --weights FOLDER with a file of "
            "each: " + ", ".join(f"{_short(backbone)}*.pth" for backbone in experiment.backbones)
        )
    labels = out / LABELS
    if labels.is_file():
        there = json.loads(labels.read_text(encoding="utf-8")).get("") or "paper"
        if there != scale:
            raise ValueError(f"{out} holds runs of {there} scale, not of {scale} scale; choose another --out")


def _data(experiment: Experiment, out: Path, data_root: str, scale: Scale) -> tuple[dict[str, str], list[str]]:
    """Return the data to train on by the name of the data set, and notes about it."""
    found = find_data(Path(data_root), experiment.data) if data_root else {}
    missing = [name for name in experiment.data if data_root and name not in found]
    notes = [f"{DATASETS[name].title} is not in {data_root}: dashes." for name in missing]
    for note in notes:
        warnings.warn(f"{note} (stochnorm ls datasets says where to get it)", stacklevel=3)
    if scale == "small":
        sets = {name: str(found.get(name, "")) for name in experiment.data if name not in missing}
        folder = out.resolve() / "data"
        return {
            name: str(small_set(name, experiment.score, folder, official)) for name, official in sets.items()
        }, notes
    for name, path in found.items():
        if not verify(path).ok:
            title = DATASETS[name].title
            notes.append(f"{title} in {path} is not the official set: its numbers cannot be compared with the paper's.")
    return {name: str(path) for name, path in found.items()}, notes


def _failed(failures: Sequence[Failure]) -> list[str]:
    """Return one note per reason."""
    reasons: dict[str, list[Failure]] = defaultdict(list)
    for failure in failures:
        reasons[failure.reason].append(failure)
    return [
        f"Failed: {f.variant}, {f.data}, {f.rate:g} %, repeat {f.repeat + 1}"
        + (f" and {len(more)} more" if more else "")
        + f": {reason}"
        for reason, (f, *more) in reasons.items()
    ]


def _places(experiment: Experiment, data: Mapping[str, str], scale: Scale) -> dict[tuple[str, str], Place]:
    """Return the place of a run by its settings `data` and `backbone`."""
    return {
        (path, BACKBONES[backbone] if scale == "small" else backbone): Place(name, backbone)
        for name, path in data.items()
        for backbone in experiment.backbones
    }


def _weights(backbone: str, weights: str) -> str:
    """Return the file for a backbone if `weights` is a folder, else `weights`."""
    if not Path(weights).is_dir():
        return weights
    name = _short(backbone)
    files = sorted(path for path in Path(weights).iterdir() if path.suffix in (".pth", ".pt", ".safetensors"))
    fitting = [path for path in files if path.name.startswith(name)]
    if len(fitting) != 1:
        what = f"{len(fitting)} files" if fitting else "no file"
        raise FileNotFoundError(
            f"{weights}: {what} {name}*.pth or .safetensors; put torchvision's ImageNet weights there"
        )
    return str(fitting[0])


def _short(backbone: str) -> str:
    """Return the name of a backbone without library and tag."""
    return backbone.rpartition("/")[2].partition(".")[0]
