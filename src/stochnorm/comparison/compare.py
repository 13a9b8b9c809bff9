"""Do the missing runs of a grid and collect the results of all of them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from stochnorm.comparison.executors import Job, executor
from stochnorm.comparison.grid import Grid, GridRun
from stochnorm.comparison.queue import perform_all
from stochnorm.data import Source, read_source
from stochnorm.files import refuse_url, write_text
from stochnorm.kinds import read_json
from stochnorm.outputs import PAGE, PICTURE, TABLES, Output
from stochnorm.runs.directory import Run
from stochnorm.runs.images import check_images
from stochnorm.runs.kinds import FailureKind
from stochnorm.runs.names import data_name
from stochnorm.runs.records import LABELS, Failure, Record, record_of
from stochnorm.text import some

__all__ = ["Comparison", "collect", "compare"]


@dataclass(frozen=True)
class Comparison:
    """The results of a grid."""

    path: Path
    """Directory of the comparison."""
    records: list[Record]
    """Finished runs, in the order of the grid; `run` is relative to the directory."""
    failures: list[Failure]
    """Failed runs, in the order of the grid."""

    def check(self) -> None:
        """Raise ValueError if a run failed; the message has the count and the first reason."""
        if self.failures:
            total = len(self.failures) + len(self.records)
            raise ValueError(f"{len(self.failures)} of {total} runs failed: {self.failures[0].reason}")


def compare(
    grid: Grid,
    out: str | Path,
    *,
    workers: int = 0,
    threads: int = 0,
    processes: int = 1,
    executor_name: str = "local",
    scale: str = "",
    quiet: bool = False,
) -> Comparison:
    """Do the missing runs of a grid, several at a time.

    A run is a directory in `out/runs/`, named by its settings; its files are its state. The same call does only the
    missing runs and resumes interrupted runs from their checkpoints. Several calls, also on several machines that share
    the disk, share the work. A failed run does not stop the others; the next call tries it again. Models are selected
    on validation images; each run scores its test images once.

    Data without a test split get one, drawn once for all repetitions and rates.

    Args:
        grid: The runs.
        out: Directory of the comparison.
        workers: Runs at a time; 0: one per GPU, up to four if they are small (see
            [stochnorm.comparison.executors.shares.runs_per_gpu][]), or one per core without GPUs; on Ray, as many as
            the cluster has room for.
        threads: CPU threads per process; 0: an equal share of the cores.
        processes: Processes per run (torchrun).
        executor_name: `local` or `ray`.
        scale: Label for runs that are no real experiment, such as `small`; written into the records.
        quiet: Print nothing.

    Raises:
        ValueError: Settings that cannot work, or images that have changed since the first runs.
        FileExistsError: The directory holds files that would be written over, and no comparison.
        ModuleNotFoundError: The executor's package is not installed.
        KeyboardInterrupt: Stopped. Running jobs wrote checkpoints; the same call resumes.

    Example:
        >>> from stochnorm import FinetuneConfig, Grid, Variant
        >>> grid = Grid(FinetuneConfig("photos/"), (Variant("vanilla", {"method": "vanilla"}),), repeats=5)
        >>> compare(grid, "runs/photos").records[0].value  # doctest: +SKIP
        87.5
    """
    out = Path(out)
    _check_place(out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # each run gives the same warnings
        # Here, so that an error in the data is raised once, not by every run.
        sources = {data: read_source(data) for data in grid.data or (grid.base.data,)}
    grid = _with_one_test(grid, out, [data for data, source in sources.items() if not _has_test(source)])
    runs = list(grid.runs())
    for run in runs:
        finished = Run(grid.directory(run, out))
        if finished.result.is_file():
            check_images(finished, sources[run.config.data].root)
    _write_labels(out, grid, runs, scale)
    jobs: dict[str, tuple[str, Job]] = {}
    for run in runs:
        path = grid.directory(run, out)
        title = f"{run.variant}, {run.config.rate:g} %, repeat {run.repeat + 1}"
        config = replace(run.config, out=str(path), report=False)
        jobs.setdefault(path.name, (title, Job(config, processes=processes)))
    start = partial(executor, executor_name, workers=workers, threads=threads, processes=processes, logs=out / "logs")
    perform_all(list(jobs.values()), start, what="runs", quiet=quiet)
    return collect(grid, out, scale=scale)


def _check_place(out: Path) -> None:
    """Raise an error where tables or pictures of something else would be written over, or for a URL."""
    refuse_url(out)
    if (out / LABELS).is_file():
        return
    kinds = {"report.html": PAGE, "results.png": PICTURE, "results.svg": PICTURE, **TABLES}
    there = [name for name in ("records.jsonl", *kinds) if (out / name).exists()]
    if (out / "runs").is_dir():  # an earlier version's comparison, or the folder of other runs
        there = [name for name in there if name in kinds and not Output(out / name, kinds[name]).ours]
    if there:
        raise FileExistsError(f"{out} holds {some(there)}, and no comparison; choose another out (--out)")


def collect(grid: Grid, out: Path, *, scale: str = "") -> Comparison:
    """Return the finished and the failed runs of a grid."""
    records, failures = [], []
    for run in grid.runs():
        path = grid.directory(run, out)
        files, name = Run(path), f"runs/{path.name}"
        if files.result.is_file():
            records.append(record_of(files, run.variant, name, scale))
        elif files.failure.is_file():
            reason = read_json(files.failure, FailureKind, "remove it")["reason"]
            config = run.config
            data = data_name(config.data)
            failures.append(Failure(run.variant, data, config.backbone, config.rate, run.repeat, name, reason))
    return Comparison(out, records, failures)


def _has_test(source: Source) -> bool:
    return any(row.split == "test" for row in source.rows)


def _with_one_test(grid: Grid, out: Path, drawn: Sequence[str]) -> Grid:
    """Return the grid with one test split for each data set that has none, whatever repetition draws it.

    A directory that an earlier version began, with test images for each repetition, is continued as it was.
    """
    if grid.base.split_lists or not grid.base.test_fraction:
        return grid
    once = replace(grid, one_test=tuple(drawn))
    changed = [before for before, now in zip(grid.runs(), once.runs(), strict=True) if before.config != now.config]
    if any(grid.directory(run, out).is_dir() for run in changed):
        warnings.warn(
            f"{out} was begun by a version that drew test images for each repetition, and is continued so; a search "
            "(--trials) may have trained on test images of later ones: choose another --out for one test split",
            stacklevel=3,
        )
        return grid
    return once


def _write_labels(out: Path, grid: Grid, runs: Sequence[GridRun], scale: str) -> None:
    """Write what tables call the runs, for a later `stochnorm report` of the directory."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / LABELS
    try:
        labels = read_json(file, dict[str, str], "")
    except (FileNotFoundError, ValueError):  # none yet, or damaged, which this repairs
        labels = {}
    labels |= {grid.directory(run, out).name: run.variant for run in runs} | {"": scale}
    write_text(file, json.dumps(labels, indent=2) + "\n")
