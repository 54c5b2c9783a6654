"""What the C library does with freed memory: it should keep it for the next step, not give it back each time.

A training step allocates and frees the same arrays over and over. By default glibc returns large ones to the operating
system at once and gets them back page by page, each page zeroed: a fifth to a third of a small model's step. NumPy has
no switch for this, the C library has.
"""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
"""Names of parameters in glibc's malloc.h."""


def keep_freed_memory() -> bool:
    """Let this process reuse freed memory instead of returning it to the system. Whether that could be arranged.

    One heap for all threads, which is never trimmed and takes arrays of every size; the process's memory then stays at
    its peak. Applies to what is allocated later, and to threads that are started later. Nothing happens, and False is
    returned, where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(name, value) == 1 for name, value in ((ARENA_MAX, 1), (TRIM_THRESHOLD, -1), (MMAP_MAX, 0)))
