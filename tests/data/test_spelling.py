"""Tests of the names of classes that look the same, or nearly."""

from pathlib import Path

import pytest

from stochnorm.data.source import read_source
from stochnorm.data.spelling import alike

JOINED = "\u0645\u06cc\u200c\u062e\u0648"  # a word whose letters the joiner keeps apart


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cat", "cat\u200b"),
        ("cat", "\ufeffcat"),
        ("big cat", "big\u00a0cat"),
        ("big cat", "big  cat"),
        ("a", "\u202aa"),
    ],
)
def test_names_that_look_the_same_are_one_class_of_a_list_and_an_error_of_folders(
    one: str, other: str, photos: Path, tmp_path: Path
) -> None:
    assert alike(one) == alike(other) == one
    lines = [f"red/000.png,{other}", f"red/001.png,{one}", "blue/000.png,dog"]
    (photos / "list.csv").write_text("\n".join(["path,label", *lines]), encoding="utf-8")
    with pytest.warns(UserWarning, match="1 class spelled in several ways that look the same"):
        source = read_source(photos / "list.csv")
    assert source.classes == tuple(sorted([one, "dog"]))
    for name in (one, other):
        (photos / "red").rename(photos / name) if name == one else (photos / name).mkdir()
    (photos / one / "000.png").rename(photos / other / "000.png")
    with pytest.raises(ValueError, match="class folders whose names look the same"):
        read_source(photos)


def test_letters_that_a_joiner_changes_are_two_names() -> None:
    assert alike(JOINED) != alike(JOINED.replace("\u200c", ""))


@pytest.mark.parametrize("names", [("Cat", "cat"), ("01", "1"), ("1", "1.0"), ("x", "\uff58"), ("True", "true")])
def test_names_that_differ_in_capitals_or_as_numbers_are_two_classes_with_a_warning(
    names: tuple[str, str], photos: Path
) -> None:
    text = f"path,label\nred/000.png,{names[0]}\nblue/000.png,{names[1]}\n"
    (photos / "list.csv").write_text(text, encoding="utf-8")
    with pytest.warns(UserWarning, match=f"classes whose names differ only in .*: '{names[0]}' and '{names[1]}'; if"):
        assert set(read_source(photos / "list.csv").classes) == set(names)
    (photos / "red").rename(photos / names[0])
    (photos / "blue").rename(photos / names[1])
    with pytest.warns(UserWarning, match="classes whose names differ only in capitals"):
        read_source(photos)


def test_a_word_for_a_missing_value_is_a_class_with_a_warning(photos: Path) -> None:
    (photos / "list.csv").write_text("path,label\nred/000.png,None\nblue/000.png,blue\n")
    with pytest.warns(UserWarning, match="None is read as a class; if it stands for a missing label, remove its"):
        assert read_source(photos / "list.csv").classes == ("None", "blue")
