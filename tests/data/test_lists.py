"""Index lists, written and read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stochnorm.data import DATASETS, Row, assign_splits, export_lists, read_lists, verify

ROWS = [Row(f"images/{label}/my {label} {i}.jpg", label) for label in "ab" for i in range(20)]
ASSIGNED = assign_splits(ROWS, rate=50, val_fraction=0.2, test_fraction=0.2, seed=0)


def write(folder: Path, **lists: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    for split, lines in lists.items():
        (folder / f"{split}.txt").write_text("\n".join(lines))
    return folder


def test_exported_lists_read_back(tmp_path: Path) -> None:
    files = export_lists(ASSIGNED, tmp_path / "new/lists")
    assert [path.name for path in files] == ["train.txt", "val.txt", "test.txt"]
    assert files[0].read_text().splitlines() == [row.path for row in ASSIGNED if row.split == "train"]
    assert sorted(read_lists(tmp_path / "new/lists", ROWS)) == sorted(ASSIGNED)


def test_lists_are_never_overwritten_or_written_for_images_without_a_split(tmp_path: Path) -> None:
    export_lists(ASSIGNED, tmp_path)
    with pytest.raises(FileExistsError, match=r"has train.txt, val.txt, test.txt; export to another"):
        export_lists(ASSIGNED, tmp_path)
    with pytest.raises(ValueError, match="images without a split"):
        export_lists(ROWS, tmp_path / "other")
    with pytest.raises(ValueError, match="line break"):
        export_lists([Row("a\nb.png", "a", "train")], tmp_path / "other")


def test_a_released_list_gives_paths_and_labels(tmp_path: Path) -> None:
    folder = write(
        tmp_path, train=["images/a/my a 0.jpg 0", "./images/b/my b 7.jpg  1", ""], test=["images/b/my b 8.jpg"]
    )
    assert read_lists(folder, ROWS) == [
        Row("images/a/my a 0.jpg", "a", "train"),
        Row("images/b/my b 7.jpg", "b", "train"),
        Row("images/b/my b 8.jpg", "b", "test"),
    ]


def test_a_list_of_another_layout_is_matched_by_unique_file_names(tmp_path: Path) -> None:
    rows = [Row("cars_train/1.jpg", "a"), Row("cars_train/2.jpg", "b"), Row("cars_test/2.jpg", "b")]
    assert read_lists(write(tmp_path, train=["train/Audi TT/1.jpg 17"]), rows) == [
        Row("cars_train/1.jpg", "a", "train")
    ]
    both = write(tmp_path, train=["train/Audi TT/1.jpg 17", "train/Fiat/2.jpg 1"])
    with pytest.raises(ValueError, match=r"train.txt: 1 of 2 lines are ambiguous, .*: train/Fiat/2.jpg 1 \(2 files\)"):
        read_lists(both, rows)
    with pytest.raises(ValueError, match=r"1 of 1 lines name no image of the data: train/3.jpg 1"):
        read_lists(write(tmp_path, train=["train/3.jpg 1"]), rows)


def test_files_of_the_same_name_are_told_apart_by_the_split_of_the_list(tmp_path: Path) -> None:
    rows = [Row(f"cars_{split}/{i}.jpg", "a", split) for split in ("train", "test") for i in range(4)]
    folder = write(tmp_path, train=["0.jpg 17", "1.jpg 17"], val=["3.jpg 17"], test=["car_ims/0.jpg 17"])
    assert [(row.path, row.split) for row in read_lists(folder, rows)] == [
        ("cars_train/0.jpg", "train"),
        ("cars_train/1.jpg", "train"),
        ("cars_train/3.jpg", "val"),
        ("cars_test/0.jpg", "test"),
    ]


@pytest.mark.parametrize("prefix", ["/home/somebody/CUB/images/", "CUB/images/", "", "/elsewhere/"])
def test_paths_from_another_folder_are_matched_by_their_ends(tmp_path: Path, prefix: str) -> None:
    rows = [Row(f"images/{label}/{i}.jpg", label) for label in "ab" for i in range(2)]
    folder = write(tmp_path, train=[f"{prefix}a/0.jpg 0", f"{prefix}b/0.jpg 1"])
    assert [row.path for row in read_lists(folder, rows)] == ["images/a/0.jpg", "images/b/0.jpg"]


@pytest.mark.parametrize("label", ["\t7", "  7", " 0 1 0 0 1", "\t0\t1"])
def test_labels_behind_any_white_space_are_not_read(tmp_path: Path, label: str) -> None:
    folder = write(tmp_path, train=[f"images/a/my a 0.jpg{label}"])
    assert read_lists(folder, ROWS) == [Row("images/a/my a 0.jpg", "a", "train")]


def test_a_file_alone_is_the_training_list(tmp_path: Path) -> None:
    rows = [Row(f"{split}{i}.png", "a", split) for split in ("train", "test") for i in range(3)]
    (tmp_path / "cub_15.txt").write_text("train1.png 0\n")
    assert [row.path for row in read_lists(tmp_path / "cub_15.txt", rows)] == [
        "train1.png",
        *(f"test{i}.png" for i in range(3)),
    ]
    (tmp_path / "cub_15.txt").write_text("train1.png 0\ntrain1.png 0\n")
    with pytest.raises(ValueError, match=r"cub_15.txt: train1.png is also in cub_15.txt"):
        read_lists(tmp_path / "cub_15.txt", rows)


def test_an_empty_training_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train.txt: names no training image"):
        read_lists(write(tmp_path, train=["", " "]), ROWS)


def test_unknown_paths_are_counted_and_named(tmp_path: Path) -> None:
    folder = write(tmp_path, train=["images/a/my a 0.jpg", "images/b/my a 1.jpg", "images/a/none.jpg 3"])
    with pytest.raises(
        ValueError, match=r"2 of 3 lines name no image of the data: images/b/my a 1.jpg, images/a/none.jpg 3"
    ):
        read_lists(folder, ROWS)


def test_the_sources_own_splits_stay_where_no_list_gives_them(tmp_path: Path) -> None:
    rows = [Row(f"{split}{i}.png", "a", split) for split in ("train", "val", "test") for i in range(3)]
    listed = read_lists(write(tmp_path, train=["train0.png", "val2.png"]), rows)
    assert {(row.path, row.split) for row in listed} == {
        ("train0.png", "train"),
        ("val2.png", "train"),
        ("val0.png", "val"),
        ("val1.png", "val"),
        *((f"test{i}.png", "test") for i in range(3)),
    }


def test_lists_that_would_train_on_test_images_are_refused(tmp_path: Path) -> None:
    rows = [Row("1.png", "a", "train"), Row("2.png", "a", "test"), Row("3.png", "a", "test")]
    folder = write(tmp_path, train=["1.png", "2.png"])
    with pytest.raises(ValueError, match=r"lists 1 image of the data's test split: 2.png; add test.txt"):
        read_lists(folder, rows)
    assert [row.split for row in read_lists(write(folder, test=["3.png"]), rows)] == ["train", "train", "test"]
    with pytest.raises(ValueError, match=r"test.txt: 1.png is also in train.txt"):
        read_lists(write(folder, test=["1.png"]), rows)


def test_lists_divide_no_patient_and_need_train(tmp_path: Path) -> None:
    rows = [Row(f"{i}.png", "a", "", "patient 7") for i in range(2)]
    with pytest.raises(
        FileNotFoundError, match=r"train.txt: no such list; a folder of lists has train.txt \[val.txt\]"
    ):
        read_lists(write(tmp_path, test=["0.png"]), rows)
    with pytest.raises(ValueError, match="two splits: patient 7"):
        read_lists(write(tmp_path, train=["1.png"]), rows)


def test_the_python_of_the_documentation_runs(
    tmp_path: Path, write_official: Callable[[str, Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_official("cub", tmp_path / "data/CUB_200_2011")
    counts = verify(folder).found
    monkeypatch.setitem(DATASETS, "cub", replace(DATASETS["cub"], counts=counts, class_digest=""))
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(block, names)  # noqa: S102
    assert len((tmp_path / "lists/cub-15/test.txt").read_text().splitlines()) == 8
    assert Counter(row.split for row in names["rows"]) == {"train": 2, "test": 8}  # ceil(0.9) of 6, too few to cut
