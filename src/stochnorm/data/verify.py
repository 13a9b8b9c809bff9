"""Verification of data on disk, without decoding an image."""

from __future__ import annotations

from pathlib import Path

from stochnorm.data.folder import read_folder
from stochnorm.data.inventory import Report, report_of
from stochnorm.data.manifest import list_manifest
from stochnorm.data.published.catalogue import DATASETS, recognise
from stochnorm.data.published.official import verify_official
from stochnorm.files import refuse_url

__all__ = ["verify"]


def verify(path: str | Path) -> Report:
    """Make the inventory of data on disk: its counts, missing images, surplus files and problems. Decodes no image.

    A published data set is compared with its official counts, lists and class names. For a folder per class or a CSV
    manifest, surplus files are images next to listed ones. Notes tell of copies, byte for byte, in two splits or under
    two classes; files of one size are read for it. [stochnorm.inspect_data][] also looks at the images.

    Args:
        path: Folder of the data, or the one that its archive was unpacked in; a CSV file; or the name of a published
            data set that comes with a package.

    Raises:
        FileNotFoundError: There is no data; the message says which files were looked for.

    Example:
        >>> print("\\n".join(verify("data/CUB_200_2011").lines()))  # doctest: +SKIP
        CUB-200-2011 in data/CUB_200_2011: complete
        found 200 classes, 11,788 images, 5,994 train, 5,794 test
    """
    known = recognise(path)
    if known is not None:
        return verify_official(*known)
    path = Path(path)
    manifest = path.is_file() and path.suffix.lower() == ".csv"
    if not manifest and not (path.is_dir() and any(entry.is_dir() for entry in path.iterdir())):
        refuse_url(path)
        wanted = "; ".join(f"{d.title}: {', '.join(d.files)}" for d in DATASETS.values() if d.files)
        raise FileNotFoundError(
            f"{path}: has no lists of a known data set and no folder per class, and is not a CSV file; looked for "
            f"{wanted}"
        )
    title = "CSV manifest" if manifest else "Folder per class"
    try:
        return report_of(list_manifest(path) if manifest else read_folder(path), title)
    except (ValueError, OSError) as error:
        return Report(title, path, {}, problems=(" ".join(str(error).split()),))
