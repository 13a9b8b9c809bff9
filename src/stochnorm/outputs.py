"""Files that the user names: nothing that stochnorm did not write is lost."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from stochnorm.files import check_target, explained, write_all, write_text

__all__ = [
    "FINDINGS",
    "LABELS",
    "LAYERS",
    "METRICS",
    "PAGE",
    "PICTURE",
    "PREDICTIONS",
    "RATE",
    "TABLES",
    "Kind",
    "Output",
]

_RECORDS = {"test_predictions.csv"}  # files of a run that are of a kind below
_HEAD = 4096  # bytes that tell what a file is, at its beginning and at its end


class Kind(NamedTuple):
    """What stochnorm writes into a file, and how such a file is known again."""

    what: str
    """Its name in messages."""
    begins: tuple[bytes, ...]
    """One of these is its beginning."""
    holds: bytes = b""
    """This is among its first bytes, or its last: a ZIP file has its list of names there."""


PREDICTIONS = Kind("predictions", (b"path,predicted,probability,p(", b"path,label,predicted,probability,p("))
METRICS = Kind("metrics", (b'{\n  "run": ',), b'\n  "data": ')
FINDINGS = Kind("findings", (b"kind,path,other path,value,",))
LABELS = Kind("labels", (b"path,label",), b"suggested,suspected,confidence")
LAYERS = Kind("layers", (b"name,channels,shift,",))
RATE = Kind("learning rate", (b"{\n",), b'"suggested"')
PAGE = Kind("report", (b"<!doctype html>",), b'<link rel="icon" href="data:,">')
PICTURE = Kind("picture", (b"\x89PNG\r\n", b"<?xml "), b"stochnorm")
_RESULTS = (b"data,backbone,rate,variant,",)
TABLES = {
    "results.md": Kind("results", (b"# Results",)),
    "results.tex": Kind("results", (b"\\begin{table}\n\\centering\n\\caption{", b"% ")),
    "results.csv": Kind("results", _RESULTS),
    "differences.csv": Kind("differences", _RESULTS),
}
"""The tables of a report, by the names of their files."""


@dataclass(frozen=True)
class Output:
    """A file that the user named.

    A link is followed. A FIFO and a device such as `/dev/stdout` are written into, and nothing of them is replaced.

    Args:
        path: The file.
        kind: What will be in it. An existing file of this kind, or an empty one, is replaced.
        overwrite: Replace a file of any kind.
    """

    path: Path
    kind: Kind
    overwrite: bool = False

    def check(self) -> None:
        """Check that the file may be written, before long work.

        Raises:
            FileExistsError: It is there, and not of the kind.
            PermissionError: It is there, and read-only.
            IsADirectoryError, FileNotFoundError: As [stochnorm.files.check_target][].
        """
        check_target(self.path)
        if self.streams or not self.path.exists():
            return
        mode = self.path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise FileExistsError(f"cannot write {self.path}: it is neither a file nor a pipe; choose a file name")
        if not mode & 0o222 or not os.access(self.path, os.W_OK):
            raise PermissionError(f"cannot write {self.path}: it is read-only; choose another file name")
        if not self.overwrite and self.path.name in _RECORDS and (self.path.parent / "config.json").exists():
            raise FileExistsError(
                f"cannot write {self.path}: it belongs to a run; choose another file name, or replace it with "
                "--overwrite"
            )
        if not self.overwrite and not self.ours:
            raise FileExistsError(
                f"cannot write {self.path}: it exists, and is no file of {self.kind.what} that stochnorm wrote; choose "
                "another file name, or replace it with --overwrite"
            )

    def write(self, text: str) -> None:
        """Write the file: at once, or into a pipe or device.

        Raises:
            OSError: As `check`; or the disk is full or not writable.
        """
        self.check()
        if not self.streams:
            write_text(self.path, text)
            return
        with explained(self.path):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOCTTY", 0))
            try:
                with suppress(BrokenPipeError):  # who reads has enough
                    write_all(descriptor, text.encode())
            finally:
                os.close(descriptor)

    @property
    def streams(self) -> bool:
        """Whether it is a FIFO, a character device, or an open file of a process, such as standard output."""
        if not self.path.exists():
            return False
        mode = self.path.stat().st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or _is_open_file(self.path)

    @property
    def ours(self) -> bool:
        """Whether the file that is there is of the kind, or empty."""
        with self.path.open("rb") as file:
            head = file.read(_HEAD)
            file.seek(max(file.seek(0, os.SEEK_END) - _HEAD, 0))
            tail = file.read(_HEAD)
        return not head or (head.startswith(self.kind.begins) and (self.kind.holds in head or self.kind.holds in tail))


def _is_open_file(path: Path) -> bool:
    """Return whether a path leads through `/proc` or `/dev/fd` to a file that a process has open."""
    for _ in range(40):
        if path.absolute().is_relative_to("/proc") or path.absolute().is_relative_to("/dev/fd"):
            return True
        if not path.is_symlink():
            return False
        path = path.parent / path.readlink()
    return False
