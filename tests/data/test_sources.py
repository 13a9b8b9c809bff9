"""Folders, manifests and known data sets, good and bad."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from stochnorm.data import Row, format_manifest, read_source

Write = Callable[..., list[Path]]


def test_a_folder_per_class(photos: Path) -> None:
    source = read_source(photos)
    assert Counter(row.label for row in source.rows) == {"blue": 10, "green": 10, "red": 10}
    assert source.rows[0] == Row("blue/000.png", "blue", "")
    assert source.root == photos.resolve()


def test_train_valid_test_folders_and_nested_images(tmp_path: Path, write_images: Write) -> None:
    for split in ("train", "valid", "test"):
        for label in ("a", "b"):
            write_images(tmp_path / split / label / "deeper", 2)
    assert Counter(row.split for row in read_source(tmp_path).rows) == {"train": 4, "val": 4, "test": 4}


def test_split_folders_may_be_capitalised(tmp_path: Path, write_images: Write) -> None:
    for split in ("Train", "Test"):
        for label in ("a", "b"):
            write_images(tmp_path / split / label, 2)
    rows = read_source(tmp_path).rows
    assert Counter((row.split, row.label) for row in rows) == {(s, c): 2 for s in ("train", "test") for c in "ab"}


def test_a_class_may_be_called_train(tmp_path: Path, write_images: Write) -> None:
    for label in ("train", "bus"):
        write_images(tmp_path / label, 2)
    assert {row.label for row in read_source(tmp_path).rows} == {"train", "bus"}


def test_files_that_are_no_images_are_left_out_with_a_warning(photos: Path) -> None:
    (photos / "red/notes.txt").write_text("x")
    (photos / "red/.DS_Store").write_text("x")
    with pytest.warns(UserWarning, match=r"red: left out 1 files that are no images: notes.txt"):
        assert len(read_source(photos).rows) == 30


def test_extensions_may_be_in_upper_case(tmp_path: Path, write_images: Write) -> None:
    for label in "ab":
        write_images(tmp_path / label, 2, suffix=".PNG")
    assert len(read_source(tmp_path).rows) == 4


def test_linked_folders_are_followed_but_not_to_one_they_lie_in(
    tmp_path: Path, photos: Path, write_images: Write
) -> None:
    write_images(tmp_path / "else/where", 3)
    (tmp_path / "else/where/back").symlink_to(photos / "red")
    (photos / "red/more").symlink_to(tmp_path / "else/where")
    (photos / "red/up").symlink_to(photos)
    (photos / "loop").symlink_to(photos)
    (photos / "pink").symlink_to(photos / "red")
    counts = Counter(row.label for row in read_source(photos).rows)
    assert counts == {"blue": 10, "green": 10, "red": 13, "pink": 13}


def test_links_that_lead_to_nothing_are_warned_of(photos: Path) -> None:
    (photos / "red/lost.png").symlink_to(photos / "nowhere.png")
    with pytest.warns(UserWarning, match=r"red: left out 1 links that lead to nothing: lost.png"):
        assert len(read_source(photos).rows) == 30
    (photos / "red/lost.png").unlink()
    (photos / "pink").symlink_to(photos / "nowhere")
    with pytest.warns(UserWarning, match=r"photos: left out 1 links that lead to nothing: pink"):
        assert len(read_source(photos).rows) == 30


def test_what_a_mac_adds_to_archives_is_skipped(photos: Path, write_images: Write) -> None:
    write_images(photos / "__MACOSX/red", 2)
    write_images(photos / "red/__MACOSX", 2)
    assert len(read_source(photos).rows) == 30


def test_a_written_manifest_reads_back(photos: Path) -> None:
    rows = [row._replace(split="train", label='a "quoted", label') for row in read_source(photos).rows[:10]]
    rows += [row._replace(split="test") for row in read_source(photos).rows[10:]]
    (photos / "list.csv").write_text(format_manifest(rows))
    assert read_source(photos / "list.csv").rows == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,class\nred/000.png,red\n", r"list.csv: .*columns path,label\[,split\], got file,class"),
        ("path,label\nred/000.png,\n", r"list.csv:2: the label of 'red/000.png' is missing"),
        ("path,label\n,red\n", r"list.csv:2: path is missing"),
        ("path,label,split\nred/000.png,red,trian\n", r"list.csv:2: split must be train, val or test, got 'trian'"),
        ("path,label\n../outside.png,red\n", r"list.csv:2: '../outside.png' lies outside"),
        ("path,label\n/etc/passwd,red\n", r"list.csv:2: '/etc/passwd' lies outside"),
        ("path,label\nred/000.png,red\nred/../red/000.png,blue\n", r"list.csv:3: 'red/000.png' stands in line 2"),
        ('path,label\nred/000.png,"red\nred/001.png,red\n', r"list.csv:2: cannot be read as CSV \(unexpected end"),
        (
            'path,label\nred/000.png,"red\nred/001.png,red\nblue/000.png,"blue"\n',
            r"list.csv:2: cannot be read as CSV \(.*expected after",
        ),
        (
            'path,label\nred/000.png,red\nred/001.png,"red\nblue/000.png,"\n',
            r"list.csv:3: a value goes on to line 4; close its quote",
        ),
        ("path,label\nred/000.png,dark, red\n", r"list.csv:2: has 3 values for 2 columns; put a value that holds a"),
        ("path,label,Label\nred/000.png,red,blue\n", r"list.csv: the first line names label more than once"),
        ("path;label\nred/000.png;red\n", r"got path;label; separate columns by commas, not semicolons"),
        ("path\tlabel\nred/000.png\tred\n", r"separate columns by commas, not tabs"),
        ("path,label\n", r"lists no images"),
        ("", r"got nothing"),
    ],
)
def test_a_bad_manifest_is_named_with_its_line(photos: Path, text: str, message: str) -> None:
    (photos / "list.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_source(photos / "list.csv")


def test_manifests_of_spreadsheets_are_read(photos: Path) -> None:
    """With a byte order mark, capitals, spaces, empty columns and lines."""
    text = "Path , LABEL,Split,,\r\nred/000.png,red,TRAIN,,\r\n\r\nblue/000.png, blue ,Test,,\r\n"
    (photos / "list.csv").write_bytes(text.encode("utf-8-sig"))
    assert read_source(photos / "list.csv").rows == [
        Row("red/000.png", "red", "train"),
        Row("blue/000.png", "blue", "test"),
    ]


@pytest.mark.parametrize(("mark", "warned"), [(";", True), (", ", True), ("|", False)])
def test_labels_that_look_joined_otherwise_are_warned_of(photos: Path, mark: str, warned: bool) -> None:
    (photos / "list.csv").write_text(f'path,labels\nred/000.png,"Mass{mark}Edema"\nblue/000.png,Mass\n')
    with pytest.warns(UserWarning, match="is read as one label; several are joined by") if warned else nullcontext():
        assert len(read_source(photos / "list.csv").classes) == 2


def test_numbers_as_classes_are_sorted_by_their_value(tmp_path: Path, write_images: Write) -> None:
    for label in ("10", "9", "100"):
        write_images(tmp_path / label, 1)
    assert read_source(tmp_path).classes == ("9", "10", "100")
    write_images(tmp_path / "b", 1)
    assert read_source(tmp_path).classes == ("10", "100", "9", "b")


def test_missing_images_of_a_manifest_are_counted_and_named(photos: Path) -> None:
    (photos / "list.csv").write_text("path,label\nred/000.png,red\nred/x.png,red\nblue/y.png,blue\n")
    with pytest.raises(FileNotFoundError, match=r"2 of 3 listed images do not exist .*red/x.png, blue/y.png"):
        read_source(photos / "list.csv")


def test_bad_folders_are_named(tmp_path: Path, photos: Path, write_images: Write) -> None:
    (photos / "empty").mkdir()
    with pytest.raises(ValueError, match=r"photos/empty: this class folder holds no images"):
        read_source(photos)
    write_images(tmp_path / "loose", 2)
    with pytest.raises(ValueError, match=r"loose: expected a folder per class, found only loose images"):
        read_source(tmp_path / "loose")
    write_images(tmp_path / "one/cat", 2)
    with pytest.raises(ValueError, match=r"at least 2 classes, found only 'cat'"):
        read_source(tmp_path / "one")
    write_images(tmp_path / "one", 1)
    with pytest.raises(ValueError, match=r"1 images beside the class folders \(000.png"):
        read_source(tmp_path / "one")
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder; DATA is"):
        read_source(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"000.png: is a single file; DATA is a folder .* use stochnorm predict"):
        read_source(photos / "red/000.png")


@pytest.mark.parametrize("stray", ["testing", "holdout"])
def test_a_folder_beside_train_that_is_no_split_is_refused(tmp_path: Path, write_images: Write, stray: str) -> None:
    for split in ("train", stray):
        for label in "ab":
            write_images(tmp_path / split / label, 2)
    with pytest.raises(ValueError, match=rf"beside which only val/ and test/ are known; found {stray}: rename"):
        read_source(tmp_path)


def test_a_class_called_train_with_folders_swallows_no_other_class(tmp_path: Path, write_images: Write) -> None:
    for folder in ("train/2001", "bus", "tram"):
        write_images(tmp_path / folder, 2)
    with pytest.raises(ValueError, match=r"found bus, tram: .*if train is a class"):
        read_source(tmp_path)


@pytest.mark.parametrize("names", [("training", "testing"), ("val", "test")])
def test_splits_without_train_are_no_classes(tmp_path: Path, write_images: Write, names: tuple[str, ...]) -> None:
    for split in names:
        for label in "ab":
            write_images(tmp_path / split / label, 2)
    with pytest.raises(ValueError, match="hold folders as splits do, but there is no split called train"):
        read_source(tmp_path)


@pytest.mark.parametrize("file", ["metrics.jsonl", "model.safetensors"])
def test_a_run_among_the_classes_is_refused(photos: Path, write_images: Write, file: str) -> None:
    run = photos / "runs/photos-stochnorm-1a2b3c4d"
    write_images(run, 1)
    for name in ("config.json", file):
        (run / name).write_text("{}")
    with pytest.raises(
        ValueError, match=r"runs/photos-stochnorm-1a2b3c4d is a run of stochnorm.*move it out of .*photos"
    ):
        read_source(photos)


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="file names are Unicode there")
@pytest.mark.parametrize("name", [b"caf\xe9.png", b"notes\xe9.txt"])
def test_a_file_name_that_is_not_utf_8_is_an_error(photos: Path, name: bytes) -> None:
    (photos / "red/000.png").rename(photos / "red" / os.fsdecode(name))
    with pytest.raises(ValueError, match=r"\\xe9.* is not UTF-8; rename it") as caught:
        read_source(photos)
    str(caught.value).encode()  # the message itself can be printed


@pytest.mark.skipif(sys.platform == "win32", reason="file names have no line breaks there")
def test_a_file_name_with_a_line_break_is_an_error(photos: Path) -> None:
    (photos / "red/000.png").rename(photos / "red/0\n0.png")
    with pytest.raises(ValueError, match=r"'0\\n0.png' has a line break"):
        read_source(photos)


def test_a_manifest_that_is_not_utf_8_is_named_with_its_line(photos: Path) -> None:
    (photos / "list.csv").write_bytes("path,label\nred/000.png,rot\nblue/000.png,grün\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"list.csv:3: is not UTF-8 text \(byte 0xfc\); save it as UTF-8"):
        read_source(photos / "list.csv")


def test_linked_images_keep_the_name_the_manifest_gives_them(tmp_path: Path, photos: Path) -> None:
    folder = tmp_path / "links"
    folder.mkdir()
    for label in ("red", "blue"):
        (folder / f"{label}.png").symlink_to(photos / label / "000.png")
    (folder / "list.csv").write_text("path,label\nred.png,red\n./x/../blue.png,blue\n")
    source = read_source(folder / "list.csv")
    assert source.rows == [Row("red.png", "red"), Row("blue.png", "blue")]


def test_multi_label_manifests_with_groups_read_back(photos: Path) -> None:
    rows = [
        Row("red/000.png", "Mass|Edema", "train", "7"),
        Row("red/001.png", "", "train", "7"),
        Row("blue/000.png", "Edema", "test", "8, junior"),
    ]
    (photos / "list.csv").write_text(format_manifest(rows, multi_label=True))
    source = read_source(photos / "list.csv")
    assert source.rows == rows
    assert source.multi_label
    assert source.classes == ("Edema", "Mass")
    assert source.name == "list"


def test_a_single_label_manifest_keeps_its_groups_and_bars(photos: Path) -> None:
    rows = [Row("red/000.png", "a|b", "train", "1"), Row("red/001.png", "c", "train", "2")]
    (photos / "list.csv").write_text(format_manifest(rows))
    source = read_source(photos / "list.csv")
    assert (source.rows, source.classes, source.multi_label) == (rows, ("a|b", "c"), False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label,labels\nred/000.png,a,b\n", r"must name the columns path,label\[,split\], got path,label,labels"),
        ("path,label,group\nred/000.png,a,\n", r"list.csv:2: the group of 'red/000.png' is missing"),
        ("path,labels\nred/000.png,\n", "no image has a finding"),
    ],
)
def test_a_bad_grouped_or_multi_label_manifest_is_named(photos: Path, text: str, message: str) -> None:
    (photos / "list.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_source(photos / "list.csv")


def test_a_class_without_training_images_is_named(tmp_path: Path, write_images: Write) -> None:
    for split, labels in (("train", "ab"), ("test", "abc")):
        for label in labels:
            write_images(tmp_path / split / label, 2)
    with pytest.raises(ValueError, match="classes without training images: c"):
        read_source(tmp_path)


def test_elpv_has_its_published_counts() -> None:
    pytest.importorskip("elpv_dataset")
    source = read_source("elpv")
    assert Counter(row.label for row in source.rows) == {
        "mono functional": 588,
        "mono defective": 486,
        "poly functional": 920,
        "poly defective": 630,
    }
    assert all((source.root / row.path).is_file() for row in source.rows)
