"""Whether the cores of the machine share a cache, decided from the times of a probe. Imports no torch.

The host of a virtual machine moves its cores from time to time. While two cores share no cache, everything that one
writes and the other reads takes longer, and the slowdown differs between the arms. Rounds wait for that to end, for a
limited time. Launches that still ran in this state are marked, and left out if enough others remain
(docs/measurement.md).
"""

import math
import time
from collections.abc import Callable, Sequence

CORES_APART_RATIO = 1.4  # a probe this much slower than the best: cores share no cache; see docs/measurement.md
RETRY_S = 0.1


class CoreWatch:
    """Waits for cores that share a cache, and remembers the best probe.

    Args:
        patience_s: seconds that all waits may take together.
        best_probe_s: the shortest probe that is known of this machine; None if none is.

    Attributes:
        waited_s: seconds spent waiting so far, probes included.
    """

    def __init__(self, patience_s: float, best_probe_s: float | None = None) -> None:
        self.waited_s = 0.0
        self._patience_s = patience_s
        self._best_probe_s = best_probe_s or math.inf

    def wait(self, probe: Callable[[], float]) -> float:
        """Repeat `probe` until the cores share a cache or the patience is used up; return its last time in seconds."""
        start = time.perf_counter()
        while True:
            probe_s = probe()
            self._best_probe_s = min(self._best_probe_s, probe_s)
            waited_s = self.waited_s + time.perf_counter() - start
            if probe_s < CORES_APART_RATIO * self._best_probe_s or waited_s > self._patience_s:
                break
            time.sleep(RETRY_S)
        self.waited_s = waited_s
        return probe_s


def cores_apart(probe_s: Sequence[float], best_probe_s: float | None) -> list[bool]:
    """Mark the launches during which the cores shared no cache.

    Args:
        probe_s: [launches] median probe of each.
        best_probe_s: the shortest probe that was known before; None if none was. The yardstick is this one, or the
            shortest median of the launches themselves.
    """
    best_s = min([*probe_s, best_probe_s or math.inf])
    return [seconds >= CORES_APART_RATIO * best_s for seconds in probe_s]
