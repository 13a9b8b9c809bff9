"""Keep freed memory in the process on CPUs."""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # names of glibc's mallopt
_MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let the process keep up to 2 GiB of freed memory instead of returning it to the system at once.

    Each training step frees its memory and the next step needs the same amount again; each returned page costs a page
    fault. Results and peak memory do not change. It works with glibc, whose environment variables have priority.

    Returns:
        Whether the setting took effect.
    """
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    settings = ((_MMAP_THRESHOLD, 2**30), (_TRIM_THRESHOLD, _MOST), (_TOP_PAD, 2**26))
    return all(mallopt(name, value) == 1 for name, value in settings)
