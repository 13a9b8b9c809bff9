"""From a folder, a CSV file or a known data set to labelled images with their splits."""

from __future__ import annotations

from pathlib import Path

from stochnorm.data.folder import read_folder
from stochnorm.data.images.batches import Split
from stochnorm.data.images.preprocessing import Preprocessing
from stochnorm.data.images.store import ImageStore
from stochnorm.data.inventory import Report, too_few_classes
from stochnorm.data.labels import encode_labels
from stochnorm.data.lists import export_lists, read_lists
from stochnorm.data.manifest import Row, Source, findings, format_manifest, list_manifest, read_manifest
from stochnorm.data.published.catalogue import DATASETS, recognise, verify
from stochnorm.data.published.dataset import DataSet, read_official
from stochnorm.data.published.download import download
from stochnorm.data.published.elpv import read_elpv
from stochnorm.data.splits import assign_splits

__all__ = [
    "DATASETS",
    "DataSet",
    "ImageStore",
    "Preprocessing",
    "Report",
    "Row",
    "Source",
    "Split",
    "assign_splits",
    "download",
    "encode_labels",
    "export_lists",
    "findings",
    "format_manifest",
    "read_lists",
    "read_source",
    "verify",
]

_KNOWN = {"elpv": read_elpv}
_DATA = "DATA is a folder with one folder per class, a CSV file with the columns path,label, the folder of a data set"


def read_source(data: str | Path, *, images: bool = True, to_train: bool = True) -> Source:
    """List the labelled images of a folder, a CSV manifest, or a known data set.

    A data set in its official format (CUB-200-2011, Stanford Cars, FGVC-Aircraft, NIH ChestX-ray14) is recognised by
    the files in the folder; ``elpv`` is one by name.

    Args:
        data: Where it is, or its name.
        images: Whether the images that lists name must be there.
        to_train: Whether there must be two classes.

    Raises:
        FileNotFoundError: There is no such file, folder or name, or listed images do not exist.
        ValueError: Fewer than two classes to train, or what the reader of that kind says.
    """
    path = Path(data)
    if path.is_dir():
        known = recognise(path)
        source = read_official(*known, images=images) if known else read_folder(path)
    elif path.is_file() and path.suffix.lower() == ".csv":
        source = read_manifest(path) if images else list_manifest(path)
    elif str(data) in _KNOWN:
        source = _KNOWN[str(data)]()
    elif path.is_file():
        raise ValueError(
            f"{data}: is a single file; {_DATA}, or one of: {', '.join(_KNOWN)}. "
            "To classify one image, use stochnorm predict"
        )
    else:
        raise FileNotFoundError(
            f"{data}: no such {'CSV file' if path.suffix.lower() == '.csv' else 'folder'}; {_DATA} in its official "
            f"format ({', '.join(name for name in DATASETS if name not in _KNOWN)}), or one of: {', '.join(_KNOWN)}"
        )
    if to_train and (problem := too_few_classes(source)):
        raise ValueError(f"{data}: {problem}")
    return source
