"""What a page advises follows from what the run shows, and nothing is advised without a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from stochnorm.report.page.advice import advice
from stochnorm.report.page.analysis import Pair
from stochnorm.report.page.details import Details
from stochnorm.report.page.render import format_report
from stochnorm.runs.records import Record


def details_with(record: Record, test: dict[str, Any] | None, **fields: Any) -> Details:
    return Details("run", replace(record, test=test), [], **fields)


def losses(*values: float) -> list[dict[str, Any]]:
    return [{"step": 10 * (i + 1), "val_loss": value} for i, value in enumerate(values)]


GOOD = {"images": 500, "top1": 90.0, "majority": 30.0}


def test_a_run_that_is_well_has_no_advice(single: Callable[..., Record]) -> None:
    assert (
        advice(details_with(single(), GOOD, history=losses(2.0, 1.0, 0.9, 0.91), pairs=[Pair("a", "b", 1, 5.0)])) == []
    )
    assert advice(details_with(single(), None)) == []


def test_each_sign_has_its_advice(single: Callable[..., Record]) -> None:
    record = single()
    (text,) = advice(details_with(record, GOOD | {"top1": 30.0}))
    assert text.startswith("The score is not above the 30.0 % of always answering with the largest class. Give")
    (text,) = advice(details_with(record, GOOD | {"images": 40}))
    assert text.startswith("The test has 40 images, so the score says little. --folds 5")
    folds = replace(record, settings={**record.settings, "folds": 5})
    assert not advice(details_with(folds, GOOD | {"images": 40}))
    (text,) = advice(details_with(record, GOOD, pairs=[Pair("cat", "dog", 3, 30.0)]))
    assert text.startswith("cat is taken for dog most often (3 times).")
    (text,) = advice(details_with(record, GOOD, history=losses(2.0, 1.0, 1.3, 1.5, 1.6)))
    assert text.startswith("The validation loss was lowest at step 20 (1.00) and rose to 1.60 at step 50: the model")


def test_a_page_has_mistakes_and_advice_before_the_curves_and_folds_what_was_not_set(
    single: Callable[..., Record], tmp_path: Path, words: Callable[[str], str]
) -> None:
    page = format_report([single()], root=tmp_path / "grid")
    titles = "<h3>Most confident mistakes", "<h3>What to do next", ">Loss during training"
    order = [page.index(title) for title in titles]
    assert order == sorted(order)
    assert "All settings" in words(page)
    head, _, folded = page.partition('id="settings"')[2].partition("<details>")
    assert "<dt>lr</dt>" not in head
    assert "<dt>lr</dt>" in folded
