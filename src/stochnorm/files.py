"""Atomic writing of files, their stamps, locks, and the folders of caches."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

__all__ = [
    "FileStamp",
    "atomic_path",
    "cache_directory",
    "check_lock",
    "check_target",
    "locked",
    "private_directory",
    "refuse_url",
    "set_aside",
    "sqlite_url",
    "write_all",
    "write_text",
]

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


class FileStamp(NamedTuple):
    """What changes when a file is written or replaced, without reading it. Times are in nanoseconds."""

    size: int
    modified: int
    """May be set to any time: copies and archives keep it."""
    changed: int
    """Set by the system alone."""
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileStamp:
        """Return the stamp of a file.

        Raises:
            OSError: There is no such file, or it may not be seen.
        """
        about = path.stat()
        return cls(about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino)


def cache_directory(kind: str) -> Path:
    """Return the folder `$XDG_CACHE_HOME/stochnorm/KIND`, by default in `~/.cache`."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if root else Path.home() / ".cache") / "stochnorm" / kind


def private_directory(path: Path) -> None:
    """Make a cache's folder, which nobody but the user may look into, whatever the umask is."""
    for folder in (path.parent, path):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(OSError):  # of an earlier version, or of another user
        if path.stat().st_mode & 0o077:
            path.chmod(0o700)


def sqlite_url(path: Path) -> str:
    """Return the URL of an SQLite file.

    Raises:
        ValueError: The installed version of SQLAlchemy has no URL for a path with a question mark.
    """
    from sqlalchemy.engine import URL, make_url

    url = URL.create("sqlite", database=str(path)).render_as_string()
    if make_url(url).database != str(path):
        raise ValueError(f"{path}: a database cannot be in a folder of this name; choose another out (--out)")
    return url


def refuse_url(path: str | Path) -> None:
    """Raise ValueError if a path that does not exist is a URL, from which nothing is fetched and to which nothing is
    written. A path has one of its two slashes."""
    found = re.match(r"([a-z][a-z0-9+.-]+):/+", str(path), re.IGNORECASE)
    if found and not Path(path).exists():
        url = f"{found[1]}://{str(path)[found.end() :]}"
        raise ValueError(f"{url} is a URL; stochnorm reads and writes local files alone: copy it to this machine")


def check_target(path: Path) -> None:
    """Check that a file could be written, before long work.

    Raises:
        IsADirectoryError: The path is a folder.
        FileNotFoundError: Its parent folder does not exist, or that of the file to which it is a link.
        FileExistsError: It is a link that goes round.
    """
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder; choose a file name")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist; make it first")
    if path.is_symlink() and not path.exists():
        target = Path(os.path.realpath(path))  # which raises nothing if links go round
        if target.is_symlink():
            raise FileExistsError(f"cannot write {path}: it is a link that goes round; remove it")
        if not target.parent.is_dir():
            raise FileNotFoundError(f"cannot write {path}: it is a link to {target}, whose folder does not exist")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Name the file in an error of writing it, and say what to do.

    Raises:
        OSError: The disk is full or not writable.
    """
    try:
        yield
    except OSError as error:
        remedy = "; free some space" if error.errno in _FULL else ""
        raise OSError(error.errno, f"cannot write {path}: {error.strerror or error}{remedy}") from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; it replaces `path` at the end of the block, or is removed on an error.

    A link stays, and the file that it leads to is replaced. A new file has the permissions that the umask leaves, one
    that is replaced keeps its own.

    Raises:
        OSError: The disk is full or not writable; the message names the file.
    """
    check_target(path)
    temporary: Path | None = None
    try:
        with explained(path):
            target = path.resolve() if path.is_symlink() else path
            temporary = _temporary(target)
            mode = stat.S_IMODE((target if target.is_file() else temporary).stat().st_mode)
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(mode)  # some libraries put a file of their own in its place
            temporary.replace(target)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """Make an empty file next to a path. A name that is taken, by a link too, is not used."""
    for _ in range(100):
        name = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
        with suppress(FileExistsError):
            os.close(os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
            return name
    raise FileExistsError(errno.EEXIST, "no temporary name is free in its folder")


@contextmanager
def locked(path: Path, timeout: float = -1) -> Iterator[None]:
    """Hold a lock file within the block.

    Args:
        path: The file; it is made if there is none.
        timeout: Seconds to wait for it; below 0 without end.

    Raises:
        filelock.Timeout: Another process holds it.
        OSError: A link or a folder stands in its place, which is not followed; or it cannot be made.
    """
    check_lock(path)
    lock = FileLock(path, timeout=timeout)
    try:
        lock.acquire()
    except Timeout:
        if path.exists():
            raise
        raise OSError(f"{path} cannot be made, with which others are kept out; choose another place") from None
    try:
        yield
    finally:
        lock.release()


def check_lock(path: Path) -> None:
    """Raise OSError where a link or a folder stands in place of a lock."""
    if path.is_symlink() or path.is_dir():
        what = "link" if path.is_symlink() else "folder"
        raise OSError(f"{path} is a {what}, where the file of a lock should be; remove it")


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


def write_all(descriptor: int, data: bytes, place: int | None = None) -> None:
    """Write all of the data, in parts if needed.

    Args:
        descriptor: An open file.
        data: What to write.
        place: Where; None: where the file stands, such as a pipe.

    Raises:
        OSError: The system writes nothing.
    """
    while data:  # a nearly full disk takes a part
        written = os.write(descriptor, data) if place is None else os.pwrite(descriptor, data, place)
        if written < 1:
            raise OSError(errno.ENOSPC, f"none of {len(data)} bytes were written; is the disk full?")
        data, place = data[written:], None if place is None else place + written
