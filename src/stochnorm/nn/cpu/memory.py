"""Where the memory of a step's tensors comes from on CPUs."""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # names of glibc's mallopt
_MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let the process keep up to 2 GiB of the memory that it frees, instead of returning it to the system at once.

    A training step frees what it allocated, and the next one needs as much again; each page that went back and forth is
    a page fault. Results and the peak do not change. For glibc; its environment variables go before.

    Returns:
        Whether it was set.
    """
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    settings = ((_MMAP_THRESHOLD, 2**30), (_TRIM_THRESHOLD, _MOST), (_TOP_PAD, 2**26))
    return all(mallopt(name, value) == 1 for name, value in settings)
