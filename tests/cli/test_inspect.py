"""The command inspect: its files and its exit status."""

from __future__ import annotations

import shutil
from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from stochnorm.cli.main import main
from stochnorm.data.inspection.inspect import inspect_data


@pytest.fixture
def leaky(tmp_path: Path, photos: Path) -> Path:
    """Splits with the same images in both, of which one has a name that would be a tag of a page."""
    for split in ("train", "test"):
        shutil.copytree(photos, tmp_path / "leaky" / split)
    image = Image.effect_noise((40, 40), 80)
    image.save(tmp_path / "leaky/train/red/<img src=x onerror=alert(1)>.png")
    image.save(tmp_path / "leaky/test/red/plain.png", compress_level=1)
    return tmp_path / "leaky"


def test_the_page_shows_pairs_and_the_file_has_all(
    leaky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(leaky), "--out", str(tmp_path / "look")]) == 0
    said = capsys.readouterr().out
    assert "leaky: 3 classes, 62 images, 31 train, 0 val, 31 test" in said
    assert "leak: 31" in said
    inspection = inspect_data(leaky)
    assert (tmp_path / "look/findings.csv").read_text() == inspection.csv()
    page = (tmp_path / "look/inspection.html").read_text()
    assert "Copies across splits (31)" in page
    assert page.count('<img src="data:image/jpeg;base64,') == 2 * 24
    assert "7 more in findings.csv" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_names_are_escaped_on_the_page(leaky: Path, tmp_path: Path) -> None:
    for label in ("blue", "green"):
        for split in ("train", "test"):
            shutil.rmtree(leaky / split / label)
            shutil.copytree(leaky / split / "red", leaky / split / label)
    for path in leaky.glob("*/*/0*.png"):
        path.unlink()
    assert main(["inspect", str(leaky), "--out", str(tmp_path / "look")]) == 0
    page = (tmp_path / "look/inspection.html").read_text()
    assert "<img src=x" not in page
    assert "red/<img src=x onerror=alert(1)>.png" in unescape(page)


@pytest.mark.parametrize(("kinds", "status"), [(["leak"], 3), (["blank", "dark"], 0), (["any"], 3), ([], 0)])
def test_the_exit_status_tells_scripts_what_they_asked_for(
    leaky: Path, tmp_path: Path, kinds: list[str], status: int
) -> None:
    arguments = ["inspect", str(leaky), "--out", str(tmp_path / "look"), "--no-page"]
    assert main([*arguments, *(["--fail-on", *kinds] if kinds else [])]) == status
    assert [path.name for path in (tmp_path / "look").iterdir()] == ["findings.csv"]


def test_an_unknown_kind_is_an_error(leaky: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(leaky), "--fail-on", "leaks"]) == 1
    assert "no kind of finding is called leaks; the kinds are unreadable, leak," in capsys.readouterr().err


def test_another_file_is_not_written_over(leaky: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "findings.csv").write_text("my own")
    assert main(["inspect", str(leaky), "--out", str(tmp_path), "--no-page"]) == 1
    assert "is no file of findings that stochnorm wrote" in capsys.readouterr().err
    assert (tmp_path / "findings.csv").read_text() == "my own"
