"""Download of data sets, only on request, whole or not at all."""

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
    """Fetch a data set's official archive, check its MD5, and unpack it.

    Archive and files go to a temporary folder in ``root`` first, so that a failure leaves nothing behind.

    Args:
        name: One of :data:`DATASETS`.
        root: Folder that the data set's own is made in, such as ``data`` for ``data/CUB_200_2011``.

    Returns:
        The data set's folder.

    Raises:
        ValueError: No such data set, or one that cannot be had by a plain download; says how it can.
        FileExistsError: The folder is there already.
        OSError: No connection, an archive that is not the official one, or a full disk.
    """
    dataset = DATASETS.get(name)
    if dataset is None:
        raise ValueError(f"no data set {name!r}; known are {', '.join(DATASETS)}")
    root = Path(root)
    target = root / dataset.folder
    if not dataset.url:
        raise ValueError(
            f"{dataset.title} cannot be downloaded from here: {dataset.obtain} ({dataset.homepage})"
            + (f"; unpack it to {target} with {', '.join(dataset.files)}" if dataset.files else "")
        )
    if target.exists():
        raise FileExistsError(f"{target} is there already; verify it, or delete it to download {dataset.title} anew")
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    root.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{name}-") as temporary:
            download_url(dataset.url, temporary, "archive.tar.gz", dataset.md5)
            # Not torchvision's extract_archive, which unpacks whatever paths an archive names.
            with tarfile.open(Path(temporary, "archive.tar.gz")) as archive:
                archive.extraction_filter = getattr(tarfile, "data_filter", None)
                archive.extractall(temporary, _harmless(archive))  # noqa: S202 (checked)
            Path(temporary, dataset.folder).replace(target)
    except (OSError, HTTPException, RuntimeError, tarfile.TarError, EOFError) as error:
        if isinstance(error, HTTPError):
            error.close()  # it is the server's answer, with a socket
        with suppress(OSError):  # something else lies in it by now
            for folder in made:
                folder.rmdir()
        reason = "its MD5 is not the official one" if isinstance(error, RuntimeError) else error
        raise OSError(
            f"{dataset.title} could not be downloaded from {dataset.url}: {reason}; try again, or fetch it by hand "
            f"from {dataset.homepage} and unpack it to {target}"
        ) from error
    return target


def _harmless(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Its files and folders, where none leads out of it: what Python's own filter sees to, but not before 3.11.4."""
    for member in archive:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
            raise tarfile.ReadError(f"{member.name!r} in it is no file or folder within it")
        yield member
