"""Standard output and standard error that may be closed, broken or full: the work goes on without them."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

__all__ = ["Lasting", "lasting"]


class Lasting:
    """A text stream that swallows what cannot be written, and remembers why.

    Args:
        stream: The stream.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        """The first error; None if all was written."""

    def write(self, text: str) -> int:
        """Write a text, unless an earlier one could not be written. Letters that the encoding lacks are escaped."""
        if self.failure is None:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding or "ascii"
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            except OSError as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Write what is held back."""
        if self.failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._give_up(error)

    @property
    def complaint(self) -> str:
        """What to tell; empty where all was written, and where who reads has enough (`| head`)."""
        if self.failure is None or self.failure.errno == errno.EPIPE:
            return ""
        return f"cannot write standard output: {self.failure.strerror or self.failure}; the command did the rest"

    def _give_up(self, error: OSError) -> None:
        self.failure = error
        with suppress(OSError, ValueError):  # what is held back would be tried again at the end of the process
            number = self._stream.fileno()
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lasting() -> Iterator[Lasting]:
    """Put such streams in the place of standard output and error within the block; yield the first."""
    for number in range(3):  # a closed one would be the number of the next file that is opened
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    nowhere = Path(os.devnull)
    output, errors = (Lasting(stream or nowhere.open("w")) for stream in before)
    sys.stdout, sys.stderr = output, errors
    try:
        yield output
    finally:
        output.flush()
        errors.flush()
        sys.stdout, sys.stderr = before
