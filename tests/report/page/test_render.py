"""What the page says: the records' numbers, bounded details, text that stays text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

import stochnorm.report.page.render
from stochnorm.plotting import PALETTE
from stochnorm.report import report, write_report
from stochnorm.report.page.cases import MOST, choose
from stochnorm.report.page.glossary import GLOSSARY, glossary
from stochnorm.report.page.render import format_report
from stochnorm.report.page.sections import RUN_SECTIONS, SECTIONS
from stochnorm.report.statistics import differences, tied_with_best
from stochnorm.runs.config import L2SPConfig
from stochnorm.runs.records import Failure, Record, read_records, write_records

HOSTILE = "<script>alert(1)</script> \"quotes\" 'too' {{ 7 * 7 }} %{x}"


def embedded(page: str, name: str) -> Any:
    """The data of the page's script."""
    (text,) = re.findall(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.S)
    return json.loads(text)


def words(page: str) -> str:
    """What a reader sees, on one line."""
    body = re.sub(r"<(script|style)\b.*?</\1>", "", page[page.index("<body>") :], flags=re.S)
    return " ".join(unescape(re.sub(r"<wbr>", "", re.sub(r"<(?!wbr>)[^>]+>", " ", body))).split())


def rows(page: str) -> dict[tuple[str, str], tuple[str, list[str]]]:
    """Of the table of all results: by rate and method the mark and the cells' values."""
    row = r'<tr data-data="\w+" data-rate="(\S+)" data-variant="([^"]+)" data-mark="(\w*)">(.*?)</tr>'
    return {
        (rate, variant): (mark, [_rounded(value) for value in re.findall(r'data-v="([^"]*)"', cells)])
        for rate, variant, mark, cells in re.findall(row, page, re.S)
    }


def _rounded(value: str) -> str:
    return f"{float(value):.9f}" if re.fullmatch(r"-?\d+\.\d+(e-\d+)?", value) else value


def test_the_numbers_of_a_comparison_are_the_records(comparison: list[Record], tmp_path: Path) -> None:
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


def test_the_best_and_the_tied_are_marked(comparison: list[Record], tmp_path: Path) -> None:
    table = rows(format_report(comparison, root=tmp_path / "grid"))
    for cell, tied in tied_with_best(comparison).items():
        marks = {variant: mark for (rate, variant), (mark, _) in table.items() if float(rate) == cell.rate}
        assert {variant for variant, mark in marks.items() if mark} == tied
        assert Counter(marks.values())["best"] == 1


def test_the_page_of_one_run_is_about_that_run(single: Callable[..., Record], tmp_path: Path) -> None:
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


def test_without_a_test_split_it_says_so(single: Callable[..., Record], tmp_path: Path) -> None:
    records = [single(test=False, settings={"method": method}) for method in ("vanilla", "stochnorm")]
    one = words(format_report(records[:1], root=tmp_path / "grid"))
    assert "there was no test split" in one
    assert "There was no test split, so there are no test predictions." in one
    both = format_report(records, root=tmp_path / "grid")
    assert "No run has a test split, so the scores here are those of the validation images" in words(both)
    assert float(rows(both)["100", "vanilla"][1][2]) == pytest.approx(records[0].validation["top1"])


def test_runs_without_a_test_among_others_count_for_nothing(
    comparison: list[Record], single: Callable[..., Record], tmp_path: Path
) -> None:
    page = words(format_report([*comparison, single(test=False)], root=tmp_path / "grid"))
    assert "1 of 31 runs have no test split and count for nothing in the tables." in page


def test_records_whose_directories_are_gone_still_make_a_page(comparison: list[Record], tmp_path: Path) -> None:
    page = format_report(comparison, root=tmp_path / "elsewhere")
    assert len(rows(page)) == 6
    assert "is gone or damaged, so curves and predictions are missing" in words(page)
    assert set(embedded(page, "figures")) == {"accuracy-0", "gain-0"}


@pytest.mark.parametrize(
    ("file", "note", "lost"),
    [
        ("test_predictions.csv", "test_predictions.csv is gone or damaged", "confusion"),
        ("metrics.jsonl", "metrics.jsonl is gone or damaged: no curves", "loss"),
    ],
)
def test_what_a_damaged_file_held_is_left_out_with_a_word(
    file: str, note: str, lost: str, single: Callable[..., Record], tmp_path: Path
) -> None:
    record = single()
    (tmp_path / "grid" / record.run / file).write_text("path,what\n{")
    page = format_report([record], root=tmp_path / "grid")
    assert note in words(page)
    assert f"run-0-{lost}" not in embedded(page, "figures")


def test_mistakes_are_named_where_the_images_are_gone(
    single: Callable[..., Record], photos: Path, tmp_path: Path
) -> None:
    record = single()
    shutil.rmtree(photos)
    page = format_report([record], root=tmp_path / "grid")
    assert "The images are no longer in" in words(page)
    assert embedded(page, "thumbnails") == []
    assert re.search(r'<div class="photo"><span>\w+/\d+\.png</span>', page)


def test_an_image_that_cannot_be_read_is_named(single: Callable[..., Record], photos: Path, tmp_path: Path) -> None:
    record = single(skill=0.1)
    for path in photos.glob("red/*"):
        path.write_bytes(b"no image")
    page = format_report([record], root=tmp_path / "grid")
    names = re.findall(r'<div class="photo"><span>(\w+)/\d+\.png</span>', page)
    assert set(names) == {"red"}
    assert embedded(page, "thumbnails")


def test_an_image_stands_in_the_page_once(comparison: list[Record], tmp_path: Path) -> None:
    page = format_report(comparison, root=tmp_path / "grid")
    shown = re.findall(r'data-thumbnail="(\d+)"', page)
    assert len(set(shown)) == len(embedded(page, "thumbnails")) <= 30 < len(shown)


def test_several_labels_have_findings_and_no_confusion(single: Callable[..., Record], tmp_path: Path) -> None:
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
    comparison: list[Record], tmp_path: Path
) -> None:
    page = format_report(comparison, root=tmp_path / "grid")
    assert page.count('<article class="run"') == 6
    assert "Of the repeats of a method the first is shown." in words(page)


def many(record: Record, cells: int, methods: int, repeats: int) -> list[Record]:
    return [
        replace(
            record,
            run=f"runs/{cell}-{method}-{repeat}",
            data=f"data {cell}",
            variant="vanilla" if method == 0 else f"method {method}",
            data_seed=repeat,
            test={**(record.test or {}), "top1": 50 + method + (7 * repeat + 3 * cell + method) % 5},
        )
        for cell in range(cells)
        for method in range(methods)
        for repeat in range(repeats)
    ]


def test_ten_thousand_runs_show_the_reference_and_the_best_of_some_cases(single: Callable[..., Record]) -> None:
    records = many(single(), cells=100, methods=20, repeats=5)
    best = {record.cell: "method 19" for record in records}
    shown = choose(records, best, "vanilla")
    assert len(shown.records) == MOST
    assert {record.variant for record in shown.records} == {"vanilla", "method 19"}
    assert shown.rule == (
        "Of 10,000 runs the first repeat of the best method and of vanilla is shown, for the first 100 of 200 of those."
    )


def test_the_page_grows_by_a_row_per_cell_and_method_and_not_by_runs(
    single: Callable[..., Record], tmp_path: Path
) -> None:
    one = single()
    pages = [format_report(many(one, 3, 4, repeats), root=tmp_path / "grid") for repeats in (3, 30)]
    assert [page.count("<tr data-data=") for page in pages] == [12, 12]
    assert len(pages[1]) < len(pages[0]) + 10_000
    more = format_report(many(one, 30, 4, 3), root=tmp_path / "grid")
    assert more.count("<tr data-data=") == 120
    assert more.count('<article class="run"') == 60


def test_runs_of_a_small_scale_are_called_no_result_everywhere(single: Callable[..., Record], tmp_path: Path) -> None:
    records = [single(scale="small", settings={"method": m, "seed": s}) for m in ("vanilla", "bss") for s in range(3)]
    page = format_report(records, root=tmp_path / "grid")
    assert '<p class="banner" role="note"><strong>small scale:</strong> checks the path, is no result.</p>' in page
    captions = re.findall(r"<figcaption>.*?</figcaption>", page, re.S)
    assert len(captions) > 5
    assert all("small scale: no result" in words("<body>" + caption) for caption in captions)
    assert "Their numbers are no result." in words(page)
    assert "ranks best" not in words(page)


def test_a_method_that_ranks_best_and_scores_less_is_not_said_to_gain(
    single: Callable[..., Record], tmp_path: Path
) -> None:
    """It wins two repeats of three by a little, and loses the third by much."""
    scores = {"vanilla": (50.0, 50.0, 50.0), "bss": (51.0, 51.0, 20.0)}
    records = []
    for method, values in scores.items():
        for seed, value in enumerate(values):
            record = single(settings={"method": method, "seed": seed, "data_seed": seed})
            records.append(replace(record, test={**(record.test or {}), "top1": value}))
    text = words(format_report(records, root=tmp_path / "grid"))
    assert (
        "bss ranks best of 2 methods (mean rank 1.3), though its mean is 9.3 points below vanilla's: it is not" in text
    )
    assert "it gains" not in text


def test_failures_are_listed_with_their_reasons(comparison: list[Record], tmp_path: Path) -> None:
    failure = Failure("delta", "photos", "net", 15.0, 2, "runs/x", "the loss is <nan> at step 3")
    page = format_report(comparison, root=tmp_path / "grid", failures=[failure])
    assert "delta photos net 15 % 3 the loss is <nan> at step 3" in words(page)
    assert "the loss is &lt;nan&gt;" in page
    alone = words(format_report([], root=tmp_path, failures=[failure]))
    assert "No run is finished" in alone


def test_nothing_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs at least one finished run, got none"):
        write_report([], tmp_path / "report.html", root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_the_reference_gains_are_left_out_with_a_word(comparison: list[Record], tmp_path: Path) -> None:
    page = format_report(comparison, root=tmp_path / "grid", reference="delta")
    assert "There is no run of delta, so gains over it are left out." in words(page)
    assert "gain-0" not in embedded(page, "figures")


def test_what_all_runs_share_and_what_differs_is_told_apart(single: Callable[..., Record], tmp_path: Path) -> None:
    settings = [{"method": "stochnorm", "p": p, "seed": seed} for p in (0.3, 0.5) for seed in (0, 1)]
    records = [single(settings=s, variant=f"p = {s['p']}") for s in settings]
    page = format_report(records, root=tmp_path / "grid", reference="p = 0.5")
    text = words(page)
    assert "What differs method p p = 0.5 0.5 p = 0.3 0.3 What all runs share method stochnorm" in text
    assert not re.search(r"What all runs share.* seed 0", text)


def test_a_setting_of_another_method_is_left_blank(single: Callable[..., Record], tmp_path: Path) -> None:
    settings: list[dict[str, Any]] = [
        {"method": "vanilla"},
        {"method": "l2sp", "l2sp": L2SPConfig(0.17320508)},
        {"method": "bss", "lr": 0.01},
    ]
    records = [single(variant=s["method"], settings=s) for s in settings]
    text = words(format_report(records, root=tmp_path / "grid"))
    assert "What differs method l2sp.alpha lr vanilla \N{EN DASH} 0.003 l2sp 0.1732 0.003 bss \N{EN DASH} 0.01" in text


def test_a_section_is_a_template_and_its_words_are_explained() -> None:
    templates = Path(stochnorm.report.page.render.__file__).parent / "templates"
    for section in (*SECTIONS, *RUN_SECTIONS):
        assert (templates / f"{section.id}.html").is_file()
        assert set(section.terms) <= GLOSSARY.keys()
    with pytest.raises(ValueError, match=r"must explain every word, got \['luck'\]"):
        glossary({"luck"})


def test_every_entry_of_the_navigation_is_on_the_page_and_explains_its_own_words(
    comparison: list[Record], single: Callable[..., Record], tmp_path: Path
) -> None:
    """In any order of pages: a page of findings after one of classes still explains AUC."""
    failure = Failure("delta", "photos", "net", 15.0, 2, "runs/x", "killed")
    one = format_report([single()], root=tmp_path / "grid")
    findings = format_report([single(multi_label=True)], root=tmp_path / "grid")
    several = format_report(comparison, root=tmp_path / "grid", failures=[failure])
    failed = format_report([], root=tmp_path, failures=[failure])
    for page in (one, findings, several, failed):
        places = re.findall(r'<li><a href="#(\w+)">', page)
        assert places[0] == "top"
        assert all(page.count(f' id="{place}"') == 1 for place in places)
    assert "<dt>AUC</dt>" in findings
    assert not any("<dt>AUC</dt>" in page for page in (one, several, failed))
    assert 'id="reading"' not in failed


def test_every_name_from_a_file_is_escaped(single: Callable[..., Record], hostile: Path, tmp_path: Path) -> None:
    """Class names, files, methods, data sets, titles, environments and settings."""
    classes = sorted(path.name for path in hostile.iterdir())
    paths = [f"{name}/{file.name}" for name in classes for file in sorted((hostile / name).iterdir())]
    options = {"classes": classes, "paths": paths, "truth": [0, 0, 1, 1], "skill": -9.0, "variant": HOSTILE}
    records = [single(settings={"data": str(hostile), "seed": s, "norm_layers": HOSTILE}, **options) for s in (0, 1)]
    records = [replace(r, data=HOSTILE, backbone=HOSTILE, environment={HOSTILE: HOSTILE}) for r in records]
    page = format_report(records, root=tmp_path / "grid", title=HOSTILE, reference=HOSTILE)
    page += format_report(records[:1], root=tmp_path / "grid", title=HOSTILE)
    assert words(page).count(HOSTILE) > 10
    assert "alert(2)" in words(page) or "onerror=alert(2)" in unescape(page)
    for start in ("<script>alert", "<img src=x", "<SCRIPT>ALERT"):
        assert start not in page
    assert '"quotes"' not in re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.S)
    assert "49" not in re.findall(r"<h1>(.*?)</h1>", page)[0]
    assert embedded(page[: len(page) // 2 + 1], "figures")


def test_the_page_has_the_colors_of_the_figures_and_a_dark_one_for_each(
    single: Callable[..., Record], tmp_path: Path
) -> None:
    (style,) = re.findall(r"<style>(.*?)</style>", format_report([single()], root=tmp_path / "grid"), re.S)
    light, dark = (re.findall(r"--s(\d+): (#[0-9a-f]{6});", part) for part in style.split("prefers-color-scheme: dark"))
    assert light == [(str(i), color) for i, color in enumerate(PALETTE)]
    assert [number for number, _ in dark] == [number for number, _ in light]


def test_only_the_pages_own_scripts_may_run(single: Callable[..., Record], tmp_path: Path) -> None:
    page = format_report([single()], root=tmp_path / "grid")
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="(.*?)">', page)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(scripts) == 2
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in unescape(policy)
    assert "default-src 'none'" in unescape(policy)
    assert "unsafe-eval" not in policy
    assert not re.search(r"\son\w+=", re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.S))


def test_the_command_finds_runs_by_directory_and_by_records(comparison: list[Record], tmp_path: Path) -> None:
    grid = tmp_path / "grid"
    files = report([grid])
    assert [path.name for path in files] == [
        "report.html",
        "results.md",
        "results.tex",
        "results.csv",
        "differences.csv",
    ]
    by_directory = rows(files[0].read_text())
    write_records(grid / "records.jsonl", comparison)
    (out,) = report([grid / "records.jsonl"], tmp_path / "other.html")[:1]
    page = out.read_text()
    assert rows(page) == by_directory
    assert embedded(page, "thumbnails")  # so its runs were found, relative to the file
    twice = report([grid, grid / "records.jsonl"], tmp_path / "twice.html")[0].read_text()
    assert rows(twice) == by_directory


def test_the_command_names_the_runs_that_failed(single: Callable[..., Record], tmp_path: Path) -> None:
    done = single()
    for run in ("runs/photos-delta-1a2b3c4d", done.run):  # the second one was tried again, and finished
        (tmp_path / "grid" / run).mkdir(exist_ok=True)
        (tmp_path / "grid" / run / "failure.json").write_text(json.dumps({"reason": "the loss is <nan>"}))
    (page, *_) = report([tmp_path / "grid"])
    note = f"1 run in {tmp_path}/grid failed, not counted here: photos-delta-1a2b3c4d (the loss is <nan>)."
    assert note in words(page.read_text())


def test_a_report_is_written_where_it_can_be(single: Callable[..., Record], tmp_path: Path) -> None:
    single()
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        report([tmp_path / "grid"], tmp_path / "missing/report.html")
    with pytest.raises(FileNotFoundError, match="no finished run there"):
        report([tmp_path])
        report([tmp_path / "nothing"])
    assert read_records([tmp_path / "grid"])
