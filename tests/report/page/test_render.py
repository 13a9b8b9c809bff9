"""The page as a whole: bounded details, colors, and text that stays text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

import stochnorm.report.page.render
from stochnorm.plotting import PALETTE
from stochnorm.report.page.cases import MOST, choose
from stochnorm.report.page.glossary import GLOSSARY, glossary
from stochnorm.report.page.render import format_report
from stochnorm.report.page.sections import RUN_SECTIONS, SECTIONS
from stochnorm.runs.records import Failure, Record

Rows = dict[tuple[str, str], tuple[str, list[str]]]

HOSTILE = "<script>alert(1)</script> \"quotes\" 'too' {{ 7 * 7 }} %{x}"


def test_records_whose_directories_are_gone_still_make_a_page(
    comparison: list[Record],
    tmp_path: Path,
    words: Callable[[str], str],
    embedded: Callable[[str, str], Any],
    rows: Callable[[str], Rows],
) -> None:
    page = format_report(comparison, root=tmp_path / "elsewhere")
    assert len(rows(page)) == 6
    assert "is missing or damaged: no curves and no predictions" in words(page)
    assert set(embedded(page, "figures")) == {"accuracy-0", "gain-0"}


def test_an_image_is_in_the_page_once(
    comparison: list[Record], tmp_path: Path, embedded: Callable[[str, str], Any]
) -> None:
    page = format_report(comparison, root=tmp_path / "grid")
    shown = re.findall(r'data-thumbnail="(\d+)"', page)
    assert len(set(shown)) == len(embedded(page, "thumbnails")) <= 30 < len(shown)


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
        "The first repeat of the best method and of vanilla is shown, out of 10,000 runs; 100 of the 200 runs that "
        "this rule gives."
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


def test_runs_of_a_small_scale_are_called_no_result_everywhere(
    single: Callable[..., Record], tmp_path: Path, words: Callable[[str], str]
) -> None:
    records = [single(scale="small", settings={"method": m, "seed": s}) for m in ("vanilla", "bss") for s in range(3)]
    page = format_report(records, root=tmp_path / "grid")
    assert (
        '<p class="banner" role="note"><strong>small scale:</strong> checks that everything works; no result.</p>'
        in page
    )
    captions = re.findall(r"<figcaption>.*?</figcaption>", page, re.S)
    assert len(captions) > 5
    assert all("small scale: no result" in words("<body>" + caption) for caption in captions)
    assert "Their numbers are no result." in words(page)
    assert "ranks best" not in words(page)


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
    """Pages do not affect each other: a page of findings after one of classes still explains AUC."""
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


def test_every_name_from_a_file_is_escaped(
    single: Callable[..., Record],
    hostile: Path,
    tmp_path: Path,
    words: Callable[[str], str],
    embedded: Callable[[str, str], Any],
) -> None:
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


KINDS: dict[str, dict[str, Any]] = {
    "auto": {
        "auto": {
            "budget": "1s",
            "chosen": "a@0.25",
            "best": "a",
            "why": "it has the best",
            "refit": {"images": 40, "seconds": 1.0},
            "tried": [
                {"name": "a", "title": "frozen", "kind": "frozen", "validation": 50.0, "steps": 5, "seconds": 1.0}
                | {"reason": "collapsed"},
                {"name": "a@0.25", "title": "frozen, 25 % of the change", "kind": "between", "validation": 60.0}
                | {"steps": 0, "seconds": 1.0, "reason": ""},
            ],
        }
    },
    "folds": {
        "folds": {
            "count": 2,
            "mean": 50.0,
            "std": 1.0,
            "estimate": "each of 40 images",
            "model": "one more",
            "parts": [
                {"fold": n, "images": 20, "top1": 50.0, "interval": [40.0, 60.0], "validation": 55.0, "kept": "step 5"}
                | {"seconds": 2.0}
                for n in (1, 2)
            ],
        }
    },
    "soup": {
        "method": {"name": "soup", "soup": {"members": [0], "runs": [50.0], "validation": 50.0}, "terms": ["l2sp"]}
    },
    "wise": {"method": {"name": "wise", "wise": {"share": 0.25, "validation": {"0.25": 50.0}}}},
    "probe": {"selected": {"step": 0, "by": "strength"}, "probe": {"strength": 0.1, "chosen_by": "validation"}},
}
_MEANT = ("kind", "budget", "score")
"""Strings that are no text."""


def with_every_text(content: Any, text: str) -> Any:
    """Replace each text in the content of a file, and add it to the keys that nothing looks for."""
    if isinstance(content, dict):
        added = {text: text} if all(isinstance(value, str) for value in content.values()) else {}
        return {k: v if k in _MEANT else with_every_text(v, text) for k, v in content.items()} | added
    if isinstance(content, list):
        return [with_every_text(each, text) for each in content]
    return text if isinstance(content, str) else content


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("multi_label", [False, True])
def test_every_text_of_a_result_is_escaped_on_every_kind_of_page(
    single: Callable[..., Record], tmp_path: Path, words: Callable[[str], str], kind: str, multi_label: bool
) -> None:
    record = single(multi_label=multi_label, scale=HOSTILE, variant=HOSTILE)
    file = tmp_path / "grid" / record.run / "result.json"
    result = json.loads(file.read_text()) | KINDS[kind]
    for part in ("method", "selected", "weights", "environment", "auto", "folds", "probe"):
        if part in result:
            result[part] = with_every_text(result[part], HOSTILE)
    if kind == "folds" and multi_label:
        result["folds"]["parts"] = [fold | {"mean_auc": 50.0} for fold in result["folds"]["parts"]]
    file.write_text(json.dumps(result))
    failure = Failure(HOSTILE, HOSTILE, HOSTILE, 15.0, 0, HOSTILE, HOSTILE)
    hostile = replace(record, environment={HOSTILE: HOSTILE}, settings=record.settings | {"norm_layers": HOSTILE})
    for page in (
        format_report([hostile], root=tmp_path / "grid", title=HOSTILE, notes=[HOSTILE]),
        format_report([hostile], root=tmp_path / "grid", failures=[failure]),
    ):
        assert words(page).count(HOSTILE) > 3
        assert "missing or damaged" not in words(page)
        assert "<script>alert" not in page
        assert '"quotes"' not in re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.S)
        assert "{{ 7 * 7 }}" in words(page)


def test_the_page_says_which_model_is_kept_of_several_trainings(
    single: Callable[..., Record], tmp_path: Path, words: Callable[[str], str]
) -> None:
    record = single()
    file = tmp_path / "grid" / record.run / "result.json"
    result = json.loads(file.read_text())
    wanted = {
        "auto": "Kept: frozen, 25 % of the change, step 300 (validation top-1, then loss), chosen on validation images "
        "among 2 models that were tried; then once more from the start, on all 40 training and validation images.",
        "soup": "Kept: weights of several trainings; of the best one, whose curves are shown, step 300",
        "probe": "Kept: the linear probe, C = 0.1.",
        "": "Kept: step 300 (validation top-1, then loss).",
    }
    for kind, text in wanted.items():
        file.write_text(json.dumps(result | KINDS.get(kind, {})))
        assert text in words(format_report([record], root=tmp_path / "grid"))
    file.write_text(json.dumps(result | KINDS["auto"]))
    assert "method auto within 1 s;" in words(format_report([record], root=tmp_path / "grid"))


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
