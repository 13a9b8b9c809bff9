"""Errors in words: one line that says what is wrong and what to do."""

from __future__ import annotations

import errno

__all__ = ["ran_out", "reason_of"]

_REMEDY = "give a smaller --batch-size (or --accumulate 2), fewer --workers, or a smaller --image-size"

_WORDS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "unable to allocate",
    "enforce fail at alloc_cpu",
    "failed to map segment",
    "failed to allocate",
    "could not create a primitive",
    "bad_alloc",
    "can't start new thread",
    "std::bad_array_new_length",
    "cublas_status_alloc_failed",
)
"""What PyTorch, oneDNN, NumPy, Pillow, the C++ library and the dynamic linker say, in small letters."""


def ran_out(error: BaseException | None) -> bool:
    """Return whether an error, or one that it came from, says that memory ran out.

    Example:
        >>> ran_out(MemoryError()), ran_out(ValueError("a damaged file"))
        (True, False)
    """
    for _ in range(10):
        if error is None:
            return False
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        if not _has_names(error) and any(words in str(error).lower() for words in _WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _has_names(error: BaseException) -> bool:
    """Return whether an error's text names files or classes, whose names may be any words."""
    named = isinstance(error, OSError) and (error.errno is not None or type(error) is not OSError)
    return named or isinstance(error, ValueError)


def reason_of(error: BaseException) -> str:
    """Return one line for an error.

    Example:
        >>> reason_of(ValueError("two   words")), reason_of(KeyError("x"))
        ('two words', "KeyError: 'x'")
    """
    if ran_out(error):
        return f"memory ran out ({_first_words(error)}); {_REMEDY}"
    text = " ".join(str(error).split())
    if isinstance(error, RuntimeError) and text.startswith("Symlink loop from "):  # as Python before 3.13 says
        return f"{text.removeprefix('Symlink loop from ')} is a link that goes round; remove it, or name another place"
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        text = f"{error.strerror}" + (f": {error.filename}" if error.filename else "")
        return " ".join(text.split())
    expected = isinstance(error, (ValueError, OSError, ArithmeticError, ImportError))
    return text or type(error).__name__ if expected else f"{type(error).__name__}: {text}"


def _first_words(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.partition(". ")[0][:150].rstrip(".")
