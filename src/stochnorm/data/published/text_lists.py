"""Text files that list the images of a published data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stochnorm.data.csv_text import decode

__all__ = ["check_lists", "pairs", "text_lines"]


def check_lists(folder: Path, names: Sequence[str]) -> None:
    """Raise FileNotFoundError if lists are missing in a folder; the message names all of them."""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} has no {', '.join(missing)}; copy from the official archive")


def text_lines(path: Path) -> list[str]:
    """Read the lines of a list, stripped, without blank ones.

    Raises:
        FileNotFoundError: The list does not exist.
        ValueError: The list is not UTF-8.
    """
    check_lists(path.parent, [path.name])
    return [line.strip() for line in decode(path, path.read_bytes()).splitlines() if line.strip()]


def pairs(path: Path) -> dict[str, str]:
    """Read a list with a key and a value per line, such as "17 001.Black_footed_Albatross".

    Raises:
        ValueError: A line has no value, or a duplicate key; the message names it.
    """
    entries: dict[str, str] = {}
    for line in text_lines(path):
        key, _, value = line.partition(" ")
        if not value or key in entries:
            fault = "has a duplicate key" if value else "has no value"
            raise ValueError(f"{path}: {line!r} {fault}; correct the line")
        entries[key] = value.strip()
    return entries
