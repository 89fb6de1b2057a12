"""How the C library's allocator holds on to memory."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h's
_KEPT_BYTES = 128 * 1024


def spare_memory() -> None:
    """Have what is freed go back to the system. Call it before threads begin.

    By default glibc gives nearly every thread an arena of its own, and keeps blocks of the
    largest size that was ever freed: after a few large bodies and password hashes that was
    30 MB of 170. The interpreter's lock lets few threads allocate at once anyway. Other C
    libraries have no such settings, or other ones.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_ARENA_MAX, 2)
    mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
    mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
