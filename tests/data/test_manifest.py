"""CSV manifests, good and bad."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from stochnorm.data import Row, format_manifest, read_source


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
        (
            "path,label\nred/000.png,red\nred/../red/000.png,blue\n",
            r"list.csv:3: 'red/000.png' is a duplicate of line 2",
        ),
        ('path,label\nred/000.png,"red\nred/001.png,red\n', r"list.csv:2: cannot be read as CSV \(unexpected end"),
        (
            'path,label\nred/000.png,"red\nred/001.png,red\nblue/000.png,"blue"\n',
            r"list.csv:2: cannot be read as CSV \(.*expected after",
        ),
        (
            'path,label\nred/000.png,red\nred/001.png,"red\nblue/000.png,"\n',
            r"list.csv:3: a value continues on line 4; close its quote",
        ),
        ("path,label\nred/000.png,dark, red\n", r"list.csv:2: 3 values for 2 columns \(path,label\); put a value that"),
        ("My table\npath,label\n", r"list.csv:2: 2 values for 1 column \(my table\)"),
        ("path|label\nred/000.png|red\n", r"separate columns by commas, not bars"),
        ("path,label\nC:/red/000.png,red\n", r"list.csv:2: 'C:/red/000.png' is a path of another computer"),
        ("path,label\nred/000.png,#REF!\n", r"list.csv:2: the label of 'red/000.png' is '#REF!', which is how"),
        ("path,label,Label\nred/000.png,red,blue\n", r"list.csv: duplicate column label in the first line"),
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
        Row("blue/000.png", "blue", "test"),
        Row("red/000.png", "red", "train"),
    ]


@pytest.mark.parametrize(("mark", "warned"), [(";", True), (", ", True), ("|", False)])
def test_labels_that_look_joined_otherwise_are_warned_of(photos: Path, mark: str, warned: bool) -> None:
    (photos / "list.csv").write_text(f'path,labels\nred/000.png,"Mass{mark}Edema"\nblue/000.png,Mass\n')
    with pytest.warns(UserWarning, match="is read as one label; join several labels by") if warned else nullcontext():
        assert len(read_source(photos / "list.csv").classes) == 2


def test_missing_images_of_a_manifest_are_counted_and_named(photos: Path) -> None:
    (photos / "list.csv").write_text("path,label\nred/000.png,red\nred/x.png,red\nblue/y.png,blue\n")
    with pytest.raises(FileNotFoundError, match=r"2 of 3 listed images do not exist .*blue/y.png, red/x.png"):
        read_source(photos / "list.csv")


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
    assert source.rows == [Row("blue.png", "blue"), Row("red.png", "red")]


def test_multi_label_manifests_with_groups_read_back(photos: Path) -> None:
    rows = [
        Row("blue/000.png", "Edema", "test", "8, junior"),
        Row("red/000.png", "Mass|Edema", "train", "7"),
        Row("red/001.png", "", "train", "7"),
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
