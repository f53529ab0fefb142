"""The heap of glibc: freed memory is returned to the kernel by default, and can be kept instead. Imports no torch.

By default, memory is returned by thresholds that depend on earlier frees, so the speed of identical processes can
differ. PyTorch's tuning guide recommends other allocators for the same reason. Sources: man 3 mallopt;
https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html
"""

import ctypes
import platform
import sys
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # mallopt's parameters, in glibc's malloc.h
KEPT_HEAP = {"MALLOC_TRIM_THRESHOLD_": str(sys.maxsize), "MALLOC_MMAP_MAX_": "0"}
"""Variables with which a process that starts keeps its heap."""

RESERVE_BYTES = 2**28  # several times the memory of a traced window of nograd_off


def has_glibc() -> bool:
    """Whether the C library is glibc; nothing here has an effect on others."""
    return platform.libc_ver()[0] == "glibc"


@cache
def keep_heap() -> None:
    """Disable heap trimming and mmap for large blocks: freed memory is reused, not page-faulted at every step.

    Irreversible for this process.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(M_TRIM_THRESHOLD, -1)
    libc.mallopt(M_MMAP_MAX, 0)


def reserve_heap() -> None:
    """Add RESERVE_BYTES of free memory to the heap, more than a traced window needs; effective after `keep_heap`.

    Otherwise the profiler's records occupy blocks that a step has freed. The next step's tensors then need new memory,
    and its operators that return large tensors take longer than without a profiler.
    """
    b"\1" * RESERVE_BYTES  # writing to the pages makes the kernel map them
