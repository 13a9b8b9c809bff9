"""The training curves: axes that can be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

import stochnorm.training.curves
from stochnorm.training.curves import plot_curves


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Return the figures that would have been written."""
    saved: list[Figure] = []
    monkeypatch.setattr(stochnorm.training.curves, "save_figure", lambda figure, path: saved.append(figure))
    return saved


def test_the_curves_count_whole_steps(figures: list[Figure]) -> None:
    record = {"step": 12, "score": "top1", "train_loss": 1.0, "train_top1": 40.0, "val_loss": 1.2, "val_top1": 50.0}
    for steps in ((12,), (1, 2, 3)):
        history = [{**record, "step": step} for step in steps]
        plot_curves(history, history[-1], "top-1", Path())
        assert all(tick == int(tick) for axes in figures[-1].axes for tick in axes.get_xticks())
