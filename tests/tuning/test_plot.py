"""The figure of a search: axes that can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

import stochnorm.tuning.plot
from stochnorm.tuning.plot import plot_search


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Return the figures that would have been written."""
    saved: list[Figure] = []
    monkeypatch.setattr(stochnorm.tuning.plot, "save_figure", lambda figure, path: saved.append(figure))
    return saved


@pytest.mark.parametrize("values", [(3e-4, 3e-2), (2e-3, 4e-3), (6.1e-3, 6.9e-3), (1e-6, 1e-2), (1e-9, 10.0), (0.003,)])
def test_a_searched_setting_has_two_to_four_labels(figures: list[Figure], values: tuple[float, ...]) -> None:
    trials: list[tuple[dict[str, Any], float]] = [({"lr": value}, 50.0) for value in values]
    plot_search(trials, trials[0], Path())
    (axes,) = figures[0].axes
    low, high = axes.get_xlim()
    assert 2 <= len(axes.get_xticks()) <= 4
    assert all(low <= tick <= high for tick in axes.get_xticks())


def test_settings_that_are_no_numbers_are_shown_by_name(figures: list[Figure]) -> None:
    trials: list[tuple[dict[str, Any], float]] = [
        ({"freeze": "both", "momentum": None, "lr": 0.1}, 1.0),
        ({"freeze": "affine", "momentum": 0.9}, 2.0),
    ]
    plot_search(trials, trials[1], Path())
    labels = {axes.get_xlabel(): [label.get_text() for label in axes.get_xticklabels()] for axes in figures[0].axes}
    assert labels["freeze"] == ["both", "affine"]
    assert labels["momentum"] == ["None", "0.9"]
