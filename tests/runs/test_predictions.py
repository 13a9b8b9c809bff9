"""Predictions are read as they were written."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from stochnorm.runs.predictions import format_confusion, format_predictions, read_predictions

HEADER = "path,label,predicted,probability,p(a)\n"
PATHS = ["a, b.png", 'in "quotes".png', "\N{SNOWMAN}/3.png"]
CLASSES = ["cat", 'a "dog", big', "p(x)"]
ROWS = [[0.7, 0.2, 0.1], [0.25, 0.5, 0.25], [0.0, 0.1234567, 0.8765433]]
PREDICTED = ["cat", CLASSES[1], "p(x)"]


def written(tmp_path: Path, predicted: list[str], truth: list[str]) -> Path:
    path = tmp_path / "test_predictions.csv"
    path.write_text(format_predictions(PATHS, predicted, ROWS, CLASSES, truth), encoding="utf-8")
    return path


def test_predictions_are_read_as_they_were_written(tmp_path: Path) -> None:
    truth = [CLASSES[1], CLASSES[1], "cat"]
    found = read_predictions(written(tmp_path, PREDICTED, truth), multi_label=False)
    assert (found.paths, found.truth, found.predicted, found.classes) == (PATHS, truth, PREDICTED, CLASSES)
    assert found.confidence.tolist() == [0.7, 0.5, 0.876543]
    assert found.probabilities is None


def test_with_several_labels_all_probabilities_are_read(tmp_path: Path) -> None:
    truth = ["cat|p(x)", "", CLASSES[1]]
    found = read_predictions(written(tmp_path, ["cat", "", "p(x)"], truth), multi_label=True)
    assert (found.truth, found.predicted) == (truth, ["cat", "", "p(x)"])
    assert found.probabilities is not None
    assert np.allclose(found.probabilities, ROWS, atol=5e-7)
    assert found.has().tolist() == [[True, False, True], [False, False, False], [False, True, False]]


def test_what_was_written_again_has_the_same_bytes(tmp_path: Path) -> None:
    path = written(tmp_path, ["cat", "", "p(x)"], ["cat|p(x)", "", CLASSES[1]])
    found = read_predictions(path, multi_label=True)
    assert found.probabilities is not None
    again = format_predictions(
        found.paths, found.predicted, found.probabilities.tolist(), found.classes, truth=found.truth
    )
    assert again == path.read_text(encoding="utf-8")


def test_without_the_truth_there_is_no_column_of_labels() -> None:
    header, first, *_ = csv.reader(io.StringIO(format_predictions(PATHS, PREDICTED, ROWS, CLASSES)))
    assert header == ["path", "predicted", "probability", *(f"p({name})" for name in CLASSES)]
    assert first == [PATHS[0], "cat", "0.700000", "0.700000", "0.200000", "0.100000"]


def test_rows_of_the_confusion_matrix_are_the_truth() -> None:
    text = format_confusion(["a", "a", "a", "b"], ["a", "a", "b", "c"], ["a", "b", "c"])
    assert text.splitlines() == ["true / predicted,a,b,c", "a,2,1,0", "b,0,0,1", "c,0,0,0"]


@pytest.mark.parametrize(
    "text",
    ["", "path,label\n", HEADER, f"{HEADER}x,a,a\n", f"{HEADER}x,a,a,much,1\n"],
)
def test_a_damaged_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(ValueError, match=r"p\.csv is damaged"):
        read_predictions(tmp_path / "p.csv", multi_label=False)
