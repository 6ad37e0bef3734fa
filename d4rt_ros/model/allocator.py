"""Keeps freed memory in the process: a network on a CPU asks for the same buffers again and again."""

from __future__ import annotations

import ctypes

# Parameters of mallopt in glibc's malloc.h, and values: give memory back only beyond 1 GiB, ask for it in
# pieces of 64 MiB, and map nothing below 32 MiB (the most that glibc takes) on its own.
_SETTINGS = ((-1, 1 << 30), (-2, 64 << 20), (-3, 32 << 20))


def keep_freed_memory() -> bool:
    """Tell the C library; False where it has no mallopt.

    Without it every large activation is mapped, faulted in page by page and unmapped again, which costs a
    third of the time of an encode.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(name, value) for name, value in _SETTINGS)
