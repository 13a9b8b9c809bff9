"""What pixels a file gives: every format and mode against a careful conversion, written down here a second time."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixels import COLOUR, pixels, writes
from stochnorm.data.images.decoding.colours import to_rgb
from stochnorm.data.images.decoding.decode import decode
from stochnorm.data.images.decoding.opening import DamagedImageError

RNG = np.random.default_rng(0)
GREY = COLOUR[..., 0]
ALPHA = np.tile(np.linspace(0, 255, 24).round().astype(np.uint8), (16, 1))


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return (
        (colour.reshape(*alpha.shape, -1) * share + 255 * (1 - share)).round().repeat(3 if colour.ndim == 2 else 1, -1)
    )


def three(grey: np.ndarray) -> np.ndarray:
    return grey[..., None].repeat(3, -1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.png", {}), ("x.apng", {}), ("x.bmp", {}), ("x.dib", {}), ("x.tif", {}), ("x.ppm", {}), ("x.tga", {}),
        ("x.tif", {"compression": "tiff_lzw"}), ("x.tif", {"compression": "tiff_adobe_deflate"}), ("x.sgi", {}),
        ("x.pcx", {}), ("x.webp", {"lossless": True}), ("x.qoi", {}), ("x.jp2", {"irreversible": False}),
    ],
)  # fmt: skip
def test_colours_without_loss_are_read_as_they_are(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    if not writes(Path(name).suffix):
        pytest.skip("this build of Pillow does not write the format")
    Image.fromarray(COLOUR).save(tmp_path / name, **options)
    assert np.array_equal(pixels(tmp_path / name), COLOUR)


@pytest.mark.parametrize("name", ["x.jpg", "x.mpo", "x.avif", "x.webp", "x.tif"])
def test_colours_with_loss_are_nearly_as_they_are(name: str, tmp_path: Path) -> None:
    if not writes(Path(name).suffix):
        pytest.skip("this build of Pillow does not write the format")
    extra = {
        "x.mpo": {"save_all": True, "append_images": [Image.new("RGB", (24, 16))]},
        "x.tif": {"compression": "jpeg"},
    }
    Image.fromarray(COLOUR).save(tmp_path / name, quality=95, **extra.get(name, {}))
    assert np.abs(pixels(tmp_path / name) - COLOUR).max() < 12


def test_grey_bilevel_and_palette(tmp_path: Path) -> None:
    image = Image.fromarray(GREY)
    for name in ("x.png", "x.tif", "x.bmp", "x.pgm", "x.gif"):
        image.save(tmp_path / name)
        assert np.array_equal(pixels(tmp_path / name), three(GREY)), name
    black = Image.fromarray(GREY > 100)
    for name in ("x.png", "x.tif", "x.bmp", "x.pbm"):
        black.save(tmp_path / name)
        assert np.array_equal(pixels(tmp_path / name), three((GREY > 100) * 255)), name
    palette = Image.fromarray(COLOUR).quantize(32)
    for name in ("x.png", "x.bmp", "x.gif", "x.tif"):
        palette.save(tmp_path / name)
        assert np.array_equal(pixels(tmp_path / name), np.asarray(palette.convert("RGB"))), name


def test_16_bits_are_divided_by_257(tmp_path: Path) -> None:
    values = RNG.integers(0, 65536, (16, 24), dtype=np.uint16)
    values[0, :2] = 0, 65535
    right = three((values / 257).round())
    for name in ("x.png", "x.tif", "x.jp2"):
        Image.fromarray(values).save(tmp_path / name, **({"irreversible": False} if name == "x.jp2" else {}))
        assert np.array_equal(pixels(tmp_path / name), right), name
    (tmp_path / "x.pgm").write_bytes(b"P5 24 16 65535\n" + values.astype(">u2").tobytes())
    assert np.array_equal(pixels(tmp_path / "x.pgm"), right)
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "wide.tif")  # 16 bits in 32
    assert np.array_equal(pixels(tmp_path / "wide.tif"), right)


@pytest.mark.parametrize("white_is_zero", [False, True])
def test_packed_12_bits_are_divided_by_their_own_top(white_is_zero: bool, tmp_path: Path) -> None:
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1 - white_is_zero, 273: 122, 277: 1, 278: 1, 279: 6}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    assert len(head) == 122
    (tmp_path / "x.tif").write_bytes(head + bytes.fromhex("000fff800123"))  # 0, 4095, 2048, 291
    if white_is_zero:  # Pillow reads none
        with pytest.raises(DamagedImageError, match="whose pixels are stored in a way that Pillow does not read"):
            pixels(tmp_path / "x.tif")
    else:
        assert pixels(tmp_path / "x.tif")[..., 0].tolist() == [[0, 255, 128, 18]]


def test_floats_have_one_scale_for_all_images(tmp_path: Path) -> None:
    """Not each its own, which would make a dark image and a light one the same."""
    values = RNG.random((16, 24)).astype(np.float32)
    for low, high in ((0.0, 1.0), (0.1, 0.2), (0.8, 0.9)):
        part = low + values * (high - low)
        Image.fromarray(part).save(tmp_path / "x.tif")
        assert np.array_equal(pixels(tmp_path / "x.tif"), three((part.astype(float) * 255).round()))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (
            np.full((4, 4), 20, "f4"),
            "its values go from 20 to 20, and floats are read on the scale from 0 to 1; scale all",
        ),
        (np.full((4, 4), -1, "f4"), "its values go from -1 to -1"),
        (
            np.full((4, 4), 65800, "i4"),
            "from 65800 to 65800, and 32-bit integers are read on the scale from 0 to 65535",
        ),
        (np.full((4, 4), -500, "i4"), "its values go from -500 to -500"),
        (np.array([[0, np.nan]], "f4"), "its values are not all finite"),
        (np.array([[0, np.inf]], "f4"), "its values are not all finite"),
    ],
)
def test_values_outside_of_the_scale_are_refused(values: np.ndarray, reason: str, tmp_path: Path) -> None:
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(DamagedImageError, match=rf"x.tif: cannot be read as an image \(.*{reason}"):
        pixels(tmp_path / "x.tif")


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR)
    image.putalpha(Image.fromarray(ALPHA))
    for name in filter(lambda name: writes(Path(name).suffix), ("x.png", "x.tif", "x.tga", "x.webp", "x.sgi", "x.qoi")):
        image.save(tmp_path / name, **({"lossless": True, "exact": True} if name == "x.webp" else {}))
        assert np.abs(pixels(tmp_path / name) - on_white(COLOUR, ALPHA)).max() <= 1, name
    grey = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])
    for name in ("x.png", "x.tif"):
        grey.save(tmp_path / name)
        assert np.abs(pixels(tmp_path / name) - on_white(GREY, ALPHA)).max() <= 1, name


def test_a_shape_in_alpha_alone_is_seen(tmp_path: Path) -> None:
    image, alpha = Image.new("RGBA", (48, 48)), Image.new("L", (48, 48))
    alpha.paste(255, (9, 9, 30, 30))
    image.putalpha(alpha)
    image.save(tmp_path / "x.png")
    assert np.array_equal(pixels(tmp_path / "x.png"), 255 - three(np.asarray(alpha)))
    Image.new("RGBA", (8, 8), (200, 0, 0, 0)).save(tmp_path / "hidden.png")
    assert (pixels(tmp_path / "hidden.png") == 255).all()


def test_premultiplied_alpha_is_divided_first(tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (200, 100, 50, 128))
    right = on_white(np.full((8, 8, 3), (200, 100, 50)), np.full((8, 8), 128))
    assert np.abs(np.asarray(to_rgb(image.convert("RGBa")), dtype=int) - right).max() <= 2
    Image.new("RGBA", (8, 8), (100, 50, 25, 128)).save(tmp_path / "x.tif")
    data = bytearray((tmp_path / "x.tif").read_bytes())
    data[data.index(struct.pack("<HHII", 338, 3, 1, 2)) + 8] = 1  # its alpha is premultiplied
    (tmp_path / "x.tif").write_bytes(data)
    assert np.abs(pixels(tmp_path / "x.tif") - right).max() <= 2


def test_premultiplied_grey_is_divided_first(tmp_path: Path) -> None:
    Image.new("LA", (8, 8), (100, 128)).save(tmp_path / "x.tif")
    data = bytearray((tmp_path / "x.tif").read_bytes())
    data[data.index(struct.pack("<HHII", 338, 3, 1, 2)) + 8] = 1
    (tmp_path / "x.tif").write_bytes(data)
    right = on_white(np.full((8, 8), 199), np.full((8, 8), 128))  # 100 of 128 is 199 of 255
    assert np.abs(pixels(tmp_path / "x.tif") - right).max() <= 2


def test_hidden_colours_of_a_palette_are_not_shown(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), "P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(tmp_path / "one.png", transparency=1)
    palette.save(tmp_path / "x.gif", transparency=1)
    for name in ("one.png", "x.gif"):
        assert pixels(tmp_path / name).tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]], name
    palette.save(tmp_path / "many.png", transparency=bytes([255, 0, 51]))
    assert pixels(tmp_path / "many.png").tolist() == [[[255, 0, 0], [255, 255, 255], [204, 204, 255]]]


def png(kind: int, bits: int, raw: bytes, width: int, transparent: bytes) -> bytes:
    """Return a PNG file of one line."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, 1, bits, kind, 0, 0, 0)
    parts = (b"IHDR", head), (b"tRNS", transparent), (b"IDAT", zlib.compress(b"\0" + raw)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize(
    ("data", "right"),
    [
        (png(0, 8, bytes([0, 7, 9]), 3, b"\0\7"), [0, 255, 9]),
        (png(0, 4, bytes([0x0A, 0xF0]), 3, b"\0\x0a"), [0, 255, 255]),
        (png(0, 2, bytes([0b00011011]), 4, b"\0\2"), [0, 85, 255, 255]),
        (png(0, 1, bytes([0b01000000]), 2, b"\0\0"), [255, 255]),
        (png(0, 16, struct.pack(">3H", 0, 257, 2570), 3, struct.pack(">H", 257)), [0, 255, 10]),
        (png(2, 8, bytes([5, 5, 5, 6, 6, 6]), 2, struct.pack(">3H", 5, 5, 5)), [255, 6]),
        (png(2, 16, struct.pack(">6H", *[1286] * 3, *[1542] * 3), 2, struct.pack(">3H", *[1286] * 3)), [255, 6]),
    ],
)
def test_a_transparent_colour_of_png_is_white(data: bytes, right: list[int], tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(data)
    assert pixels(tmp_path / "x.png").tolist() == [[[value] * 3 for value in right]]


def without_adobe(data: bytes) -> bytes:
    """Return a JPEG file without Adobe's segment."""
    start = data.index(b"\xff\xee")
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


def test_cmyk_is_inverted_only_where_adobe_says_so(tmp_path: Path) -> None:
    inks = np.full((16, 16, 4), (200, 20, 60, 30), dtype=np.uint8)
    right = ((255 - inks[..., :3].astype(int)) * (255 - inks[..., 3:].astype(int)) / 255).round()
    image = Image.fromarray(inks, "CMYK")
    image.save(tmp_path / "x.tif")
    image.save(tmp_path / "adobe.jpg", quality=100)
    Image.fromarray(255 - inks, "CMYK").save(tmp_path / "plain.jpg", quality=100)  # inverted twice: as it is
    (tmp_path / "plain.jpg").write_bytes(without_adobe((tmp_path / "plain.jpg").read_bytes()))
    for name in ("x.tif", "adobe.jpg", "plain.jpg"):
        assert np.abs(pixels(tmp_path / name) - right).max() <= 3, name


def test_the_first_image_of_several_is_read(tmp_path: Path) -> None:
    first, *others = [
        Image.fromarray(COLOUR).quantize(64),
        Image.new("RGB", (24, 16)),
        Image.new("RGB", (24, 16), "red"),
    ]
    for name in ("x.gif", "x.png", "x.webp", "x.tif"):
        frame = first if name == "x.gif" else first.convert("RGB")
        frame.save(
            tmp_path / name, save_all=True, append_images=others, **({"lossless": True} if name == "x.webp" else {})
        )
        assert np.array_equal(pixels(tmp_path / name), np.asarray(first.convert("RGB"))), name


def test_lab_is_converted(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8, 3), (136, 80, 67), dtype=np.uint8), "LAB").save(tmp_path / "x.tif")  # red
    assert np.abs(pixels(tmp_path / "x.tif") - (255, 0, 0)).max() < 30


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (3, 7)])
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif"])
def test_any_shape_is_read(size: tuple[int, int], name: str, tmp_path: Path) -> None:
    Image.new("RGB", size, (10, 200, 30)).save(tmp_path / name)
    assert pixels(tmp_path / name).shape == (size[1], size[0], 3)
    assert np.abs(pixels(tmp_path / name) - (10, 200, 30)).max() < 5


def test_an_image_of_too_many_pixels_is_refused_and_a_large_photograph_is_read(tmp_path: Path) -> None:
    bomb = bytearray(png(0, 1, bytes(8), 1, b"\0\1"))
    struct.pack_into(">II", bomb, 16, 60_000, 60_000)
    struct.pack_into(">I", bomb, 29, zlib.crc32(bomb[12:29]))
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(DamagedImageError, match="decompression bomb"):
        pixels(tmp_path / "bomb.png")
    Image.new("L", (12_000, 8_000)).save(tmp_path / "large.jpg")  # Pillow warns of it
    image, _ = decode(tmp_path / "large.jpg", lambda *_: (256, 256))
    assert image.size == (1500, 1000)
