"""Test images: one split a comparison, and none of them is opened before a model is chosen."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stochnorm import DELTAConfig, FinetuneConfig, Grid, Variant, compare, finetune, tune
from stochnorm.data import Row, format_manifest, read_source
from stochnorm.data.manifest import list_manifest
from stochnorm.runs.directory import Run
from stochnorm.training.images import split_rows

VANILLA = Variant("vanilla", {"method": "vanilla"})
_opened: list[str] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None and isinstance(arguments[0], (str, os.PathLike)):
        _opened.append(os.fspath(arguments[0]))


sys.addaudithook(_watch)  # of the interpreter: every file that any library opens by Python


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The files that are opened, in order."""
    files: list[str] = []
    monkeypatch.setattr(sys.modules[__name__], "_opened", files)
    yield files
    monkeypatch.setattr(sys.modules[__name__], "_opened", None)


def of_split(run: Run, split: str) -> set[str]:
    return {row.path for row in list_manifest(run.split, exact=True).rows if row.split == split}


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[FinetuneConfig]:
    """The settings of the runs of a comparison, in place of doing them."""
    found: list[FinetuneConfig] = []
    monkeypatch.setattr(
        "stochnorm.comparison.compare.perform_all", lambda jobs, *_, **__: found.extend(job.config for _, job in jobs)
    )
    return found


def test_all_repetitions_and_rates_have_the_test_images_that_the_search_leaves_alone(
    photos: Path, config: Callable[..., FinetuneConfig], tmp_path: Path, planned: list[FinetuneConfig]
) -> None:
    grid = Grid(config(photos), (VANILLA,), (50.0, 100.0), repeats=3)
    compare(grid, tmp_path, quiet=True)
    searched = next(iter(grid.runs())).config  # what tune_variants searches with
    divided = [split_rows(read_source(photos), run) for run in (searched, *planned)]
    tested = [{row.path for row in rows if row.split == "test"} for rows in divided]
    assert len(planned) == 6
    assert len(tested[0]) == 6
    assert all(test == tested[0] for test in tested)
    trained = {frozenset(row.path for row in rows if row.split == "train") for rows in divided}
    assert len(trained) == 6  # each repetition and rate its own; the search has the first one's


def test_a_comparison_that_an_earlier_version_began_is_continued_as_it_was(
    photos: Path, config: Callable[..., FinetuneConfig], tmp_path: Path, warm_workers: None
) -> None:
    grid = Grid(config(photos, steps=1, eval_every=0), (VANILLA,), repeats=2)
    first, second = (run.config for run in grid.runs())
    names = [grid.directory(run, tmp_path) for run in grid.runs()]
    for settings, path in zip((first, second), names, strict=True):
        finetune(replace(settings, out=str(path)), quiet=True)
    with pytest.warns(UserWarning, match="drew test images for each repetition, and is continued so"):
        comparison = compare(grid, tmp_path, quiet=True)
    assert [tmp_path / record.run for record in comparison.records] == names


def test_an_official_test_split_names_no_other_run(
    photos: Path, config: Callable[..., FinetuneConfig], tmp_path: Path, planned: list[FinetuneConfig]
) -> None:
    """So that comparisons of earlier versions on data with a test split go on."""
    rows = [
        Row(path.relative_to(photos).as_posix(), path.parent.name, "test" if path.stem > "006" else "train")
        for path in sorted(photos.glob("*/*.png"))
    ]
    (photos / "list.csv").write_text(format_manifest(rows))
    grid = Grid(config(photos / "list.csv", steps=1), (VANILLA,), repeats=3)
    compare(grid, tmp_path, quiet=True)
    assert [Path(run.out) for run in planned] == [grid.directory(run, tmp_path) for run in grid.runs()]
    assert {run.test_seed for run in planned} == {None}


WAYS: dict[str, dict[str, Any]] = {
    "select": {"method": "stochnorm", "patience": 1},
    "attention": {"method": "stochnorm+delta", "delta": DELTAConfig(attention_images=8)},
    "probe": {"method": "vanilla", "head": "probe"},
    "target": {"method": "stochnorm", "statistics": "target"},
    "wise": {"method": "wise", "head": "probe"},
    "soup": {"method": "soup", "head": "probe"},
    "auto": {"method": "auto", "budget": "4s"},
}


def check(files: list[str], run: Run, root: Path, rows: list[Row]) -> None:
    """Check that the images that train and validate were opened, and no others."""
    seen = {Path(file) for file in files}
    used = {root / row.path for row in list_manifest(run.split, exact=True).rows}
    assert used <= seen
    assert not seen & ({root / row.path for row in rows} - used)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_that_chooses_opens_a_test_image(
    way: str, photos: Path, config: Callable[..., FinetuneConfig], tmp_path: Path, opened: list[str]
) -> None:
    settings = config(photos, tmp_path / "run", cache="none", steps=4, eval_every=2, **WAYS[way])
    run = Run(finetune(settings, quiet=True, test=False).run)
    rows = [Row(path.relative_to(photos).as_posix(), "") for path in photos.glob("*/*.png")]
    assert of_split(run, "test") == set()
    assert len(rows) - 6 == len(list_manifest(run.split, exact=True).rows)
    check(opened, run, photos.resolve(), rows)


def test_a_search_and_what_chooses_findings_open_no_test_image(
    photos: Path, config: Callable[..., FinetuneConfig], tmp_path: Path, opened: list[str]
) -> None:
    rows = [
        Row(path.relative_to(photos).as_posix(), path.parent.name if int(path.stem) % 4 else "")
        for path in sorted(photos.glob("*/*.png"))
    ]
    (photos / "list.csv").write_text(format_manifest(rows, multi_label=True).replace(",split", "").replace(",\n", "\n"))
    settings = config(photos / "list.csv", tmp_path / "search", cache="none", steps=4, eval_every=2)
    tuned = tune(settings, trials=2, quiet=True)
    (path, *_) = (tuned.path / "trials").glob("*/split.csv")
    check(opened, Run(path.parent), photos.resolve(), rows)


def test_the_model_of_a_run_that_tests_is_that_of_one_that_cannot(
    photos: Path, config: Callable[..., FinetuneConfig], tmp_path: Path
) -> None:
    settings = config(photos, steps=6, eval_every=2, method="stochnorm+delta", patience=1)
    models = [
        finetune(replace(settings, out=str(tmp_path / name)), quiet=True, test=name == "tested").run
        for name in ("tested", "not")
    ]
    assert len({(path / "model.safetensors").read_bytes() for path in models}) == 1
