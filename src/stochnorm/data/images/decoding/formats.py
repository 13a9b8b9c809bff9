"""Formats of image files that are read, and what other files are."""

from __future__ import annotations

import re
from functools import cache

from PIL import Image

__all__ = ["FORMATS", "HEIC", "extensions", "readers", "what_it_is"]

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000", "PPM", "QOI", "DIB", "PCX", "SGI", "TGA")
"""Pillow's names of the formats that are read; the last one has no signature. None of them starts a program, as EPS
does (Ghostscript), and a format that no photograph has is no more than a way in for files that attack its decoder."""

HEIC = frozenset({".heic", ".heif", ".hif"})
"""Extensions of HEIC images, in lower case. Pillow does not read them."""

_UNREAD = (
    "an image whose head is damaged, or whose pixels are stored in a way that Pillow does not read, such as several "
    "floats each: convert it to PNG"
)
_OTHERS = (
    (rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", "a HEIC image, which is not read: convert it to JPEG"),
    (rb"....ftyp|RIFF....AVI|\x1aE\xdf\xa3|\x00\x00\x01[\xb3\xba]", "a video: take images out of it"),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL ", "a JPEG XL image, which is not read: convert it to JPEG"),
    (rb"%!PS|\xc5\xd0\xd3\xc6|%PDF-", "a PostScript or PDF file, which is not read: convert it to PNG"),
    (rb"\xd7\xcd\xc6\x9a|\x01\x00\x00\x00.{36} EMF", "a Windows metafile, which is not read: convert it to PNG"),
    (rb"8BPS", "a Photoshop file, which is not read: convert it to PNG"),
    (rb".{128}DICM", "a DICOM image, which is not read: convert it to PNG"),
    (rb"SIMPLE  =", "a FITS image, which is not read: convert it to PNG"),
    (rb"\x00\x00[\x01\x02]\x00|icns", "an icon or a cursor, which is not read: convert it to PNG"),
    (rb"\x00\x05\x16[\x00\x07]", "what macOS notes about another file, not an image: delete it"),
    (rb"version https://git-lfs", "a pointer of Git LFS, not the image: get the image with git lfs pull"),
    (rb"(?i)\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!doctype svg|<svg)", "an SVG drawing: convert it to PNG"),
    (rb"(?i)\s*(<!doctype html|<html|<head)", "a web page, not an image: the download failed"),
    (rb"\xff\xd8\xff|\x89PNG|II\*\x00|MM\x00\*|GIF8|RIFF....WEBP", _UNREAD),
    (rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf", "an archive: unpack it"),
)  # fmt: skip


@cache
def readers() -> tuple[str, ...]:
    """Return the formats that this build of Pillow can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def extensions() -> frozenset[str]:
    """Return the extensions of the image files that are read, in lower case."""
    known = readers()
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in known) | {".mpo"}


def what_it_is(head: bytes) -> str:
    """Say what a file is that is no image in one of the formats, from its first bytes, and what to do.

    Example:
        >>> what_it_is(b"8BPS..."), what_it_is(b"...")
        ('it is a Photoshop file, which is not read: convert it to PNG', 'it is in no format that is read')
    """
    if not head:
        return "the file is empty"
    for pattern, what in _OTHERS:
        if re.match(pattern, head, re.DOTALL):
            return f"it is {what}"
    return "it is in no format that is read"
