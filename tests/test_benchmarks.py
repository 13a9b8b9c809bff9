"""Summaries of measurements by the benchmarks; nothing is timed."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of benchmarks/, which is no package."""

    def module(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(BENCHMARKS)
        return importlib.import_module(name)

    return module


def content(title: str, *goals: tuple[str, bool]) -> dict[str, Any]:
    return {
        "title": title,
        "command": f"python benchmarks/{title}.py",
        "conditions": {"machine": "two cores", "cpu_kernels": ["stochnorm"], "commit": "abc1234"},
        "notes": "How to read it.",
        "columns": ["input", "ms"],
        "rows": [["a | b", "1.5"], ["c", "2.5"]],
        "goals": [{"what": what, "goal": "at most 1.00", "measured": "0.97", "met": met} for what, met in goals],
    }


def test_the_readme_says_of_each_goal_whether_it_is_met(load: Any) -> None:
    text = load("readme").format_readme([content("layer", ("fast", True), ("small", False)), content("bss")])
    assert "1 of 2 are met" in text
    assert "| [layer](#layer) | fast | at most 1.00 | 0.97 | met |" in text
    assert "| [layer](#layer) | small | at most 1.00 | 0.97 | **not met** |" in text


def test_the_readme_has_each_table_with_its_command_and_conditions(load: Any) -> None:
    text = load("readme").format_readme([content("layer"), content("bss")])
    for title in ("layer", "bss"):
        section = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
        assert f"`python benchmarks/{title}.py`" in section
        assert "machine two cores; cpu kernels stochnorm; commit abc1234" in section
        assert "| input | ms |\n| --- | ---: |\n| a \\| b | 1.5 |\n| c | 2.5 |\n" in section


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_exponent_of_a_power_law_is_found(load: Any, power: float) -> None:
    sizes = [10.0, 100.0, 1000.0, 10_000.0, 100_000.0]
    assert load("growth").exponent(sizes, [0.01 * size**power for size in sizes]) == pytest.approx(power)


def test_the_exponent_is_that_of_large_sizes(load: Any) -> None:
    sizes = [1.0, 10.0, 100.0, 1e6, 1e7, 1e8]
    assert load("growth").exponent(sizes, [50 + size for size in sizes]) == pytest.approx(1, abs=1e-3)


def test_functions_take_turns_and_only_counted_rounds_are_kept(load: Any) -> None:
    calls: list[str] = []
    timings = load("measure").side_by_side([lambda: calls.append("a"), lambda: calls.append("b")], 4, warm_up=2)
    assert [len(timing.seconds) for timing in timings] == [4, 4]
    assert all({*calls[i : i + 2]} == {"a", "b"} for i in range(0, 12, 2))


def test_a_goal_is_met_at_its_limit_and_missed_beyond(load: Any) -> None:
    measure = load("measure")
    assert measure.at_most(1.03, "time", 1.03).met
    assert not measure.at_most(1.03, "time", 1.031).met
    assert measure.at_least(2, "speed", 2.0).met
    assert not measure.at_least(2, "speed", 1.99).met


def elsewhere(content: dict[str, Any], machine: str) -> dict[str, Any]:
    return content | {"conditions": {"machine": machine}}


def test_a_goal_has_the_figures_of_all_processors(load: Any) -> None:
    main = elsewhere(content("layer", ("fast", True), ("small", True)), "Intel(R) Xeon(R), 2 cores")
    other = elsewhere(content("layer", ("fast", False)), "AMD EPYC, 2 cores")
    other["goals"][0]["measured"] = "1.13"
    text = load("readme").format_readme([main], others={"amd": [other, content("bss", ("fast", True))]})
    assert "1 of 2 are met" in text
    assert "| fast | at most 1.00 | 0.97 Intel, 1.13 AMD | **not met** (AMD) |" in text
    assert "| small | at most 1.00 | 0.97 | met |" in text
    assert "<details><summary>AMD EPYC, 2 cores</summary>" in text.partition("\n## layer\n")[2]


def test_goals_on_a_gpu_say_whether_they_were_measured(load: Any) -> None:
    aims = load("gpu_goals").AIMS
    title, (aim, *others) = aims["step"]
    text = load("readme").format_readme([])
    assert "**Nothing was measured on a GPU for this version**; `make bench-gpu` does it" in text
    assert f"| {title} | {aim.what} | at most 1.03 | not measured |  |" in text
    text = load("readme").format_readme([], gpu={"step": content(title, (aim.what, True))})
    assert "Nothing was measured" not in text
    assert "1 of the 1 that were measured are met" in text
    assert f"| {aim.what} | at most 1.00 | 0.97 | met |" in text
    assert f"| {title} | {others[0].what} | at most 1.03 | not measured |  |" in text
    assert f"\n## {title}\n" in text


def test_a_second_table_is_folded(load: Any) -> None:
    both = content("layer") | {"detail_columns": ["input"], "details": [["48 x 64"]]}
    assert "<details><summary>in detail: 1 rows</summary>\n\n| input |" in load("readme").format_readme([both])
