"""CUB-200-2011: generated lists, and the real ones next to the checkout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from stochnorm.data import Source, read_source, verify
from stochnorm.data.published.cub import list_cub

Count = Callable[[Source], dict[str, int]]


def test_cub_is_read_as_its_lists_say(cub: Path) -> None:
    with pytest.warns(UserWarning, match="2 of 200 classes, 20 of 11,788 images, 12 of 5,994 train, 8 of 5,794 test"):
        source = read_source(cub)
    assert source.classes == ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    assert Counter((row.label, row.split) for row in source.rows) == {
        (name, split): n for name in source.classes for split, n in (("train", 6), ("test", 4))
    }
    path = "images/001.Black_footed_Albatross/Black_footed_Albatross_0006.jpg"
    assert next(row for row in source.rows if row.path == path)[1:3] == ("001.Black_footed_Albatross", "test")


def test_a_missing_or_contradicting_list_of_cub_is_named(cub: Path) -> None:
    labels = (cub / "image_class_labels.txt").read_text()
    for text, message in (
        (labels + "\n99 1", "image_class_labels.txt: does not number the images of images.txt: 99"),
        (labels.replace("\n20 2", "\n20 7"), "image 20 has class 7 and split 0"),
        (labels.replace("\n20 2", "\n20 1"), "image 20 is 002.Laysan_Albatross/.*, but of class 001"),
        (labels.replace("\n20 2", "\n20"), "'20' has no value"),
        (labels + "\n20 2", "'20 2' has a duplicate key"),
    ):
        (cub / "image_class_labels.txt").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_source(cub)
        assert message.split(":")[-1].split(",")[0][:9] in verify(cub).problems[0]
    (cub / "image_class_labels.txt").write_text(labels)
    (cub / "classes.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"taken for CUB-200-2011 .*: .*cub has no classes.txt; copy"):
        read_source(cub)


def test_an_image_that_a_list_of_cub_has_twice_is_an_error(cub: Path) -> None:
    path = "001.Black_footed_Albatross/Black_footed_Albatross_0000.jpg"  # trains as number 1, would test as 21
    for name, value in (("images", path), ("image_class_labels", "1"), ("train_test_split", "0")):
        (cub / f"{name}.txt").write_text((cub / f"{name}.txt").read_text() + f"\n21 {value}")
    with pytest.raises(ValueError, match=rf"1 image listed more than once: images/{path}; correct the lists"):
        read_source(cub)
    assert "more than once" in verify(cub).problems[0]


def test_real_cub_has_its_official_lists(shared: Path) -> None:
    report = verify(shared / "data/annotations/CUB_200_2011")
    assert report.found == {"classes": 200, "images": 11788, "train": 5994, "test": 5794}
    assert not report.differences
    assert len(report.missing) == 11788
    assert report.problems == (f"no folder images/ in {(shared / 'data/annotations/CUB_200_2011').resolve()}",)
    assert len(list_cub(shared / "data/annotations/CUB_200_2011").classes) == 200


def test_real_cub_100_is_read_with_a_warning(shared: Path, splits: Count) -> None:
    with pytest.warns(UserWarning, match="100 of 200 classes, 5,902 of 11,788 images, 2,999 of 5,994 train, 2,903 of"):
        source = read_source(shared / "data/CUB_100")
    assert len(source.classes) == 100
    assert splits(source) == {"train": 2999, "test": 2903}
    report = verify(shared / "data/CUB_100")
    assert (report.missing, report.surplus, report.problems) == ((), (), ())
