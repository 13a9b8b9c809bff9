"""The content of a run's images, so that a run is not continued on others of the same names."""

from __future__ import annotations

import csv
import hashlib
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stochnorm.files import write_text
from stochnorm.runs.directory import Run
from stochnorm.spreadsheet import format_csv, plain
from stochnorm.text import some

__all__ = ["changed_images", "check_images", "images_kept"]

_COLUMNS = ["path", "size", "mtime", "ctime", "inode", "digest"]
_PART = 1 << 20  # bytes that are read at a time

Stamp = tuple[int, int, int, int]

_digests: dict[tuple[str, Stamp], str] = {}  # of this process: runs of one command share their images


@contextmanager
def images_kept(run: Run, root: Path, paths: Iterable[str]) -> Iterator[None]:
    """Write the stamps of some images into a run's `images.csv`, and within the block, in a thread, their digests.

    A stamp is what the system says of a file: size, times of the last change of its content and of its entry, inode. A
    digest needs the whole file, and is only needed where the stamp differs later, as in a copy of the folder.

    Args:
        run: The run.
        root: Folder that the paths are relative to.
        paths: The images, and other files whose content matters.
    """
    with suppress(OSError, ValueError):
        _digests.update({(str(root / path), stamp): digest for path, stamp, digest in _read(run.images) if digest})
    stamps = {path: stamp for path in paths if (stamp := _stamp(root / path))}
    _write(run.images, root, stamps)
    ended = threading.Event()
    thread = threading.Thread(target=_digest_all, args=(run.images, root, stamps, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def check_images(run: Run, root: Path) -> None:
    """Check that the images of a run are those that it began with; a run of an earlier version is not checked.

    Raises:
        ValueError: Some have another content.
    """
    if other := changed_images(run, root):
        raise ValueError(
            f"cannot resume {run.path}: {len(other)} of its images have changed since it began ({some(other)}); "
            "restore the images, or start again with --overwrite or another --out"
        )


def changed_images(run: Run, root: Path, paths: Collection[str] | None = None) -> list[str]:
    """Return the images of a run that have another content than those that it began with, or are not there.

    Args:
        run: The run; of one of an earlier version nothing is known.
        root: Folder that the paths are relative to.
        paths: The images to look at; None: all.
    """
    if not run.images.is_file():
        return []
    return [
        path
        for path, stamp, digest in _read(run.images)
        if (paths is None or path in paths) and not _same(root / path, stamp, digest)
    ]


def _same(path: Path, stamp: Stamp, digest: str) -> bool:
    now = _stamp(path)
    if now is None or now[0] != stamp[0]:
        return False
    return now == stamp or (digest != "" and _digest(path, now) == digest)


def _stamp(path: Path) -> Stamp | None:
    """Return what the system says of a file; None if there is none."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino


def _digest(path: Path, stamp: Stamp, ended: threading.Event | None = None) -> str:
    """Return the digest of a file as it is with this stamp; empty if it changed meanwhile, or the time is up."""
    key = str(path), stamp
    if key not in _digests:
        digest = hashlib.sha256()
        try:
            with path.open("rb") as file:
                while part := file.read(_PART):
                    digest.update(part)
                    if ended is not None and ended.is_set():
                        return ""
        except OSError:
            return ""
        if _stamp(path) != stamp:
            return ""
        _digests[key] = digest.hexdigest()
    return _digests[key]


def _digest_all(file: Path, root: Path, stamps: dict[str, Stamp], ended: threading.Event) -> None:
    for path, stamp in stamps.items():
        if ended.is_set():
            return
        _digest(root / path, stamp, ended)
    with suppress(OSError):  # a full disk: the stamps are there
        _write(file, root, stamps)


def _write(file: Path, root: Path, stamps: dict[str, Stamp]) -> None:
    rows = ([path, *stamp, _digests.get((str(root / path), stamp), "")] for path, stamp in stamps.items())
    write_text(file, format_csv([_COLUMNS, *rows]))


def _read(file: Path) -> list[tuple[str, Stamp, str]]:
    """Read what was written.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            columns, *rows = csv.reader(lines)
            found = [(plain(path), (int(a), int(b), int(c), int(d)), digest) for path, a, b, c, d, digest in rows]
        if columns != _COLUMNS:
            raise ValueError(f"it must begin with {','.join(_COLUMNS)}")
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{file} is damaged ({error}); start again with --overwrite") from error
    return found
