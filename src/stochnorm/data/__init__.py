"""From a folder, a CSV file or a known data set to labelled images with their splits."""

from __future__ import annotations

from pathlib import Path

from stochnorm.data.elpv import read_elpv
from stochnorm.data.folder import read_folder
from stochnorm.data.manifest import Row, Source, format_manifest, read_manifest
from stochnorm.data.preprocessing import Preprocessing
from stochnorm.data.splits import assign_splits
from stochnorm.data.store import ImageStore
from stochnorm.data.stream import Split

__all__ = ["ImageStore", "Preprocessing", "Row", "Source", "Split", "assign_splits", "format_manifest", "read_source"]

_KNOWN = {"elpv": read_elpv}


def read_source(data: str | Path) -> Source:
    """List the labelled images of a folder, a CSV manifest, or a data set known by name (``elpv``).

    Raises:
        FileNotFoundError: There is no such file, folder or name.
        ValueError: Fewer than two classes, or what the reader of that kind says.
    """
    path = Path(data)
    if path.is_dir():
        source = read_folder(path)
    elif path.is_file() and path.suffix.lower() == ".csv":
        source = read_manifest(path)
    elif str(data) in _KNOWN:
        source = _KNOWN[str(data)]()
    else:
        raise FileNotFoundError(
            f"{data}: no such {'CSV file' if path.suffix.lower() == '.csv' else 'folder'}; DATA is a folder with one "
            f"folder per class, a CSV file with the columns path,label, or one of: {', '.join(_KNOWN)}"
        )
    classes = sorted({row.label for row in source.rows})
    if len(classes) < 2:
        raise ValueError(f"{data}: classification needs at least 2 classes, found only {classes[0]!r}")
    return source
