"""A comparison: the runs of a grid that are missing, side by side; and what all of them came to."""

from __future__ import annotations

import json
import time
import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

from stochnorm.comparison.executors import Executor, Job, executor
from stochnorm.comparison.grid import Grid, GridRun, Variant
from stochnorm.comparison.progress import GridProgress
from stochnorm.data import read_source
from stochnorm.files import write_text
from stochnorm.methods.catalogue import concerns
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.directory import Run, data_name, run_name
from stochnorm.runs.interrupt import stop_signal
from stochnorm.runs.records import LABELS, Failure, Record, record_of, write_records

__all__ = ["Comparison", "collect", "compare", "publish", "tune_variants"]

_POLL = 0.5  # seconds between looks at the progress of running jobs
_PATIENCE = 5.0  # seconds before a run that another process holds is tried again


@dataclass(frozen=True)
class Comparison:
    """What a grid came to."""

    path: Path
    """Its directory."""
    records: list[Record]
    """Of the finished runs, in the order of the grid; ``run`` is relative to the directory."""
    failures: list[Failure]


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
    """Do what is missing of a grid, several runs at a time.

    A run lives in ``out/runs/``, named by its settings; what it is, its files say. So the same call does only what is
    missing, a run that was interrupted, by whatever, goes on from its checkpoint, and several calls (of several
    machines, if they share the disk) share the work. A failed run stops no other, and is tried again by the next call.
    Model selection is on validation; the test split is opened once a run.

    Args:
        grid: The runs.
        out: The comparison's directory.
        workers: Runs at a time; 0: one per GPU, without GPUs one per core; of a Ray cluster, what it has room for.
        threads: CPU threads of each process; 0: the cores shared out.
        processes: That share each run, by torchrun.
        executor_name: local, or ray.
        scale: Recorded: what makes the runs no real experiment, such as ``small``.
        quiet: Show nothing.

    Raises:
        ValueError: Settings that cannot work.
        ModuleNotFoundError: The executor's package is not installed.
        KeyboardInterrupt: Stopped; running ones wrote checkpoints, and the same call goes on.

    Example:
        >>> grid = Grid(FinetuneConfig("photos/"), (Variant("vanilla", {"method": "vanilla"}),), repeats=5)
        >>> compare(grid, "runs/photos").records[0].value  # doctest: +SKIP
        87.5
    """
    out = Path(out)
    runs = list(grid.runs())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the runs warn of the same
        for data in dict.fromkeys(run.config.data for run in runs):
            read_source(data)  # what is wrong with it is said once, not by every run
    _write_labels(out, grid, runs, scale)
    jobs: dict[str, tuple[str, Job]] = {}
    for run in runs:
        path = grid.directory(run, out)
        title = f"{run.variant}, {run.config.rate:g} %, repeat {run.repeat + 1}"
        config = replace(run.config, out=str(path), report=False)
        jobs.setdefault(path.name, (title, Job(config, processes=processes)))
    places = {"workers": workers, "threads": threads, "processes": processes, "logs": out / "logs"}
    _perform(list(jobs.values()), executor_name, places, quiet, "runs")
    return collect(grid, out, scale=scale)


def collect(grid: Grid, out: Path, *, scale: str = "") -> Comparison:
    """What there is of a grid by now, finished and failed."""
    records, failures = [], []
    for run in grid.runs():
        path = grid.directory(run, out)
        files, name = Run(path), f"runs/{path.name}"
        if files.result.is_file():
            records.append(record_of(files, run.variant, name, scale))
        elif files.failure.is_file():
            reason = json.loads(files.failure.read_text(encoding="utf-8"))["reason"]
            config = run.config
            data = data_name(config.data)
            failures.append(Failure(run.variant, data, config.backbone, config.rate, run.repeat, name, reason))
    return Comparison(out, records, failures)


def publish(comparison: Comparison, *, title: str = "", reference: str = "vanilla") -> list[Path]:
    """Write ``records.jsonl``, tables (Markdown, LaTeX, CSV), a picture and ``report.html`` into its directory.

    Args:
        comparison: With at least one finished run.
        title: Of the report; empty: made of what was compared.
        reference: The variant that others are compared with.

    Returns:
        The files.
    """
    from stochnorm.report import write_report
    from stochnorm.report.plot import plot_comparison
    from stochnorm.report.tables import write_tables

    out, records = comparison.path, comparison.records
    files = [out / "records.jsonl", out / "report.html", out / "results.png", out / "results.svg"]
    write_records(files[0], records)
    plot_comparison(records, out / "results", reference)
    write_report(records, files[1], root=out, title=title, failures=comparison.failures, reference=reference)
    return [*files, *write_tables(records, out, reference=reference)]


def tune_variants(
    grid: Grid,
    out: str | Path,
    *,
    trials: int,
    workers: int = 0,
    threads: int = 0,
    executor_name: str = "local",
    quiet: bool = False,
) -> Grid:
    """The grid with hyper-parameters that a search on validation chose for each variant, all with the same budget.

    Learning rate, strengths and p (:func:`stochnorm.tuning.tune.search_space`), on the first data set and backbone at
    the smallest rate, with the images of the first repetition; no test image is read. Searches live in ``out/tune/``
    and go on where they stopped.

    Args:
        grid: Of one data set and one backbone.
        out: The comparison's directory.
        trials: Of each search; the first is the variant's own settings.
        workers: Searches at a time; as for :func:`compare`, like the rest.

    Raises:
        ValueError: The grid has several data sets or backbones; or a search came to nothing (says why).
    """
    from stochnorm.tuning.tune import searched

    if len(grid.data) > 1 or len(grid.backbones) > 1:
        raise ValueError("hyper-parameters are chosen for one data set and one backbone; tune several grids, one each")
    out = Path(out)
    smallest = replace(grid, rates=(min(grid.rates),) if grid.rates else (), repeats=1)
    configs = {run.variant: run.config for run in smallest.runs()}
    paths = {label: out / "tune" / run_name(config) for label, config in configs.items()}
    jobs = [
        (f"search for {label}", Job(replace(config, out=str(paths[label]), report=False), trials=trials))
        for label, config in configs.items()
    ]
    places = {"workers": workers, "threads": threads, "processes": 1, "logs": out / "logs"}
    reasons = _perform(jobs, executor_name, places, quiet, "searches")
    if reasons:
        raise ValueError(f"{len(reasons)} searches failed; {reasons[0]}")
    variants = []
    for variant in grid.variants:
        chosen = FinetuneConfig.load(paths[variant.label] / "chosen.json")
        found = {name: value for name, value in searched(chosen).items() if concerns(name, chosen.method)}
        variants.append(Variant(variant.label, {**variant.settings, **found}))
    return replace(grid, variants=tuple(variants))


def _perform(
    jobs: Sequence[tuple[str, Job]], executor_name: str, places: dict[str, Any], quiet: bool, what: str
) -> list[str]:
    """Do the jobs that are not done; the reasons of those that failed."""
    todo = deque((title, job) for title, job in jobs if job.trials or not Run.of(job.config).result.is_file())
    with GridProgress(len(jobs), len(jobs) - len(todo), what, quiet=quiet) as progress:
        if not todo:
            return []
        workers = executor(executor_name, **places)
        try:
            with stop_signal() as stop:
                reasons = _drain(todo, workers, progress, stop)
            if stop.is_set():
                progress.stopping()
        finally:
            workers.close()
        if stop.is_set():
            raise KeyboardInterrupt(f"stopped after {progress.done} of {progress.total} {what}; nothing is lost")
        return reasons


def _drain(todo: deque[tuple[str, Job]], workers: Executor, progress: GridProgress, stop: Event) -> list[str]:
    """Hands out jobs until all have ended or a stop is asked for."""
    titles: dict[Job, str] = {}
    warned: set[str] = set()
    held: dict[Job, float] = {}  # when to try again what another process works on
    reasons = []
    while (todo or titles) and not stop.is_set():
        while todo and len(titles) < workers.slots and held.get(todo[0][1], 0.0) <= time.monotonic():
            title, job = todo.popleft()
            titles[job] = title
            workers.start(job)
            progress.started(title, job)
        if not titles:  # all that is left is held by other processes
            time.sleep(_POLL)
            continue
        for job, outcome in workers.wait(_POLL):
            title = titles.pop(job)
            if outcome.state in ("busy", "stopped"):
                held[job] = time.monotonic() + _PATIENCE
                todo.append((title, job))
            if outcome.state == "failed":
                reasons.append(f"{title}: {outcome.reason}")
            progress.ended(title, job, outcome)
            for warning in outcome.warnings:
                if warning not in warned:  # once, not by every run
                    warned.add(warning)
                    warnings.warn(warning, stacklevel=2)
        progress.look()
    return reasons


def _write_labels(out: Path, grid: Grid, runs: Sequence[GridRun], scale: str) -> None:
    """What tables call the runs, for those who later give the directory to ``stochnorm report``."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / LABELS
    try:
        labels = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # none yet, or damaged, which this mends
        labels = {}
    labels |= {grid.directory(run, out).name: run.variant for run in runs} | {"": scale}
    write_text(file, json.dumps(labels, indent=2) + "\n")
