"""Atomic writing of files, and the folders of caches."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_path", "cache_directory", "check_target", "set_aside", "write_text"]

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def cache_directory(kind: str) -> Path:
    """Return the folder `$XDG_CACHE_HOME/stochnorm/KIND`, by default in `~/.cache`."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if root else Path.home() / ".cache") / "stochnorm" / kind


def check_target(path: Path) -> None:
    """Check that a file could be written, before long work.

    Raises:
        IsADirectoryError: The path is a folder.
        FileNotFoundError: Its parent folder does not exist.
    """
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder; choose a file name")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist; make it first")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; it replaces `path` at the end of the block, or is removed on an error.

    Raises:
        OSError: The disk is full or not writable; the message names the file.
    """
    check_target(path)
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        remedy = "; free some space" if error.errno in _FULL else ""
        raise OSError(error.errno, f"cannot write {path}: {error.strerror or error}{remedy}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def set_aside(path: Path, other: Path) -> None:
    """Keep a file under another name too, before `path` is replaced; it takes no room twice."""
    if path.is_file():
        other.unlink(missing_ok=True)
        try:
            os.link(path, other)
        except OSError:  # a disk that knows no second name
            path.replace(other)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
