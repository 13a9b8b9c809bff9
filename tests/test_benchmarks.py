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
