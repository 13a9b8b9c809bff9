"""The orientation of photographs, and nothing else of their EXIF data."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixels import COLOUR, pixels

ORIENTED = {  # what each orientation says of the stored image, by the EXIF standard: where its row 0 and column 0 are
    1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}  # fmt: skip


def orientation_exif(value: int, kind: int = 3, order: str = "<", *, odd: bool = False) -> bytes:
    fields = {1: "Bxxx", 3: "Hxx", 4: "I"}[kind]
    entries = [struct.pack(f"{order}HHI", 0x112, kind, 1) + struct.pack(order + fields, value)]
    if odd:  # as some phones write it: text, and a signed fraction, as resolution
        entries += [struct.pack(f"{order}HHI4s", 0x11A, 2, 3, b"72\0\0"), struct.pack(f"{order}HHII", 0x11B, 10, 1, 38)]
    head = b"II*\0" if order == "<" else b"MM\0*"
    return b"Exif\0\0" + head + struct.pack(f"{order}IH", 8, len(entries)) + b"".join(entries) + bytes(8)


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp", "x.tif"])
def test_each_orientation_is_applied(value: int, name: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"exif": orientation_exif(value)}
    if name == "x.tif":
        options = {"tiffinfo": {0x112: value}}
    elif name != "x.png":
        options |= {"quality": 95, "lossless": True}
    Image.fromarray(COLOUR).save(tmp_path / name, **options)
    right = ORIENTED[value](COLOUR)
    assert pixels(tmp_path / name).shape == right.shape
    assert np.abs(pixels(tmp_path / name) - right).max() < 12


@pytest.mark.parametrize("kind", [1, 3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("odd", [False, True])
def test_the_orientation_is_read_beside_odd_tags(kind: int, order: str, odd: bool, tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "x.jpg", quality=95, exif=orientation_exif(6, kind, order, odd=odd))
    assert np.abs(pixels(tmp_path / "x.jpg") - ORIENTED[6](COLOUR)).max() < 12


@pytest.mark.parametrize(
    "exif",
    [
        orientation_exif(0),
        orientation_exif(9),
        orientation_exif(6)[:18],
        orientation_exif(6)[:10],
        b"Exif\0\0II",
        b"Exif\0\0",
        b"Exif\0\0" + b"\xff" * 40,
    ],
)
def test_a_damaged_orientation_leaves_the_image_as_it_is_stored(exif: bytes, tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "x.jpg", quality=95, exif=exif)
    assert np.abs(pixels(tmp_path / "x.jpg") - COLOUR).max() < 12
