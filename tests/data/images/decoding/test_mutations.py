"""Mutated image files: pixels or an error that names the file, and nothing else. STOCHNORM_FUZZ=N tries N of them."""

from __future__ import annotations

import os
import random
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from pixels import writes
from stochnorm.data import Preprocessing
from stochnorm.data.images.decoding.decode import decode
from stochnorm.data.images.decoding.opening import DamagedImageError

COUNT = int(os.environ.get("STOCHNORM_FUZZ", "300"))
READ = Preprocessing(image_size=14, fit="crop")


def exif_of(entries: list[tuple[int, int, int, bytes]], order: str = "<") -> bytes:
    """Return EXIF data of tags, types, counts and 4 bytes each."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    return b"Exif\0\0" + head + b"".join(struct.pack(f"{order}HHI4s", *entry) for entry in entries) + bytes(4)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Small files of many formats and modes."""
    folder = tmp_path_factory.mktemp("seeds")
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (24, 40, 3), dtype=np.uint8))
    clear = colour.convert("RGBA")
    clear.putalpha(colour.convert("L"))
    palette = colour.quantize(16)
    palette.info["transparency"] = 3
    wide = Image.fromarray(rng.integers(0, 65536, (24, 40), dtype=np.uint16))
    exif = exif_of([(0x112, 3, 1, struct.pack("<I", 6)), (0x11A, 2, 3, b"72\0\0")])
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    about = {"exif": exif, "icc_profile": profile}
    files = {
        "a.jpg": (colour, about), "b.jpg": (colour.convert("CMYK"), {}), "c.jpg": (colour, {"progressive": True}),
        "d.jpg": (colour.convert("L"), {"exif": exif}), "e.png": (colour, about), "f.png": (palette, {"exif": exif}),
        "g.png": (wide, {}), "h.png": (clear, {}), "i.gif": (palette, {"save_all": True, "append_images": [palette]}),
        "j.tif": (colour, {}), "k.tif": (colour, {"compression": "tiff_lzw", "icc_profile": profile}),
        "l.tif": (Image.fromarray(rng.random((24, 40), dtype=np.float32)), {}), "m.tif": (colour.convert("CMYK"), {}),
        "n.bmp": (colour, {}), "o.bmp": (palette, {}), "p.webp": (clear, about), "q.webp": (colour, {"lossless": True}),
        "r.mpo": (colour, {"save_all": True, "append_images": [colour]}), "s.ppm": (colour, {}), "t.tga": (clear, {}),
        "u.pcx": (palette, {}), "v.sgi": (colour, {}), "w.pgm": (colour.convert("L"), {}),
    }  # fmt: skip
    files |= {"x.jp2": (colour, {})} if writes(".jp2") else {}
    files |= {"y.avif": (clear, {})} if writes(".avif") else {}
    for name, (image, options) in files.items():
        image.save(folder / name, **options)
    return [(folder / name).read_bytes() for name in files]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Change, cut, repeat or insert some bytes, mostly near the head, where the lengths are."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(min(len(changed), rng.choice((32, 128, 600, len(changed)))) or 1)
        match rng.randrange(6):
            case 0 | 1:
                changed[place : place + 1] = rng.choice((b"\0", b"\xff", b"\x80", b"\x7f", rng.randbytes(1)))
            case 2:
                changed[place : place + 4] = rng.choice((bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", rng.randbytes(4)))
            case 3:
                del changed[place : place + rng.randrange(1, 40)]
            case 4:
                changed[place:place] = changed[place : place + rng.randrange(1, 40)]
            case 5:
                del changed[rng.randrange(len(changed) or 1) + 1 :]
    return bytes(changed)


def test_a_mutated_file_gives_pixels_or_an_error_that_names_it(seeds: list[bytes], tmp_path: Path) -> None:
    file, results, wrong = tmp_path / "x.jpg", Counter[str](), []
    for number in range(COUNT):
        file.write_bytes(mutated(seeds[number % len(seeds)], random.Random(number)))  # noqa: S311
        try:
            result = "pixels" if READ.read(file).shape == (3, 16, 16) else "another shape"
        except DamagedImageError as error:
            good = str(error).startswith(f"{file}: cannot be read as an image (") and "\n" not in str(error)
            result = "damaged" if good else str(error)
        except Exception as error:
            result = repr(error)
        results[result] += 1
        if result not in ("pixels", "damaged"):
            wrong.append((number, result))
    assert not wrong
    assert min(results["pixels"], results["damaged"]) > COUNT / 10


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "MPO"])
def test_mutated_metadata_cost_no_image(kind: str, tmp_path: Path) -> None:
    """Whatever EXIF data hold, the pixels are those of the file, turned as one of the orientations says."""
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    pixels[:8, :4] = 255
    image = Image.fromarray(pixels)
    turns = [image, *map(image.transpose, Image.Transpose)]
    allowed = {np.asarray(turned).tobytes() for turned in turns}
    file, found = tmp_path / "x", Counter[str]()
    for number in range(COUNT // 5):
        rng = random.Random(number)  # noqa: S311
        kinds = [
            (rng.choice((0x10F, 0x112, 0x11A, 0x8769, 0x8825, 0x927C, 0xA005, rng.randrange(65536))), rng.randrange(14))
            for _ in range(4)
        ]
        entries = [(tag, of, rng.choice((0, 1, 1, 2, 2**31)), rng.randbytes(4)) for tag, of in kinds]
        orientation = (0x112, *rng.choice(((3, 1), (3, 1), (2, 1), (5, 1), (4, 1), (3, 0))), bytes([6, 0, 0, 0]))
        exif = mutated(exif_of([*entries, orientation], rng.choice("<>")), rng)
        options = {"PNG": {}, "WEBP": {"lossless": True}}.get(kind, {"quality": 100, "subsampling": 0})
        image.save(file, kind, exif=b"Exif\0\0" + exif.removeprefix(b"Exif\0\0"), **options)
        decoded, _ = decode(file)
        rounded = np.asarray(decoded) // 128 * 255
        found["right" if rounded.astype(np.uint8).tobytes() in allowed else "wrong"] += 1
    assert set(found) == {"right"}
