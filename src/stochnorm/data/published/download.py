"""Download of data sets, only on request; a failure leaves nothing behind."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError

from torchvision.datasets.utils import download_url

from stochnorm.data.published.catalogue import DATASETS

__all__ = ["download"]


def download(name: str, root: str | Path) -> Path:
    """Download a data set's official archive, check its MD5, and unpack it.

    Archive and files are put into a temporary folder in `root` first, so that a failure leaves nothing behind.

    Args:
        name: Name of the data set, one of [stochnorm.data.DATASETS][].
        root: Parent of the data set's folder, such as `data` for `data/CUB_200_2011`.

    Returns:
        The data set's folder.

    Raises:
        ValueError: The data set is unknown, or cannot be downloaded directly; the message says how to get it.
        FileExistsError: The folder exists.
        OSError: There is no connection, the archive is not the official one, or the disk is full.
    """
    dataset = DATASETS.get(name)
    if dataset is None:
        raise ValueError(f"unknown data set {name!r}; choose one of: {', '.join(DATASETS)}")
    root = Path(root)
    target = root / dataset.folder
    if not dataset.url:
        raise ValueError(
            f"{dataset.title} cannot be downloaded directly: {dataset.obtain} ({dataset.homepage})"
            + (f"; unpack it to {target} with {', '.join(dataset.files)}" if dataset.files else "")
        )
    if target.exists():
        raise FileExistsError(f"{target} exists; verify it, or delete it to download {dataset.title} again")
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    root.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{name}-") as temporary:
            download_url(dataset.url, temporary, "archive.tar.gz", dataset.md5)
            # Not torchvision's extract_archive, which unpacks any path that an archive names.
            with tarfile.open(Path(temporary, "archive.tar.gz")) as archive:
                archive.extraction_filter = getattr(tarfile, "data_filter", None)
                archive.extractall(temporary, _harmless(archive))  # noqa: S202 (checked)
            Path(temporary, dataset.folder).replace(target)
    except (OSError, HTTPException, RuntimeError, tarfile.TarError, EOFError) as error:
        if isinstance(error, HTTPError):
            error.close()  # the server's answer, with an open socket
        with suppress(OSError):  # another process has put something into it
            for folder in made:
                folder.rmdir()
        reason = "its MD5 is not the official one" if isinstance(error, RuntimeError) else error
        raise OSError(
            f"{dataset.title} could not be downloaded from {dataset.url}: {reason}; try again, or download it by hand "
            f"from {dataset.homepage} and unpack it to {target}"
        ) from error
    return target


def _harmless(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members of an archive, if none leads out of it, as Python's own filter does from 3.11.4 on."""
    for member in archive:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
            raise tarfile.ReadError(f"{member.name!r} is not a file or folder inside the archive")
        yield member
