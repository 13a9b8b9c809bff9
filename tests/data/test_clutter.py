"""What phones, desktops and network disks leave in folders of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stochnorm.data import Row, read_source, verify

Write = Callable[..., list[Path]]


@pytest.fixture
def cluttered(photos: Path, write_images: Write) -> Path:
    """Photographs of three classes, after macOS, Windows, two network disks and a notebook have been there."""
    one = (photos / "red/000.png").read_bytes()
    for name in (
        *(".DS_Store", "red/.DS_Store", "red/._000.png", "red/Thumbs.db", "red/desktop.ini", "red/folder.ico"),
        *("red/@eaDir/000.png/SYNOPHOTO_THUMB_XL.jpg", "@eaDir/red/x.png", "red/.@__thumb/000.png", "#recycle/old.png"),
        *(".ipynb_checkpoints/000-checkpoint.png", "__MACOSX/red/._000.png", "red/THUMBS.DB", "red/.hidden.png"),
        *("System Volume Information/x.png", "red/Icon\r"),
    ):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(one)
    return photos


def test_what_systems_leave_is_no_image_and_no_class_and_is_counted(cluttered: Path) -> None:
    names = r"#recycle, \.@__thumb, \.DS_Store, \._000\.png, \.hidden\.png and 9 more"
    with pytest.warns(UserWarning, match=f"photos: skipped 16 hidden or system files: {names}") as caught:
        rows = read_source(cluttered).rows
    assert len(caught) == 1
    assert [row.path for row in rows] == [f"{c}/{n:03}.png" for c in ("blue", "green", "red") for n in range(10)]
    assert rows[20] == Row("red/000.png", "red", "")


def test_the_inventory_counts_the_images_alone(cluttered: Path) -> None:
    with pytest.warns(UserWarning, match="skipped 16 hidden or system files"):
        report = verify(cluttered)
    assert report.ok
    assert (report.found["images"], report.found["classes"]) == (30, 3)
    rows = [f"red/{n:03}.png,red" for n in range(10)] + [f"blue/{n:03}.png,blue" for n in range(10)]
    (cluttered / "list.csv").write_text("\n".join(["path,label", *rows]))
    assert verify(cluttered / "list.csv").surplus == ()


@pytest.mark.parametrize("suffix", [".heic", ".HEIC", ".heif"])
def test_heic_images_are_named_with_the_way_out(suffix: str, photos: Path) -> None:
    for number in range(3):
        (photos / f"red/IMG_{number}{suffix}").write_bytes(b"\0\0\0\x18ftypheic")
    message = f"red: skipped 3 HEIC images: IMG_0{suffix}, .*; HEIC is not read, convert to JPEG"
    with pytest.warns(UserWarning, match=message) as caught:
        assert len(read_source(photos).rows) == 30
    assert len(caught) == 1
    for file in (photos / "red").glob("*.png"):
        file.unlink()
    with (
        pytest.warns(UserWarning, match="HEIC"),
        pytest.raises(ValueError, match="red: the class folder has no images; convert the HEIC images to JPEG"),
    ):
        read_source(photos)
