"""FGVC-Aircraft: generated lists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stochnorm.data import Source, read_source
from stochnorm.data.published.aircraft import list_aircraft

Count = Callable[[Source], dict[str, int]]


def test_aircraft_keep_their_three_splits_and_names_with_spaces(aircraft: Path, splits: Count) -> None:
    source = list_aircraft(aircraft)
    assert source.classes == ("707-320", "F/A-18", "Boeing 717")  # the order of variants.txt
    assert splits(source) == {"train": 12, "val": 12, "test": 12}
    assert {row.label for row in source.rows} == set(source.classes)
    for split in ("train", "val"):
        (aircraft / f"data/images_variant_{split}.txt").unlink()
    assert splits(list_aircraft(aircraft)) == {"train": 24, "test": 12}
    assert splits(list_aircraft(aircraft / "data")) == {"train": 24, "test": 12}


def test_aircraft_lists_that_contradict_each_other_are_errors(aircraft: Path) -> None:
    trainval = aircraft / "data/images_variant_trainval.txt"
    trainval.write_text(trainval.read_text() + "\n9999999 F/A-18\n")
    with pytest.raises(ValueError, match=r"trainval.txt is not the train and val lists together"):
        list_aircraft(aircraft)
    trainval.unlink()
    test = aircraft / "data/images_variant_test.txt"
    test.write_text("1000000 707-320\n")
    with pytest.raises(ValueError, match=r"1 image listed more than once: data/images/1000000.jpg"):
        read_source(aircraft)
    test.write_text("1000030 Concorde\n")
    with pytest.raises(ValueError, match=r"not in variants.txt: Concorde"):
        list_aircraft(aircraft)
    (aircraft / "data/images_variant_train.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"aircraft/data has no images_variant_train.txt; copy"):
        list_aircraft(aircraft)
