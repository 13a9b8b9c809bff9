"""URLs in place of files are refused by name; no folder `s3:` is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stochnorm import Grid, Variant, compare, evaluate, finetune, load_classifier, predict
from stochnorm.data import read_source, verify
from stochnorm.models.weights import read_state_dict

URL = "s3://bucket/x"


@pytest.mark.parametrize(
    "act",
    [
        read_source,
        verify,
        load_classifier,
        evaluate,
        lambda url: predict(url, ["x.png"]),
        lambda url: read_state_dict(Path(url)),
    ],
)
def test_a_url_to_read_is_refused_by_its_name(act: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match=rf"{URL} is a URL; stochnorm reads and writes local files alone: copy it"):
        act(URL)


def test_a_url_to_write_is_refused_and_no_folder_is_made(
    photos: Path, config: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = config(photos, URL)
    grid = Grid(settings, (Variant("vanilla", {"method": "vanilla"}),))
    for act in (lambda: finetune(settings), lambda: compare(grid, URL)):
        with pytest.raises(ValueError, match=f"{URL} is a URL"):
            act()
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_folder_whose_name_begins_as_a_url_is_one(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a:").mkdir()
    photos.rename(tmp_path / "a:/photos")
    monkeypatch.chdir(tmp_path)
    assert len(read_source("a:/photos").rows) == 30
