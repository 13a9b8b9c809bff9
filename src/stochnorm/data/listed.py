"""The paths that a list of images gives, as the disk has them."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

__all__ = ["ListedPaths"]

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_DRIVE = re.compile(r"[a-z]:[\\/]", re.IGNORECASE)


class ListedPaths:
    """Finds the images of a list: their paths relative to its folder, with forward slashes.

    A path with backslashes, as Windows writes it, is taken with slashes if there is no such file. A name whose accents
    are encoded otherwise than on the disk (NFC, NFD) becomes that of the file. Links keep the name that the list gives
    them.

    Args:
        file: The list.
    """

    def __init__(self, file: Path) -> None:
        self._root = file.parent.resolve()
        self._bases = str(self._root), str(file.parent.absolute())
        self._folders: dict[str, dict[str, str]] = {}

    def __call__(self, name: str, where: str) -> str:
        """Return the path of an image.

        Args:
            name: The path in the list.
            where: File and line, for messages.

        Raises:
            ValueError: The path is a URL, or leaves the folder.
        """
        if _URL.match(name):
            raise ValueError(f"{where}: {name!r} is a URL; download the images, and list their paths in {self._root}")
        if ("\\" in name or name[1:2] == ":") and not self._exists(name):
            if _DRIVE.match(name):
                raise ValueError(f"{where}: {name!r} is a path of another computer; write it relative to {self._root}")
            name = name.replace("\\", "/")
        # Lexically, so that a link keeps its name; and not by Path, which is slow for a million of them.
        full = os.path.normpath(os.path.join(self._bases[0], name))  # noqa: PTH118
        base = next((base for base in self._bases if _is_inside(full, base)), None)
        if base is None:
            raise ValueError(
                f"{where}: {name!r} lies outside the manifest's folder {self._root}; put the manifest next to the "
                "images and use relative paths"
            )
        found = full[len(base) :].replace(os.sep, "/").strip("/") or "."
        return found if found.isascii() or self._exists(found) else self._respelled(found)

    def _exists(self, name: str) -> bool:
        return "\0" not in name and os.path.lexists(os.path.join(self._bases[0], name))  # noqa: PTH118

    def _respelled(self, name: str) -> str:
        """Return the path of a file that differs only in how accents are encoded; the same path if there is none."""
        found = ""
        for part in name.split("/"):
            there = part if self._exists(f"{found}{part}") else self._names(found).get(_composed(part), part)
            found += f"{there}/"
        return found.rstrip("/")

    def _names(self, folder: str) -> dict[str, str]:
        """Return the names in a folder by their composed form; none if it does not exist."""
        if folder not in self._folders:
            try:
                names = os.listdir(self._root / folder)  # noqa: PTH208 (names are wanted)
            except OSError:
                names = []
            self._folders[folder] = {_composed(name): name for name in names}
        return self._folders[folder]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _is_inside(full: str, base: str) -> bool:
    return full == base or full.startswith(base.rstrip(os.sep) + os.sep)
