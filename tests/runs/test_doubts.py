"""Labels that a model finds unlikely."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from stochnorm import FinetuneConfig
from stochnorm.cli.main import main
from stochnorm.data import Row, format_manifest, read_source
from stochnorm.files import write_text
from stochnorm.runs.directory import Run
from stochnorm.runs.doubts import confident_classes, doubts_of
from stochnorm.runs.predictions import format_predictions

CLASSES = ["blue", "green", "red"]


def write_settings(run: Run, config: FinetuneConfig) -> None:
    write_text(run.config, json.dumps(asdict(config)))


@pytest.fixture
def run(photos: Path, config: Callable[..., FinetuneConfig], tmp_path: Path) -> Run:
    """A cross-validated run that is sure of every image, and saw that blue/003 is red, and is unsure of green/004."""
    run = Run(tmp_path / "run")
    rows = read_source(photos).rows
    sure = {name: [0.9 if other == name else 0.05 for other in CLASSES] for name in CLASSES}
    seen = {row.path: sure[row.label] for row in rows}
    seen["blue/003.png"] = [0.01, 0.01, 0.98]
    seen["green/004.png"] = [0.4, 0.3, 0.3]
    predicted = [CLASSES[int(np.argmax(p))] for p in seen.values()]
    text = format_predictions(list(seen), predicted, list(seen.values()), CLASSES, [row.label for row in rows])
    run.path.mkdir()
    write_text(run.predictions, text)
    write_settings(run, config(photos, run.path, folds=3))
    return run


def test_a_confident_other_class_is_suspected_and_an_unsure_one_is_hard(run: Run) -> None:
    doubts = doubts_of(run)
    assert [(d.row.path, d.suggested, d.confidence) for d in doubts.suspected] == [("blue/003.png", "red", 0.01)]
    assert [(d.row.path, d.suggested, d.confidence) for d in doubts.hard] == [("green/004.png", "blue", 0.3)]
    assert [d.row.path for d in doubts.doubts[:2]] == ["blue/003.png", "green/004.png"]
    assert len(doubts.doubts) == 30


def test_the_corrected_file_is_read_as_data(run: Run, photos: Path) -> None:
    lines = doubts_of(run).manifest().splitlines()
    assert lines[0] == "path,label,suggested,suspected,confidence"
    assert lines[1] == "blue/003.png,blue,red,yes,0.0100"
    (photos / "labels.csv").write_text("\n".join([lines[0], lines[1].replace(",blue,", ",red,"), *lines[2:]]))
    labels = {row.path: row.label for row in read_source(photos / "labels.csv").rows}
    assert labels == {row.path: row.label for row in read_source(photos).rows} | {"blue/003.png": "red"}


def test_images_without_a_prediction_stay_in_the_file(run: Run) -> None:
    text = run.predictions.read_text().splitlines(keepends=True)
    run.predictions.write_text("".join(text[:11]))  # those of blue
    doubts = doubts_of(run)
    assert len(doubts.doubts) == 10
    lines = doubts.manifest().splitlines()
    assert len(lines) == 31
    assert lines[-1] == "red/009.png,red,,,"


def test_findings_are_questions_of_their_own(photos: Path, config: Callable[..., FinetuneConfig]) -> None:
    """Each image has the finding of its colour; one says none, and the model is sure of red."""
    rows = [row if row.path != "red/002.png" else Row(row.path, "") for row in read_source(photos).rows]
    write_text(photos / "m.csv", format_manifest([row._replace(split="test") for row in rows], multi_label=True))
    seen = [[0.95 if name == Path(row.path).parent.name else 0.02 for name in CLASSES] for row in rows]
    run = Run(photos.parent / "run")
    run.path.mkdir()
    labels = [row.label for row in rows]
    write_text(run.predictions, format_predictions([r.path for r in rows], labels, seen, CLASSES, labels))
    write_settings(run, config(photos / "m.csv", run.path))
    (doubt,) = doubts_of(run).suspected
    assert (doubt.row.path, doubt.row.label, doubt.suggested) == ("red/002.png", "", "red")
    assert doubt.confidence == pytest.approx(0.05)


def test_confident_classes_need_the_mean_confidence_of_their_class() -> None:
    p = np.array([[0.9, 0.1], [0.7, 0.3], [0.79, 0.21], [0.81, 0.19], [0.1, 0.9], [0.2, 0.8]])
    assert confident_classes(p, np.array([0, 0, 1, 1, 1, 1])).tolist() == [0, -1, -1, 0, 1, 1]


def test_the_command_writes_page_and_file(run: Run, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["labels", str(run.path)]) == 0
    said = capsys.readouterr().out
    assert "1 label suspected, 1 hard" in said
    assert "blue/003.png: blue, or red?" in said
    page = (run.path / "labels.html").read_text()
    assert page.count("<img src=") == 2
    assert "Labels to check (1)" in page
    assert "1 % likely, maybe red" in page
    assert (run.path / "labels.csv").read_text() == doubts_of(run).manifest()


def test_a_run_without_predictions_is_an_error(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["labels", str(photos)]) == 1
    assert "has no test_predictions.csv; give the directory of a finished run" in capsys.readouterr().err
