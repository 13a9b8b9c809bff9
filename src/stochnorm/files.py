"""Writing files whole or not at all; and where those lie that can be computed anew."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_path", "cache_directory", "check_target", "write_text"]

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def cache_directory(kind: str) -> Path:
    """``$XDG_CACHE_HOME/stochnorm/KIND``, or the same in ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if root else Path.home() / ".cache") / "stochnorm" / kind


def check_target(path: Path) -> None:
    """Whether a file could be written there; call it before long work.

    Raises:
        IsADirectoryError: There is a folder of that name.
        FileNotFoundError: There is no folder to hold it.
    """
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {path.parent}; make it first")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that replaces it when the block ends well and is removed when it does not.

    Raises:
        OSError: The disk is full or not writable; names the file.
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
        mend = "; free some space" if error.errno in _FULL else ""
        raise OSError(error.errno, f"cannot write {path}: {error.strerror or error}{mend}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
