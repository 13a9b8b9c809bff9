"""Names of classes and files come back as they were from every command, and steer neither terminal, spreadsheet nor
page."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stochnorm.cli.main import main
from stochnorm.data.manifest import list_manifest
from stochnorm.runs.predictions import read_predictions
from stochnorm.spreadsheet import plain

CLASSES = [
    "=cmd|'/c calc'!A1", "+1+1", "-1+1", "@SUM(A1)", "'=1", "<script>alert(1)</script>", "a/b\\c", "x" * 300,
    "\u05d0\u05d1\u05d2", "\u9ce5", "e\u0301te\u0301", "tab\there", "esc\x1b]0;PWN\x07", "\u202egpj.exe", "a|b",
    "[red]x[/]", "$x$", "p(q)", "NaN.",
]  # fmt: skip


@pytest.fixture
def named(tmp_path: Path, write_images: Callable[..., list[Path]]) -> Path:
    """Images of classes with names of all kinds, and a few files with names of some."""
    files = write_images(tmp_path / "photos", 3 * len(CLASSES))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "split"])
    for i, file in enumerate(files):
        name = {0: "=1+1.png", 1: "esc\x1b[2J.png", 2: "e\u0301.png"}.get(i, file.name)
        file.rename(file.with_name(name))
        writer.writerow([name, CLASSES[i // 3].replace("'=1", "''=1"), ("train", "val", "test")[i % 3]])
    (tmp_path / "photos/list.csv").write_text(text.getvalue(), encoding="utf-8")
    return tmp_path / "photos/list.csv"


def steers(text: str) -> bool:
    return any(letter in text for letter in "\x1b\x07\x9b\u202e\r\x08")


def cells(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return [cell for row in csv.reader(file, strict=True) for cell in row]


def test_names_come_back_from_every_command(
    named: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tiny_options: list[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # no path is wrapped
    run = tmp_path / "run"
    assert main(["finetune", str(named), *tiny_options, "--steps=2", "--eval-every=0", "--out", str(run)]) == 0
    images = sorted(str(path) for path in named.parent.glob("*.png"))
    assert main(["predict", str(run), *images, "--csv", str(tmp_path / "predicted.csv")]) == 0
    assert main(["evaluate", str(run), "--csv", str(tmp_path / "evaluated.csv")]) == 0
    assert main(["evaluate", str(run), str(named), "--csv", str(tmp_path / "again.csv")]) == 0
    assert main(["report", str(run), "--out", str(tmp_path / "page.html")]) == 0
    assert main(["verify", str(named)]) == 0
    said = capsys.readouterr()
    assert not steers(said.out + said.err)
    assert "=1+1.png" in said.out
    assert r"esc\x1b[2J.png" in said.out

    assert sorted(json.loads((run / "result.json").read_text())["classes"]) == sorted(CLASSES)
    assert {row.label for row in list_manifest(run / "split.csv", exact=True).rows} == set(CLASSES)
    assert {row.label for row in list_manifest(run / "split.csv").rows} == set(CLASSES)
    for path in (run / "test_predictions.csv", tmp_path / "evaluated.csv", tmp_path / "again.csv"):
        found = read_predictions(path, multi_label=False)
        assert set(found.truth) == set(found.classes) == set(CLASSES)
        assert set(found.predicted) <= set(CLASSES)
    with (tmp_path / "predicted.csv").open(encoding="utf-8", newline="") as file:
        titles, *rows = csv.reader(file, strict=True)
    assert [title[2:-1] for title in titles[3:]] == found.classes
    assert [plain(row[0]) for row in rows] == images
    for path in [*run.glob("*.csv"), *tmp_path.glob("*.csv")]:
        assert not [cell for cell in cells(path) if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]
    for page in (run / "report.html", tmp_path / "page.html"):
        content = page.read_text(encoding="utf-8")
        assert "<script>alert" not in content
    assert html.escape("<script>alert(1)</script>") in content or r"\u003cscript" in content


@pytest.mark.parametrize("name", ["bad\x1b]0;PWN\x07.png", "--\x1b[2J", "\u202egpj", "two\nlines.png"])
def test_errors_and_wrong_arguments_show_names_harmlessly(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad").mkdir()
    for arguments in (
        ["predict", str(tmp_path / "run"), str(tmp_path / name)],
        ["predict", name, name],
        ["finetune", str(tmp_path / name)],
        ["verify", name],
        ["doctor", "test_resnet", name],
        ["report", name],
        ["evaluate", name],
        ["ls", name],
        ["finetune", name, "--p", name],
    ):
        try:
            assert main(arguments) == 1
        except SystemExit as stop:  # the parser's own
            assert stop.code == 2
        said = capsys.readouterr()
        assert said.err
        assert not steers(said.out + said.err)
        if said.err.startswith("error: "):
            assert said.err.count("\n") == 1


@pytest.mark.filterwarnings("default")
def test_warnings_show_names_harmlessly(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_options: list[str]
) -> None:
    (photos / "red/half\x1b]0;PWN\x07.png").write_bytes((photos / "red/000.png").read_bytes()[:60])
    (photos / "red/note\x1b[2J.txt").write_text("")
    (photos / "red/copy\u202e.png").write_bytes((photos / "blue/001.png").read_bytes())
    arguments = [*tiny_options, "--steps=1", "--eval-every=0", "--out", str(tmp_path / "run")]
    assert main(["finetune", str(photos), *arguments]) == 0
    said = capsys.readouterr()
    assert not steers(said.out + said.err)
    for name in (r"half\x1b]0;PWN\x07.png", r"note\x1b[2J.txt", r"copy\u202e.png"):
        assert name in said.err
