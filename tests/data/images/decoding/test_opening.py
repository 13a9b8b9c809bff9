"""Opening of image files: what is damage, what is the disk, what is something else."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import EpsImagePlugin, Image

from stochnorm.data import ImageStore, Preprocessing, Row, read_source
from stochnorm.data.images.batches import file_batches
from stochnorm.data.images.decoding import opening
from stochnorm.data.images.decoding.decode import decode, size_of
from stochnorm.data.images.decoding.formats import FORMATS, extensions, readers
from stochnorm.data.images.decoding.opening import DamagedImageError

SMALL = Preprocessing(image_size=14)


def test_no_format_starts_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, started, photo = tmp_path / "gs", tmp_path / "started", tmp_path / "photo.jpg"
    program.write_text(f"#!/bin/sh\ntouch {started}\n")
    program.chmod(0o755)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", str(program))
    photo.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(OSError), Image.open(photo) as image:
        image.load()
    assert started.exists()  # the test can fail
    started.unlink()
    with pytest.raises(DamagedImageError, match="it is a PostScript or PDF file, which is not read: convert it to PNG"):
        SMALL.read(photo)
    with pytest.raises(DamagedImageError, match="it is a PostScript or PDF file"):
        size_of(photo)
    assert not started.exists()


def test_one_file_of_the_source_opens_images() -> None:
    source = Path(opening.__file__).parents[3]
    opens = re.compile(r"Image\.open\(|default_loader|decode_image|read_image\(|imread")
    found = {path for path in source.rglob("*.py") if opens.search(path.read_text())}
    assert found == {Path(opening.__file__), source / "exporting/card.py"}  # the second tells others how to


def test_formats_that_start_programs_or_have_no_photographs_are_none_of_those_that_are_read() -> None:
    assert not {"EPS", "WMF", "PDF", "PSD", "FITS", "IM", "MCIDAS", "ICNS", "ICO"} & set(FORMATS)
    assert {"JPEG", "PNG", "TIFF", "GIF", "BMP", "WEBP"} <= set(readers())
    assert {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif"} <= extensions()
    assert not {".eps", ".ps", ".wmf", ".emf", ".pdf", ".psd", ".ico", ".mpg", ".h5"} & extensions()


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"\0\0\0\x18ftypheic", "it is a HEIC image, which is not read: convert it to JPEG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "it is a HEIC image"),
        (b"\0\0\0\x18ftypqt  ", "it is a video"),
        (b"\x1aE\xdf\xa3", "it is a video"),
        (b"\xff\x0a\xfa", "it is a JPEG XL image"),
        (b"<?xml version='1.0'?>\n<svg xmlns=''>", "it is an SVG drawing"),
        (b"<!DOCTYPE html><html>", "it is a web page, not an image: the download failed"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of Git LFS.* git lfs pull"),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X", "it is what macOS notes about another file"),
        (b"PK\x03\x04", "it is an archive"),
        (b"8BPS", "it is a Photoshop file"),
        (b"\0\0\1\0\1\0", "it is an icon"),
        (b"%PDF-1.7", "it is a PostScript or PDF file"),
        (bytes(128) + b"DICM", "it is a DICOM image"),
        (b"\x89PNG\r\n\x1a\n\0\0", "it is an image whose head is damaged"),
        (b"MM\0*\0\0\0\x08\0", "it is an image whose head is damaged"),
        (b"", "the file is empty"),
        (b"not an image", "it is in no format that is read"),
    ],
)  # fmt: skip
def test_a_file_that_is_something_else_is_named(head: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(head)
    with pytest.raises(DamagedImageError, match=rf"x.jpg: cannot be read as an image \({what}"):
        SMALL.read(tmp_path / "x.jpg")


def test_a_cut_file_is_damaged(tmp_path: Path) -> None:
    for name in ("x.jpg", "x.png", "x.tif", "x.bmp", "x.webp", "x.gif"):
        Image.effect_noise((40, 30), 50).convert("RGB").save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        for length in (1, 10, len(whole) // 2, len(whole) * 3 // 4):
            (tmp_path / name).write_bytes(whole[:length])
            with pytest.raises(DamagedImageError, match=f"{name}: cannot be read as an image"):
                SMALL.read(tmp_path / name)


def test_what_is_no_file_is_damaged_and_nothing_waits(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "ring.jpg").symlink_to("ring.jpg")
    for name, reason in {
        "folder.jpg": "it is a folder or a device, not a file",
        "pipe.jpg": "it is a folder or a device, not a file",
        "ring.jpg": "too many levels",
        "none.jpg": "no such file",
        f"{'x' * 300}.jpg": "file name too long",
    }.items():
        with pytest.raises(DamagedImageError, match=reason):
            SMALL.read(tmp_path / name)


def failing(monkeypatch: pytest.MonkeyPatch, number: int, name: str) -> None:
    """Let reading of a file fail as a disk fails, here or in a process that is forked."""
    original = Path.read_bytes

    def read_bytes(self: Path) -> bytes:
        if self.name == name:
            raise OSError(number, os.strerror(number), str(self))
        return original(self)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ETIMEDOUT, errno.EPERM])
@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_an_unreadable_disk_stops_and_is_not_a_damaged_image(
    number: int, cache: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, number, "003.png")
    source = read_source(photos)
    with pytest.raises(OSError, match=r"cannot read an image file .*; check its permissions and the disk") as caught:
        ImageStore(source.root, source.rows, SMALL, cache=cache)
    assert (caught.value.errno, caught.value.filename) == (number, str(photos.resolve() / "blue/003.png"))
    with pytest.raises(OSError, match="cannot read an image file"):
        list(file_batches(sorted(photos.rglob("*.png")), SMALL, 4, strict=False))


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that cannot be read")
def test_a_file_with_a_read_error_stops(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").symlink_to("/proc/self/mem")
    with pytest.raises(OSError, match=r"cannot read an image file \(Input/output error\)"):
        decode(tmp_path / "x.jpg")
    with pytest.raises(OSError, match=r"cannot read an image file \(Input/output error\)"):
        size_of(tmp_path / "x.jpg")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read all files")
def test_a_file_without_permission_stops(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    (tmp_path / "x.png").chmod(0)
    with pytest.raises(PermissionError, match="cannot read an image file"):
        decode(tmp_path / "x.png")


def test_too_little_memory_stops_and_names_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (800, 600)).save(tmp_path / "x.png")

    def load(_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(OSError, match="not enough memory to decode an image of 800 x 600 pixels") as caught:
        decode(tmp_path / "x.png")
    assert caught.value.filename == str(tmp_path / "x.png")


@pytest.mark.parametrize("error", [OSError("out of memory error when reading image file"), RuntimeError("bad_alloc")])
def test_too_little_memory_is_not_damage_whatever_a_decoder_calls_it(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (800, 600)).save(tmp_path / "x.png")

    def load(_: Any) -> None:
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(OSError, match="not enough memory to decode an image of 800 x 600 pixels"):
        decode(tmp_path / "x.png")


def test_an_error_of_any_kind_that_a_decoder_raises_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    for error in (
        RuntimeError("Failed\n to decode"),
        AttributeError("x"),
        ZeroDivisionError(),
        OSError("broken stream"),
    ):

        def damaged(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(Image, "open", damaged)
        reason = " ".join(str(error).split()) or "ZeroDivisionError"
        with pytest.raises(DamagedImageError, match=rf"x.png: cannot be read as an image \({reason}\)$"):
            decode(tmp_path / "x.png")


def test_pillows_warnings_are_not_shown_and_stop_nothing(tmp_path: Path) -> None:
    """They do not name the file; here, where warnings are errors, they would make it look damaged."""
    entries = b"\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00" + b"\x0f\x01\x02\x00\xff\x00\x00\x00\xff\x00\x00\x00"
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0" + entries  # 5 entries are said, 2 are there
    Image.new("RGB", (30, 20)).save(tmp_path / "x.jpg", exif=exif)
    assert size_of(tmp_path / "x.jpg") == (20, 30)
    assert decode(tmp_path / "x.jpg")[0].size == (20, 30)


def test_a_list_may_name_a_file_whatever_its_format(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20), (9, 200, 7)).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / "x.heic")  # the content decides
    store = ImageStore(tmp_path, [Row("x.heic", "a")], SMALL)
    assert store[0][:, 0, 0].tolist() == [9, 200, 7]
