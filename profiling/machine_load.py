"""How many cores other processes use: what /proc/stat counts, less the CPU time of this process and its descendants.

Only Linux tells it for the cores that this process may use; elsewhere nothing is claimed. Imports no torch.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

BUSY_CORES = 0.25
"""Less than this is ignored: a desktop uses as much, and the counters are no more exact."""

SHORTEST_S = 0.2  # the kernel counts in hundredths of a second
WINDOW_S = 0.5


class OthersMeter:
    """Measures how many cores other processes use, over the time since it was made or last read.

    Args:
        root_pid: with its descendants it is not "others"; by default this process.
    """

    def __init__(self, root_pid: int | None = None) -> None:
        self._root_pid = root_pid or os.getpid()
        self._before = self._read()

    def cores(self) -> float | None:
        """Return the cores that others used on average, such as 0.66; None before SHORTEST_S, or if nothing tells."""
        before, now = self._before, self._read()
        if before is None or now is None or now[0] - before[0] < SHORTEST_S:
            return None
        self._before = now
        (start_s, busy_s, own_s), (end_s, busy_now_s, own_now_s) = before, now
        return max(0.0, (busy_now_s - busy_s) - (own_now_s - own_s)) / (end_s - start_s)

    def _read(self) -> tuple[float, float, float] | None:
        """Seconds: of a clock, of all work on the cores that this process may use, of this process' part in it."""
        busy_s = _busy_s()
        if busy_s is None:
            return None
        import psutil  # slow; most programs that import this module measure nothing

        own_s = 0.0
        with suppress(psutil.Error):
            root = psutil.Process(self._root_pid)
            for process in (root, *root.children(recursive=True)):
                with suppress(psutil.Error):  # it has just ended: its parent's figures have it
                    times = process.cpu_times()
                    own_s += times.user + times.system + times.children_user + times.children_system
        return time.monotonic(), busy_s, own_s


def others_now() -> float | None:
    """Watch for WINDOW_S; return as `OthersMeter.cores`."""
    meter = OthersMeter()
    time.sleep(WINDOW_S)
    return meter.cores()


def described(cores: float) -> str:
    """Write a number of cores: `66 % of a core`, `1.3 cores`."""
    return f"{100 * cores:.0f} % of a core" if cores < 1 else f"{cores:.1f} cores"


def warning(cores: float | None) -> str | None:
    """Return one line for a run that begins while others use so many `cores`; None where they use next to nothing."""
    if cores is None or cores < BUSY_CORES:
        return None
    return (
        f"other processes use {described(cores)} of {len(_usable_cores())}: what is timed now is slower and less "
        "certain, with several threads many times slower"
    )


def _busy_s() -> float | None:
    """Seconds that the cores of this process have worked since the system started; None where nothing tells it."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return None
    rows = {name: [int(ticks) for ticks in counts] for name, *counts in map(str.split, lines) if name.startswith("cpu")}
    cores = [rows[f"cpu{core}"] for core in _usable_cores() if f"cpu{core}" in rows]
    if not any(map(any, cores)):  # a sandbox that counts nothing
        return None
    # man 5 proc: user, nice, system, idle, iowait, irq, softirq
    return sum(sum(core[:3]) + sum(core[5:7]) for core in cores) / os.sysconf("SC_CLK_TCK")


def _usable_cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
