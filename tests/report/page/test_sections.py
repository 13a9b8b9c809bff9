"""The content of the page: the numbers of the records, curves, mistakes, settings, failures."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from stochnorm import L2SPConfig
from stochnorm.report.page.analysis import class_scores, confusion
from stochnorm.report.page.render import format_report
from stochnorm.report.statistics import differences, tied_with_best
from stochnorm.runs.directory import Run
from stochnorm.runs.predictions import read_predictions
from stochnorm.runs.records import Failure, Record

Rows = dict[tuple[str, str], tuple[str, list[str]]]


def test_the_numbers_of_a_comparison_are_the_records(
    comparison: list[Record], tmp_path: Path, embedded: Callable[[str, str], Any], rows: Callable[[str], Rows]
) -> None:
    page = format_report(comparison, root=tmp_path / "grid")
    table = rows(page)
    assert len(table) == 6
    gains = {(f"{d.cell.rate:g}", d.variant): d for d in differences(comparison)}
    for (rate, variant), (_, cells) in table.items():
        values = [r.value for r in comparison if (f"{r.rate:g}", r.variant) == (rate, variant)]
        assert float(cells[2]) == pytest.approx(fmean(v for v in values if v is not None))
        assert int(cells[4]) == len(values) == 5
        if variant != "vanilla":
            assert float(cells[5]) == pytest.approx(gains[rate, variant].mean)
            assert float(cells[6]) == pytest.approx(gains[rate, variant].interval[0])  # type: ignore[index]
            assert float(cells[7]) == pytest.approx(gains[rate, variant].p_holm)
    traces = {t["name"]: t["y"] for t in embedded(page, "figures")["accuracy-0"]["data"]}
    assert traces["stochnorm"] == pytest.approx([float(table[rate, "stochnorm"][1][2]) for rate in ("15", "50")])


def test_the_best_and_the_tied_are_marked(
    comparison: list[Record], tmp_path: Path, rows: Callable[[str], Rows]
) -> None:
    table = rows(format_report(comparison, root=tmp_path / "grid"))
    for cell, tied in tied_with_best(comparison).items():
        marks = {variant: mark for (rate, variant), (mark, _) in table.items() if float(rate) == cell.rate}
        assert {variant for variant, mark in marks.items() if mark} == tied
        assert Counter(marks.values())["best"] == 1


def test_the_page_of_one_run_is_about_that_run(
    single: Callable[..., Record], tmp_path: Path, words: Callable[[str], str], embedded: Callable[[str, str], Any]
) -> None:
    record = single()
    page = format_report([record], root=tmp_path / "grid")
    assert record.test is not None
    low, high = record.test["top1_interval"]
    assert f"{record.value:.1f} % top-1 accuracy on 30 test images (95 % interval {low:.1f} to {high:.1f})" in words(
        page
    )
    assert set(embedded(page, "figures")) == {
        f"run-0-{x}" for x in ("loss", "score", "classes", "confusion", "calibration")
    }
    assert not any(word in words(page) for word in ("mean rank", "Holm", "AUC"))  # of comparisons, of findings
    curves = embedded(page, "figures")["run-0-score"]["data"]
    assert [t["name"] for t in curves[:2]] == ["training", "validation"]
    assert curves[1]["x"] == list(range(25, 301, 25))
    mistakes = re.findall(r'<p class="said">', page)
    assert len(mistakes) == len(embedded(page, "thumbnails")) == min(12, round(30 * (1 - record.value / 100)))  # type: ignore[operator]


def test_each_class_has_precision_recall_and_f1(single: Callable[..., Record], tmp_path: Path) -> None:
    record = single()
    page = format_report([record], root=tmp_path / "grid")
    table = page.partition("Precision, recall and F1 of each class")[2].partition("</details>")[0]
    found = [re.findall(r'<td data-v="([^"]*)"', row) for row in table.split("<tr>")[2:]]
    predictions = read_predictions(Run(tmp_path / "grid" / record.run).predictions, multi_label=False)
    wanted = class_scores(confusion(predictions), predictions.classes)
    assert [[float(value) for value in row] for row in found] == [
        [s.images, s.precision, s.value, s.f1] for s in wanted
    ]


def test_without_a_test_split_it_says_so(
    single: Callable[..., Record], tmp_path: Path, words: Callable[[str], str], rows: Callable[[str], Rows]
) -> None:
    records = [single(test=False, settings={"method": method}) for method in ("vanilla", "stochnorm")]
    one = words(format_report(records[:1], root=tmp_path / "grid"))
    assert "there was no test split" in one
    assert "No test split, so no test predictions." in one
    both = format_report(records, root=tmp_path / "grid")
    assert "No run has a test split: these are validation scores, which also chose the checkpoints" in words(both)
    assert float(rows(both)["100", "vanilla"][1][2]) == pytest.approx(records[0].validation["top1"])


def test_runs_without_a_test_among_others_count_for_nothing(
    comparison: list[Record], single: Callable[..., Record], tmp_path: Path, words: Callable[[str], str]
) -> None:
    page = words(format_report([*comparison, single(test=False)], root=tmp_path / "grid"))
    assert "1 of 31 runs have no test split and are left out of the tables." in page


@pytest.mark.parametrize(
    ("file", "note", "lost"),
    [
        ("test_predictions.csv", "test_predictions.csv is missing or damaged", "confusion"),
        ("metrics.jsonl", "metrics.jsonl is missing or damaged: no curves", "loss"),
    ],
)
def test_what_a_damaged_file_held_is_left_out_with_a_word(
    file: str,
    note: str,
    lost: str,
    single: Callable[..., Record],
    tmp_path: Path,
    words: Callable[[str], str],
    embedded: Callable[[str, str], Any],
) -> None:
    record = single()
    (tmp_path / "grid" / record.run / file).write_text("path,what\n{")
    page = format_report([record], root=tmp_path / "grid")
    assert note in words(page)
    assert f"run-0-{lost}" not in embedded(page, "figures")


def test_mistakes_are_named_where_the_images_are_gone(
    single: Callable[..., Record],
    photos: Path,
    tmp_path: Path,
    words: Callable[[str], str],
    embedded: Callable[[str, str], Any],
) -> None:
    record = single()
    shutil.rmtree(photos)
    page = format_report([record], root=tmp_path / "grid")
    assert "The images are no longer in" in words(page)
    assert embedded(page, "thumbnails") == []
    assert re.search(r'<div class="photo"><span>\w+/\d+\.png</span>', page)


def test_an_image_that_cannot_be_read_is_named(
    single: Callable[..., Record], photos: Path, tmp_path: Path, embedded: Callable[[str, str], Any]
) -> None:
    record = single(skill=0.1)
    for path in photos.glob("red/*"):
        path.write_bytes(b"no image")
    page = format_report([record], root=tmp_path / "grid")
    names = re.findall(r'<div class="photo"><span>(\w+)/\d+\.png</span>', page)
    assert set(names) == {"red"}
    assert embedded(page, "thumbnails")


def test_several_labels_have_findings_and_no_confusion(
    single: Callable[..., Record], tmp_path: Path, words: Callable[[str], str], embedded: Callable[[str, str], Any]
) -> None:
    record = single(multi_label=True, skill=0.8)
    page = format_report([record], root=tmp_path / "grid")
    figures = embedded(page, "figures")
    assert "run-0-confusion" not in figures
    assert "AUC per finding" in words(page)
    result = json.loads((tmp_path / "grid" / record.run / "result.json").read_text())
    shown = figures["run-0-classes"]["data"][0]
    assert shown["x"] == sorted(result["test"]["per_class"])
    assert f"{record.value:.1f} % mean AUC" in words(page)
    assert re.search(r'<p class="said">.*?</p>', page, re.S)


def test_the_first_repeat_of_each_method_is_shown_and_the_rule_is_said(
    comparison: list[Record], tmp_path: Path, words: Callable[[str], str]
) -> None:
    page = format_report(comparison, root=tmp_path / "grid")
    assert page.count('<article class="run"') == 6
    assert "The first repeat of each method is shown." in words(page)


def test_a_method_that_ranks_best_and_scores_less_is_not_said_to_gain(
    single: Callable[..., Record], tmp_path: Path, words: Callable[[str], str]
) -> None:
    """It wins two repeats of three by a little, and loses the third by much."""
    scores = {"vanilla": (50.0, 50.0, 50.0), "bss": (51.0, 51.0, 20.0)}
    records = []
    for method, values in scores.items():
        for seed, value in enumerate(values):
            record = single(settings={"method": method, "seed": seed, "data_seed": seed})
            records.append(replace(record, test={**(record.test or {}), "top1": value}))
    text = words(format_report(records, root=tmp_path / "grid"))
    assert "bss ranks best (mean rank 1.33 of 2 methods), but its mean is below that of vanilla" in text
    assert "it loses 9.3 points on average, so it is not shown to be better." in text
    assert "mean rank 1.33 of 2, but its mean is below that of vanilla" in text
    assert "Difference to vanilla \N{MINUS SIGN}9.3" in text
    assert not re.search("gains?|Gain over vanilla", text[: text.index("Results Test score")])


def test_failures_are_listed_with_their_reasons(
    comparison: list[Record], tmp_path: Path, words: Callable[[str], str]
) -> None:
    failure = Failure("delta", "photos", "net", 15.0, 2, "runs/x", "the loss is <nan> at step 3")
    page = format_report(comparison, root=tmp_path / "grid", failures=[failure])
    assert "delta photos net 15 % 3 the loss is <nan> at step 3" in words(page)
    assert "the loss is &lt;nan&gt;" in page
    alone = words(format_report([], root=tmp_path, failures=[failure]))
    assert "No run is finished" in alone


def test_without_the_reference_gains_are_left_out_with_a_word(
    comparison: list[Record], tmp_path: Path, words: Callable[[str], str], embedded: Callable[[str, str], Any]
) -> None:
    page = format_report(comparison, root=tmp_path / "grid", reference="delta")
    assert "There is no run of delta, so gains over it are left out." in words(page)
    assert "gain-0" not in embedded(page, "figures")


def test_what_all_runs_share_and_what_differs_is_told_apart(
    single: Callable[..., Record], tmp_path: Path, words: Callable[[str], str]
) -> None:
    settings = [{"method": "stochnorm", "p": p, "seed": seed} for p in (0.3, 0.5) for seed in (0, 1)]
    records = [single(settings=s, variant=f"p = {s['p']}") for s in settings]
    page = format_report(records, root=tmp_path / "grid", reference="p = 0.5")
    text = words(page)
    assert "Settings that differ method p p = 0.5 0.5 p = 0.3 0.3 Settings that all runs share method stochnorm" in text
    assert not re.search(r"Settings that all runs share.* seed 0", text)


def test_a_setting_of_another_method_is_left_blank(
    single: Callable[..., Record], tmp_path: Path, words: Callable[[str], str]
) -> None:
    settings: list[dict[str, Any]] = [
        {"method": "vanilla"},
        {"method": "l2sp", "l2sp": L2SPConfig(0.17320508)},
        {"method": "bss", "lr": 0.01},
    ]
    records = [single(variant=s["method"], settings=s) for s in settings]
    text = words(format_report(records, root=tmp_path / "grid"))
    assert (
        "Settings that differ method lr l2sp.alpha vanilla 0.003 \N{EN DASH} l2sp 0.003 0.1732 bss 0.01 \N{EN DASH}"
        in text
    )
