"""Colour profiles: colours become sRGB, by the formulas of the spaces."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from pixels import COLOUR, pixels

RNG = np.random.default_rng(0)
GREY = COLOUR[..., 0]
PRIMARIES = {
    "adobe": ((0.6400, 0.3300), (0.2100, 0.7100), (0.1500, 0.0600), 2.19921875),
    "display p3": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), None),
}


def matrix(red: Any, green: Any, blue: Any) -> np.ndarray:
    """Return the matrix from linear RGB to XYZ, white D65."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in (red, green, blue)]).T
    white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
    return columns * np.linalg.solve(columns, white)


def srgb_curve(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def profile_of(space: str) -> bytes:
    """Return an ICC profile of version 2 with the primaries of a space, adapted to D50 by Bradford."""
    *primaries, gamma = PRIMARIES[space]
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    d50, d65 = np.array([0.9642, 1, 0.8249]), np.array([0.95047, 1, 1.08883])
    adapt = np.linalg.inv(bradford) @ np.diag(bradford @ d50 / (bradford @ d65)) @ bradford
    columns = (adapt @ matrix(*primaries)).T

    def fixed(values: Any) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    levels = np.arange(1024) / 1023
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    curve = (
        b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
        if gamma
        else b"curv" + bytes(4) + struct.pack(">I1024H", 1024, *(linear * 65535).round().astype(int))
    )  # fmt: skip
    name = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = {b"desc": name, b"cprt": b"text" + bytes(4) + b"none\0", b"wtpt": b"XYZ " + bytes(4) + fixed(d50)}
    tags |= {key: b"XYZ " + bytes(4) + fixed(c) for key, c in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for key, data in tags.items():
        table += key + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ") + bytes(12)
    head += b"acsp" + bytes(28) + fixed(d50) + bytes(48)
    return head + table + body


@pytest.mark.parametrize("space", PRIMARIES)
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "x.webp", "palette.png", "alpha.png"])
def test_colours_of_a_profile_become_srgb(space: str, name: str, tmp_path: Path) -> None:
    """Compared with the formulas of the two spaces."""
    values = np.random.default_rng(1).integers(80, 176, (4, 4, 3)).repeat(8, 0).repeat(8, 1)
    image = Image.fromarray(values.astype(np.uint8))
    image = image.quantize(256) if name == "palette.png" else image.convert("RGBA") if name == "alpha.png" else image
    lossless = {"quality": 100, "subsampling": 0} if name == "x.jpg" else {"lossless": True}
    image.save(tmp_path / name, icc_profile=profile_of(space), **({} if name == "x.tif" else lossless))
    *primaries, gamma = PRIMARIES[space]
    level = values / 255
    linear = level**gamma if gamma else np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    srgb = matrix((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
    right = srgb_curve((linear @ matrix(*primaries).T @ np.linalg.inv(srgb).T).clip(0, 1)) * 255
    assert np.abs(right - values).max() > 8
    assert np.abs(pixels(tmp_path / name) - right).max() <= (6 if name == "x.jpg" else 3)


def test_a_profile_that_is_srgb_changes_no_pixel(tmp_path: Path) -> None:
    values = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(values).save(tmp_path / "x.png", icc_profile=profile)
    assert np.array_equal(pixels(tmp_path / "x.png"), values)


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "other colours"])
def test_a_damaged_profile_is_ignored(damage: str, tmp_path: Path) -> None:
    profile = profile_of("adobe")
    changed = {"cut": profile[:200], "noise": RNG.bytes(500), "empty": b"", "other colours": profile}[damage]
    image = Image.fromarray(GREY if damage == "other colours" else COLOUR)
    image.save(tmp_path / "x.png", icc_profile=changed)
    image.save(tmp_path / "x.tif", icc_profile=changed)
    for name in ("x.png", "x.tif"):
        assert np.array_equal(pixels(tmp_path / name), np.asarray(image.convert("RGB")))
