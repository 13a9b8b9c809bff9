"""Comparisons, searches and figures of an earlier version are read and continued; see tests/fixtures/README.md."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stochnorm import FinetuneConfig, read_records, tune
from stochnorm.cli.main import main
from stochnorm.paper.reproduce import reproduce
from stochnorm.runs.directory import Run
from stochnorm.runs.names import run_name

COMPARE = "compare images --backbone test_efficientnet --weights random --image-size 32 --batch-size 8 --steps 6 "
COMPARE += "--eval-every 2 --precision 32 --device cpu --seeds 2 --workers 1 --out comparison --trials 2 "
COMPARE += "--no-probe --methods vanilla,stochnorm+l2sp:l2sp.beta=0.02"
LABEL = "stochnorm+l2sp, l2sp.beta = 0.02"
pytestmark = pytest.mark.usefixtures("earlier")


def texts(*patterns: str) -> dict[Path, object]:
    """Return the content of files; of JSON without the order of its keys, of settings what results depend on."""
    return {path: content(path) for pattern in patterns for path in Path().glob(pattern)}


def content(path: Path) -> object:
    if path.name == "chosen.json":
        return FinetuneConfig.load(path).result_fields()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    return json.loads(path.read_text()) if path.suffix == ".json" else path.read_bytes()


def test_the_directories_of_comparisons_and_searches_are_named_by_their_settings() -> None:
    named = [path.parent for path in sorted(Path().rglob("config.json")) if path.parent.parent != Path()]
    assert len(named) == 4 + 2 + 4 + 3 + 9  # runs, failures and trials of the comparison; trials; runs of the paper
    for path in named:
        config = FinetuneConfig.load(path / "config.json")
        assert config.out == str(path)
        if path.parts[0] != "paper":  # whose hashes are of the absolute path of its images
            assert run_name(config) == path.name


@pytest.mark.filterwarnings("ignore:.*drew test images for each repetition, and is continued so")
def test_the_same_comparison_runs_nothing(earlier: Callable[..., Any]) -> None:
    done = earlier("comparison/runs/*/*")
    searched = texts("comparison/tune/*/trials.csv", "comparison/tune/*/chosen.json")
    written = texts(
        "comparison/labels.json", "comparison/records.jsonl", "comparison/*.csv", "comparison/*.md", "comparison/*.tex"
    )
    assert len(written) == 6
    assert main(COMPARE.split()) == 0
    assert earlier("comparison/runs/*/*") == done
    assert texts(*map(str, searched)) == searched
    assert texts(*map(str, written)) == written

    records = read_records(["comparison/records.jsonl"])
    assert [record.variant for record in records] == ["vanilla", LABEL] * 2
    assert sum(record.value or 0 for record in records[::2]) == pytest.approx(150)
    found = read_records(["comparison"])
    assert {record.run: record.variant for record in found} == {f"comparison/{r.run}": r.variant for r in records}


def test_the_report_counts_the_runs_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    failed = Run(Path("comparison/runs/images-vanilla-c99788f4"))
    assert failed.state == "failed"
    assert main(["report", "comparison", "finished", "--out", "page.html"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "page.html"
    page = Path("page.html").read_text()
    assert "2 runs in comparison failed, not counted here" in page
    assert "training diverged with lr 1e+30" in page
    rows = csv.DictReader(Path("results.csv").read_text().splitlines())
    means = {row["variant"]: (row["n"], float(row["mean"])) for row in rows}
    assert means == {"vanilla": ("2", 75), LABEL: ("2", pytest.approx(83.3333)), "stochnorm+l2sp": ("1", 50)}


def test_the_same_search_runs_no_trial_and_a_larger_one_runs_one(earlier: Callable[..., Any]) -> None:
    config = replace(FinetuneConfig.load("search/chosen.json"), out="search")
    trials, written = earlier("search/trials/*/*"), texts("search/trials.csv", "search/chosen.json")
    tuned = tune(config, trials=3, quiet=True)
    assert (tuned.trials, tuned.config) == (3, replace(config, out=""))
    assert tuned.value == pytest.approx(83.333333)
    assert earlier("search/trials/*/*") == trials
    assert texts("search/trials.csv", "search/chosen.json") == written

    assert tune(config, trials=4, quiet=True).trials == 4
    lines = Path("search/trials.csv").read_bytes()
    assert lines.startswith(written[Path("search/trials.csv")])
    assert lines.count(b"\n") == 5
    assert {path for path in trials if path.name == "result.json"} < set(Path().glob("search/trials/*/result.json"))


def test_the_records_of_a_figure_of_the_paper_are_read() -> None:
    records = read_records(["paper/figure4b/records.jsonl"])
    assert [record.variant for record in records] == ["vanilla", "alpha = 0.001", "alpha = 0.1"] * 3
    assert {(record.scale, record.value) for record in records} == {("small", 12.5)}
    runs = {record.run: record for record in read_records(["paper"])}
    assert len(runs) == 9
    for record in records:
        path = f"paper/{record.run.removeprefix('../')}"
        assert runs[path] == replace(record, run=path)
    assert main(["report", "paper/figure4b/records.jsonl", "--out", "page.html"]) == 0
    assert "small" in Path("page.html").read_text()
    with pytest.raises(ValueError, match="paper holds runs of small scale, not of paper scale"):
        reproduce("figure4b", scale="paper", data_root=".", out="paper", quiet=True)
