"""The page in a real browser: Chromium without a window, through Playwright; skipped where there is none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stochnorm.report import write_report
from stochnorm.runs.records import Record

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = os.environ.get("STOCHNORM_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium; install it, or set STOCHNORM_CHROMIUM")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # it runs as root in CI
        yield browser
        browser.close()


@pytest.fixture
def show(browser: Any) -> Iterator[Callable[..., Any]]:
    """Return a function that opens a file and waits until its charts are drawn; errors in the page fail the test."""
    wrong: list[str] = []
    contexts = []

    def requested(request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            wrong.append(f"request to {request.url}")

    def dialog(opened: Any) -> None:
        wrong.append(f"dialog {opened.message}")
        opened.dismiss()

    def open_page(path: Path, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console",
            lambda message: wrong.append(message.text) if message.type in ("error", "warning", "trace") else None,
        )
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", requested)
        page.on("dialog", dialog)
        page.goto(path.as_uri())
        drawn(page)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def drawn(page: Any) -> None:
    page.wait_for_selector("html[data-drawn=all]", state="attached", timeout=120_000)


@pytest.fixture
def report(comparison: list[Record], tmp_path: Path) -> Path:
    write_report(comparison, tmp_path / "report.html", root=tmp_path / "grid")
    return tmp_path / "report.html"


def column(page: Any, number: int) -> list[str]:
    """Return the values of a column of the table of all results, of the visible rows."""
    rows = page.locator("#rows tbody tr:visible").all()
    return [row.locator("td, th").nth(number).inner_text().strip() for row in rows]


def overflow(page: Any) -> int:
    return int(page.evaluate("() => document.documentElement.scrollWidth - innerWidth"))


def brightness(page: Any, selector: str, name: str) -> float:
    color = page.locator(selector).first.evaluate(f"element => getComputedStyle(element).{name}")
    parts = [int(part) for part in re.findall(r"\d+", color)[:3]]
    return sum(parts) / 3 if parts else -1.0  # redrawn at this moment


def eventually(check: Callable[[], bool]) -> bool:
    """Return whether the check succeeds in time: the page learns of a change of media later, and then draws."""
    end = time.monotonic() + 30
    while not check() and time.monotonic() < end:
        time.sleep(0.05)
    return check()


def test_it_opens_from_disk_and_draws_every_chart_in_sight(show: Callable[..., Any], report: Path) -> None:
    page = show(report)
    charts = page.locator(".chart:visible")
    assert charts.count() >= 7
    assert page.locator(".chart:visible .main-svg").count() >= charts.count()
    assert page.locator(".chart:visible .error-page").count() == 0


def test_a_click_on_a_title_sorts_and_another_one_turns_the_order(show: Callable[..., Any], report: Path) -> None:
    page = show(report)
    button = page.locator("#rows thead button", has_text="score")
    button.click()
    scores = [float(value) for value in column(page, 3)]
    assert scores == sorted(scores, reverse=True)
    assert page.locator("#rows th[aria-sort]").get_attribute("aria-sort") == "descending"
    button.press("Enter")
    assert [float(value) for value in column(page, 3)] == scores[::-1]
    assert page.locator("#rows th[aria-sort]").count() == 1


def test_numbers_are_sorted_as_numbers_and_what_there_is_not_comes_last(show: Callable[..., Any], report: Path) -> None:
    page = show(report)
    for _ in range(2):
        page.locator("#rows thead button", has_text="gain").click()
        gains = column(page, 6)
        assert gains[-2:] == ["\N{EN DASH}"] * 2  # the reference's
        numbers = [float(gain.replace("\N{MINUS SIGN}", "-")) for gain in gains[:-2]]
        assert numbers in (sorted(numbers), sorted(numbers, reverse=True))
    page.locator("#rows thead button", has_text="rate").click()
    assert column(page, 1) == ["15 %"] * 3 + ["50 %"] * 3


def test_filters_hide_the_rows_that_do_not_fit(show: Callable[..., Any], report: Path) -> None:
    page = show(report)
    page.select_option("#by-rate", "15")
    assert set(column(page, 1)) == {"15 %"}
    page.select_option("#by-variant", "stochnorm")
    assert column(page, 2) == ["stochnorm"]
    assert page.locator("#shown").inner_text() == "1 of 6 rows"
    page.locator("button[type=reset]").click()
    page.locator("#rows tbody tr:visible").nth(5).wait_for()  # the form is reset first, the rows right after
    assert len(column(page, 0)) == 6
    page.fill("#find", "BSS 50")
    assert column(page, 2) == ["stochnorm+bss"]
    page.fill("#find", "nothing like it")
    assert column(page, 2) == []
    assert page.locator("#none").is_visible()
    page.fill("#find", "")
    page.select_option("#by-mark", "best")
    assert len(column(page, 0)) == 2


def test_the_legend_hides_a_method_in_every_chart(show: Callable[..., Any], report: Path) -> None:
    page = show(report)
    traces = page.locator("[data-figure=accuracy-0] .trace")
    assert traces.count() == 3
    page.locator("#charts .legend button", has_text="vanilla").click()
    drawn(page)
    assert traces.count() == 2
    assert page.locator(".legend button[data-variant=vanilla]").last.get_attribute("aria-pressed") == "false"


def test_the_chosen_run_is_shown_with_its_charts_and_images(show: Callable[..., Any], report: Path) -> None:
    page = show(report)
    page.select_option("#case", "1")
    page.select_option("#variant", "stochnorm")
    drawn(page)
    shown = page.locator("article.run:visible")
    assert shown.count() == 1
    assert "stochnorm" in shown.locator("h3.run-title").inner_text()
    assert "photos at 50 %" in shown.locator("h3.run-title").inner_text()
    assert shown.locator(".chart .main-svg").count() >= 5
    images = shown.locator("img").all()
    assert images
    assert all(image.evaluate("image => image.naturalWidth") == 112 for image in images)


def test_hostile_names_stay_text(
    show: Callable[..., Any], hostile: Path, single: Callable[..., Record], tmp_path: Path
) -> None:
    classes = ["<script>alert(1)</script>", '<img src=x onerror="alert(3)">']
    files = [f"{folder.name}/{file.name}" for folder in sorted(hostile.iterdir()) for file in sorted(folder.iterdir())]
    options = {"classes": classes, "paths": files, "truth": [0, 0, 1, 1], "skill": -9.0, "variant": classes[1]}
    record = single(settings={"data": str(hostile)}, **options)
    write_report([record], tmp_path / "one.html", root=tmp_path / "grid", title=classes[0])
    page = show(tmp_path / "one.html")
    assert page.locator("h1").inner_text() == classes[0]
    assert classes[0] in page.locator(".mistakes").inner_text()
    assert page.locator("img").count() == len(files)
    assert '"><img src=x onerror=alert(2)>.png' in " ".join(
        image.get_attribute("alt") for image in page.locator("img").all()
    )
    labels = page.locator("[data-figure=run-0-classes] .ytick").all_text_contents()
    assert any(label.startswith("<script>") for label in labels)
    several = [replace(record, run=f"{record.run}", seed=seed, variant=name) for seed, name in enumerate(classes)]
    write_report(several, tmp_path / "two.html", root=tmp_path / "grid", reference=classes[0])
    page = show(tmp_path / "two.html")
    page.select_option("#by-variant", classes[0])
    assert column(page, 2) == [classes[0]]


@pytest.mark.parametrize("width", [390, 320])
def test_on_a_phone_nothing_is_wider_than_the_screen(show: Callable[..., Any], report: Path, width: int) -> None:
    page = show(report, **{**PHONE, "viewport": {"width": width, "height": 844}})
    assert overflow(page) <= 0
    for chart in page.locator(".chart:visible").all():
        assert chart.locator(".main-svg").first.bounding_box()["width"] <= width
    for variant in ("vanilla", "stochnorm+bss"):
        page.select_option("#variant", variant)
        drawn(page)
        assert overflow(page) <= 0


def test_a_single_run_fits_a_phone_too(show: Callable[..., Any], single: Callable[..., Record], tmp_path: Path) -> None:
    long = [f"{i:03d}.A_class_with_quite_a_long_name_{'x' * 40}" for i in range(40)]
    paths = [f"{name}/{i}.png" for name in long for i in range(3)]
    record = single(classes=long, paths=paths, truth=[i // 3 for i in range(120)])
    write_report([record], tmp_path / "one.html", root=tmp_path / "grid")
    assert overflow(show(tmp_path / "one.html", **PHONE)) <= 0


def test_charts_follow_the_system_to_the_dark(show: Callable[..., Any], report: Path) -> None:
    page = show(report, color_scheme="dark")
    tick = "[data-figure=accuracy-0] .xtick text"
    assert brightness(page, "body", "backgroundColor") < 60
    assert brightness(page, tick, "fill") > 150
    page.emulate_media(color_scheme="light")
    assert eventually(lambda: 0 <= brightness(page, tick, "fill") < 120)
    assert brightness(page, "body", "backgroundColor") > 200


def test_on_paper_it_is_light_and_whole_and_without_controls(show: Callable[..., Any], report: Path) -> None:
    page = show(report, color_scheme="dark")
    page.emulate_media(media="print")
    assert eventually(lambda: 0 <= brightness(page, "[data-figure=accuracy-0] .xtick text", "fill") < 120)
    assert brightness(page, "body", "backgroundColor") == 255
    assert page.locator("nav:visible, form:visible").count() == 0
    for box in page.locator(".scroll").all():
        assert box.evaluate("box => getComputedStyle(box).overflow") == "visible"


def test_its_first_printed_page_is_not_blank(show: Callable[..., Any], report: Path, tmp_path: Path) -> None:
    page = show(report)
    page.pdf(path=tmp_path / "page.pdf", format="A4", print_background=True, prefer_css_page_size=True)
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    page.emulate_media(media="print")
    drawn(page)
    assert page.locator("h1").bounding_box()["y"] < 150
    assert page.locator("#results table").first.bounding_box()["y"] < 700
    if pdftotext := shutil.which("pdftotext"):
        command = [pdftotext, "-f", "1", "-l", "1", str(tmp_path / "page.pdf"), "-"]
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
        assert "3 methods on photos" in text
