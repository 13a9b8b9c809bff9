"""The description of a published data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stochnorm.data.manifest import Source

__all__ = ["DataSet"]


@dataclass(frozen=True)
class DataSet:
    """A published data set: its facts, and how its files are read."""

    name: str
    """Short name."""
    title: str
    """Name given by its authors."""
    counts: Mapping[str, int]
    """Official numbers of "classes", "images", "train", "val", "test", "patients"."""
    licence: str
    """Conditions of use."""
    homepage: str
    """Address of its home page."""
    files: tuple[str, ...]
    """Lists and image folders, relative to the data set's folder."""
    subject: str = ""
    """Content of the images, such as "photographs of birds"; for titles."""
    folder: str = ""
    """Folder that its archive unpacks to."""
    url: str = ""
    """Address of its archive; empty if it cannot be downloaded directly."""
    md5: str = ""
    """MD5 checksum of its archive."""
    obtain: str = ""
    """Instructions to get it, if there is no `url`."""
    class_digest: str = ""
    """SHA-256 of the official class names in order, joined by newlines; empty if unknown."""
    installed: Callable[[], Path] | None = field(default=None, repr=False)
    """Function that returns its folder, if it comes with a package; then DATA can be its name. Raises
    FileNotFoundError if the package is not installed."""
    recognise: Callable[[Path], bool] = field(default=lambda root: False, repr=False)
    """Function that returns whether a folder has lists of this data set, or images as only this one has them."""
    list_images: Callable[[Path], Source] = field(default=lambda root: Source(root, []), repr=False)
    """Function that reads the lists; the images need not exist. Raises ValueError if the lists contradict each
    other."""
    image_folders: Callable[[Path], list[str]] = field(default=lambda root: ["images"], repr=False)
    """Function that returns the subfolders whose image files must all be listed."""
