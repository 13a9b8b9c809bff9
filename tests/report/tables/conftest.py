"""Records of two comparisons, and the terminal that shows them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from rich.console import Console

from stochnorm.report.tables import show_results
from stochnorm.runs.records import Failure, Record

Build = Callable[..., list[Record]]

FIVE = [50.0, 51, 52, 53, 54]


@pytest.fixture
def few(build_records: Build) -> list[Record]:
    """Three pairs at 15 %, one run at 30 %; the higher rate and the reference come last."""
    return [
        *build_records({"vanilla": [80]}, rate=30),
        *build_records({"stochnorm": [71, 73, 75], "vanilla": [70, 71, 72]}),
    ]


@pytest.fixture
def clear(build_records: Build) -> list[Record]:
    """Five pairs with a difference beyond doubt, and without one."""
    return build_records(
        {
            "vanilla": FIVE,
            "stochnorm": [v + gap for v, gap in zip(FIVE, [1.9, 2.1, 2, 1.8, 2.2], strict=True)],
            "l2sp": [v + gap for v, gap in zip(FIVE, [1, -1, 0.5, -0.5, 0.5], strict=True)],
        }
    )


@pytest.fixture
def shown() -> Callable[..., str]:
    """Return a function that shows results in a terminal and gives its text."""

    def show(
        records: Sequence[Record], failures: Sequence[Failure] = (), width: int = 100, *, colors: bool = False
    ) -> str:
        system: Any = "standard" if colors else None
        file = io.StringIO()
        show_results(
            Console(width=width, file=file, force_terminal=colors, color_system=system, highlight=False),
            records,
            failures,
        )
        return file.getvalue()

    return show
