"""The strengths of the regularizers: chosen on validation images, as the paper does, or as published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stochnorm import FinetuneConfig, Grid, Variant
from stochnorm.paper import reproduce as paper
from stochnorm.tuning.space import strengths


@pytest.mark.usefixtures("warm_workers")
def test_validation_images_choose_strengths_and_nothing_else(
    photos: Path, config: Callable[..., FinetuneConfig], tmp_path: Path
) -> None:
    variants = (Variant("vanilla", {"method": "vanilla"}), Variant("l2sp", {"method": "l2sp"}))
    grid = Grid(
        config(photos, method="vanilla", steps=2, eval_every=0), variants, data=(str(photos),), same_images=True
    )
    given = [run.config for run in grid.runs()]
    (part,) = paper._with_strengths(grid, tmp_path, 3, 1, 1, "local", True)
    vanilla, l2sp = (run.config for run in part.runs())
    assert vanilla == given[0]
    assert {path.name.split("-")[1] for path in (tmp_path / "tune").iterdir()} == {"l2sp"}
    assert (l2sp.lr, l2sp.p, l2sp.val_fraction) == (given[1].lr, given[1].p, 0.2)
    (table,) = (tmp_path / "tune").glob("*/trials.csv")
    titles, *rows = table.read_text().splitlines()
    assert titles == "trial,state,validation,l2sp.alpha,run"
    assert f"{l2sp.l2sp.alpha:g}" in {f"{float(row.split(',')[3]):g}" for row in rows}
    assert len({row.split(",")[3] for row in rows}) == 3


def test_without_a_search_all_images_train(runs: Callable[..., Any]) -> None:
    assert {run.config.val_fraction for run in runs("table3")} == {0.2}
    assert {run.config.val_fraction for run in runs("table3", trials=0)} == {0.0}
    assert {run.config.select for run in runs("table3", trials=0)} == {"last"}


def test_only_terms_of_the_loss_have_strengths() -> None:
    assert [name for name, _ in strengths("stochnorm+l2sp+delta+bss")] == ["l2sp.alpha", "delta.alpha", "bss.eta"]
    assert strengths("stochnorm") == strengths("vanilla") == []


def test_the_paper_asks_for_trials_from_nought_on() -> None:
    with pytest.raises(ValueError, match="trials must be at least 0, got -1"):
        paper.reproduce("figure4b", scale="small", trials=-1, quiet=True)
