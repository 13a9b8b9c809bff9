"""Choose the settings of each variant of a grid on validation images."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from stochnorm.comparison.executors import Job, executor
from stochnorm.comparison.grid import Grid, Variant
from stochnorm.comparison.queue import perform_all
from stochnorm.methods.catalogue import concerns, trains
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.names import run_name
from stochnorm.tuning.space import searched, strengths

__all__ = ["tune_variants"]


def tune_variants(
    grid: Grid,
    out: str | Path,
    *,
    trials: int,
    only_strengths: bool = False,
    workers: int = 0,
    threads: int = 0,
    executor_name: str = "local",
    quiet: bool = False,
) -> Grid:
    """Return the grid with settings that a search on validation images chose for each variant, with equal budgets.

    The search covers learning rate, strengths and p ([stochnorm.tuning.space.search_space][]) at the smallest rate,
    with the images of the first repetition. It reads no test image: those of the first repetition are those of all
    ([stochnorm.compare][]). Searches live in `out/tune/`; the same call resumes
    them.

    Args:
        grid: A grid of one data set and one backbone.
        out: Directory of the comparison.
        trials: Trials per search; the first one has the variant's own settings.
        only_strengths: Leave the learning rate and p as they are; methods without strengths are not searched for.
        workers: Searches at a time, as in [stochnorm.compare][]; so are the other arguments.

    Raises:
        ValueError: The grid has several data sets or backbones, or a search failed.
    """
    if len(grid.data) > 1 or len(grid.backbones) > 1:
        raise ValueError(
            f"a search needs one data set and one backbone, got {len(grid.data) or 1} and {len(grid.backbones) or 1}; "
            "tune one grid for each"
        )
    out = Path(out)
    smallest = replace(grid, rates=(min(grid.rates),) if grid.rates else (), repeats=1)
    configs = {run.variant: run.config for run in smallest.runs()}
    paths = {label: out / "tune" / run_name(config) for label, config in configs.items()}
    paths = {label: path for label, path in paths.items() if _has_search(configs[label].method, only_strengths)}
    jobs = [
        (
            f"search for {label}",
            Job(replace(config, out=str(paths[label]), report=False), trials, strengths=only_strengths),
        )
        for label, config in configs.items()
        if label in paths
    ]
    start = partial(executor, executor_name, workers=workers, threads=threads, processes=1, logs=out / "logs")
    reasons = perform_all(jobs, start, what="searches", quiet=quiet)
    if reasons:
        raise ValueError(f"{len(reasons)} of {len(jobs)} searches failed; {reasons[0]}")
    variants = []
    for variant in grid.variants:
        if variant.label not in paths:
            variants.append(variant)
            continue
        chosen = FinetuneConfig.load(paths[variant.label] / "chosen.json")
        found = {name: value for name, value in searched(chosen).items() if concerns(name, chosen.method)}
        variants.append(Variant(variant.label, {**variant.settings, **found}))
    return replace(grid, variants=tuple(variants))


def _has_search(method: str, only_strengths: bool) -> bool:
    return bool(strengths(method)) if only_strengths else trains(method)
