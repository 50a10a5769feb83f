"""Memory that is used again and again: kept, where the C library would give it back in between."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST_KEPT = 2**30


def keep_freed_memory() -> bool:
    """Have freed blocks of up to 1 GiB stay with this process and those that it forks.

    Glibc maps each large tensor anew and unmaps it when it is freed, so that every step of a training or a sampler has
    the kernel clear all activations page by page: up to a fifth of its time on a CPU. Results do not change.

    Returns:
        Whether the C library could be told; musl, macOS and Windows have no such setting.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # the last: Windows has no library without a name
        return False
    return bool(set_option(_M_MMAP_THRESHOLD, _LARGEST_KEPT) and set_option(_M_TRIM_THRESHOLD, 2**31 - 1))
