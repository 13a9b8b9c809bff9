"""The small scale: its image sets, and every variant of every experiment once."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import pytest

from stochnorm.cli.main import main
from stochnorm.data import read_source
from stochnorm.paper.catalogue import EXPERIMENTS
from stochnorm.paper.small import NOTE, small_set
from stochnorm.runs.records import read_records
from stochnorm.runs.scores import MEAN_AUC, TOP1, Score


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.parametrize(("name", "score"), [("cub", TOP1), ("aircraft", TOP1), ("chestxray14", MEAN_AUC)])
def test_generated_sets_have_the_shape_of_the_official_ones(name: str, score: Score, tmp_path: Path) -> None:
    path = small_set(name, score, tmp_path)
    source = read_source(path)
    assert source.multi_label == (name == "chestxray14")
    assert {row.split for row in source.rows} == {"train", "test"} | ({"val"} if name == "aircraft" else set())
    assert any(row.group for row in source.rows) == source.multi_label
    before = path.stat().st_mtime_ns
    assert small_set(name, score, tmp_path) == path
    assert path.stat().st_mtime_ns == before


@pytest.mark.filterwarnings("ignore:.*is not the official set")
@pytest.mark.parametrize(("name", "score", "folder"), [("cub", TOP1, "CUB_100"), ("chestxray14", MEAN_AUC, "NIH_1000")])
def test_a_few_official_images_are_copied(name: str, score: Score, folder: str, tmp_path: Path, shared: Path) -> None:
    path = small_set(name, score, tmp_path, str(shared / "data" / folder))
    source = read_source(path)
    assert path.name == f"{folder}-small.csv"
    assert 100 < len(source.rows) < 600
    assert {row.split for row in source.rows} == {"train", "test"}
    assert len(source.classes) == (8 if name == "cub" else 3)
    assert source.classes[0] == ("001.Black_footed_Albatross" if name == "cub" else source.classes[0])


@pytest.fixture(scope="module")
def small_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by all, in whichever process, so that what two want is made once."""
    root = tmp_path_factory.getbasetemp()
    return (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "paper"


@pytest.mark.usefixtures("warm_workers")
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_variant_runs_at_the_smallest_size(
    name: str, small_out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole command: data, training, test, table, figure; of several rates, at the first and the last."""
    rates = EXPERIMENTS[name].rates
    experiment = replace(EXPERIMENTS[name], rates=tuple(dict.fromkeys((rates[0], rates[-1]))))
    monkeypatch.setitem(EXPERIMENTS, name, experiment)
    arguments = ["--scale", "small", "--repeats", "1", "--workers", "1", "--out", str(small_out)]
    assert main(["paper", name, *arguments]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "no result" in printed
    rows = rows_of(small_out / name / f"{name}.csv")
    assert len(rows) == experiment.runs / experiment.repeats
    assert all(row["n"] == "1" and row["mean"] and row["scale"] == "small" for row in rows)
    assert any(row["difference"] for row in rows) == (not experiment.figure)
    assert (small_out / name / f"{name}.md").read_text().startswith(f"# {experiment.title} ({NOTE})")
    records = read_records([small_out / name / "records.jsonl"])
    assert {each.scale for each in records} == {"small"}
    assert all((small_out / name / each.run / "result.json").is_file() for each in records)
    assert {suffix for suffix in (".png", ".svg") if (small_out / name / f"{name}{suffix}").is_file()} == (
        {".png", ".svg"} if experiment.figure else set()
    )
