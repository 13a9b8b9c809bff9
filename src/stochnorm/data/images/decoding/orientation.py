"""The orientation of a photograph, from one tag of its EXIF data; nothing else of them is read."""

from __future__ import annotations

import re
import struct

from PIL import Image

__all__ = ["orientation", "oriented_size", "upright"]

_TAG = 0x0112
_VALUES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # types of whole numbers, in EXIF and as struct has them
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(file: Image.Image) -> int:
    """Return the orientation of an image, 1 to 8; 1, as it is stored, if there is none or it is damaged.

    Without one in EXIF, that of XMP counts. Pillow turns TIFF images itself.
    """
    if file.format == "TIFF":
        return 1
    if file.format == "PNG" and not {"exif", "Raw profile type exif"} & file.info.keys():
        file.load()  # the chunk may be behind the pixels
    number = _of_exif(_exif(file))
    if number is None:
        xmp = file.info.get("XML:com.adobe.xmp") or file.info.get("xmp") or b""
        found = _XMP.search(xmp.encode("utf-8", "replace") if isinstance(xmp, str) else xmp)
        number = int(found[1]) if found else 1
    return number if number in _TURNS else 1


def oriented_size(file: Image.Image) -> tuple[int, int]:
    """Return width and height of an image after its orientation is applied."""
    width, height = file.size
    return (height, width) if orientation(file) > 4 else (width, height)


def upright(image: Image.Image, number: int) -> Image.Image:
    """Turn or mirror an image as its orientation says.

    Args:
        image: The image as it is stored.
        number: Its orientation.
    """
    return image.transpose(_TURNS[number]) if number in _TURNS else image


def _exif(file: Image.Image) -> bytes:
    """Return the EXIF data of an image, as a TIFF directory; empty if there are none."""
    data = file.info.get("exif", b"")
    if not data and "Raw profile type exif" in file.info:  # text in PNG
        try:
            data = bytes.fromhex("".join(file.info["Raw profile type exif"].split("\n")[3:]))
        except ValueError:
            return b""
    while data.startswith(b"Exif\0\0"):
        data = data[6:]
    return bytes(data)


def _of_exif(data: bytes) -> int | None:
    """Return the value of the tag in a TIFF directory; None if it is not there, 0 if it is no number."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (entries,) = struct.unpack_from(f"{order}H", data, start)
        for place in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(f"{order}HHI", data, place)
            if tag == _TAG:
                number: int = struct.unpack_from(order + _VALUES[kind], data, place + 8)[0] if count == 1 else 0
                return number
    except (struct.error, KeyError):  # cut off; not a whole number
        return 0
    return None
