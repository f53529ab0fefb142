"""What every arm does to its process: heap at random, the probe of the cores, peak memory.

A script's arm loads this file in the user's process: standard library, and torch where it is used; Python 3.9 will do.
"""

from __future__ import annotations

import math
import random
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

PROBE_REPEATS = 16
HEAP_BLOCKS = 512  # of 64 to HEAP_BLOCK_MAX_BYTES bytes, half of which are freed
HEAP_BLOCK_MAX_BYTES = 2**17  # glibc maps larger blocks instead of taking them from the heap


def randomize_heap() -> list[bytearray]:
    """Fill the heap with blocks of random sizes and free half of them, so that no two processes lay out memory alike.

    Children of one fork server have the same heap: in every launch, the tensors of a step would lie at the same
    addresses. An effect of the addresses would then be the same in every launch, and no number of launches would
    average it away.

    Source: Mytkowicz et al., Producing Wrong Data Without Doing Anything Obviously Wrong! (ASPLOS 2009); Curtsinger and
    Berger, STABILIZER: Statistically Sound Performance Evaluation (ASPLOS 2013).

    Returns:
        The blocks that must stay alive.
    """
    system = random.SystemRandom()  # forked processes share the state of any other generator
    largest = math.log(HEAP_BLOCK_MAX_BYTES)
    blocks = [bytearray(int(math.exp(system.uniform(math.log(64), largest)))) for _ in range(HEAP_BLOCKS)]
    return [block for block in blocks if system.random() < 0.5]


class Probe:
    """A small addition whose threads read what other threads wrote: slower while the cores share no cache."""

    def __init__(self) -> None:
        import torch

        self._add = torch.add
        self._probed = torch.zeros(2, 256, 256)  # small enough for the cache of one core

    def time_s(self) -> float:
        """Seconds of the fastest of several."""
        source, target = self._probed
        seconds = []
        for _ in range(PROBE_REPEATS):
            start = time.perf_counter()
            self._add(source.t(), 1.0, out=target)
            self._add(target.t(), 1.0, out=source)
            seconds.append(time.perf_counter() - start)
        return min(seconds)


def reset_peaks() -> None:
    """Let the next peaks be those of the next block; of resident memory where the system can: man 5 proc."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    for accelerator in _accelerators():
        accelerator.reset_peak_memory_stats()


def peaks_bytes() -> dict[str, int | None]:
    """The highest memory since the last reset: resident, and of the allocator of an accelerator."""
    allocated = [accelerator.max_memory_allocated() for accelerator in _accelerators()]
    return {"resident_bytes": _resident_peak_bytes(), "accelerator_bytes": max(allocated, default=None)}


def page_faults() -> int:
    """Page faults of this process so far that needed no disk: mostly memory that was given back and is taken again."""
    import resource  # there is none on Windows, where no arm runs

    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _accelerators() -> list[Any]:
    """Modules of torch for the accelerators that this process uses."""
    torch: Any = sys.modules.get("torch")
    modules = [] if torch is None else [torch.cuda, torch.xpu]
    return [module for module in modules if module.is_initialized()]


def _resident_peak_bytes() -> int:
    """The highest resident memory of this process, since the last reset where that is possible."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # other systems than Linux

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
