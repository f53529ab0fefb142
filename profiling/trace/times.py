"""Times of events: which are usable, and their conversion to nanoseconds.

A few events at 0 or far from the rest would stretch a trace of milliseconds to years.
"""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from profiling.trace.columns import MAX_TIME_US

Microseconds = NDArray[np.float64]
Int64s = NDArray[np.int64]

FAR_US = 3.6e9
"""No program is profiled for an hour in which nothing is recorded: such a gap divides a trace into groups."""
FAR_RATIO = 10
"""A time is far from a group if it is this many times the group's extent away from it."""
FEW = 0.25
"""A larger share of the events is no error: rather a pause, or a device whose clock differs from the host's."""
UNWRITTEN_FAR_US = 1e6
"""Like FAR_US, for events with neither a time nor a duration: nothing of them was ever written."""


class Usable(Struct, frozen=True, eq=False):
    """`keep`: which events have a usable time. `distant`: number of events that are far from the rest, but too many."""

    keep: NDArray[np.bool_]
    distant: int = 0


def usable_times(ts: Microseconds, dur: Microseconds) -> Usable:
    """Find the events without a usable time: without any, at 0 though the others are far from 0, or far from the rest.

    The rest is the largest group of events without a gap of FAR_US between their starts. An event is far from it if it
    starts or ends more than FAR_US and more than FAR_RATIO times the group's extent before or after it. Such events
    are excluded if they are at 0, or if they are FEW.
    """
    if _is_short(ts, dur):
        return Usable(np.ones(ts.size, dtype=bool))
    lasts = dur > 0
    keep = (np.abs(ts) < MAX_TIME_US) & ~(dur >= MAX_TIME_US)
    end = ts + np.where(lasts & keep, dur, 0.0)
    low, high = ts.min(where=keep, initial=np.inf), end.max(where=keep, initial=-np.inf)
    at_zero = ts == 0 if low <= 0 <= high else np.zeros(ts.size, dtype=bool)
    if high - low <= (UNWRITTEN_FAR_US if at_zero.any() else FAR_US):
        return Usable(keep)
    timed = np.sort(ts[keep & ~at_zero])
    if not timed.size:
        return Usable(keep)
    edges = np.concatenate(([0], np.flatnonzero(np.diff(timed) > FAR_US) + 1, [timed.size]))
    largest = int(np.diff(edges).argmax())
    first, last = float(timed[edges[largest]]), float(timed[edges[largest + 1] - 1])
    reach = FAR_RATIO * (last - first)

    def far(limit_us: float) -> NDArray[np.bool_]:
        distance = max(limit_us, reach)
        return keep & ((ts < first - distance) | (end > last + distance))

    wrong = at_zero & (far(FAR_US) | (far(UNWRITTEN_FAR_US) & ~lasts))
    distant = far(FAR_US) & ~at_zero
    count = int(np.count_nonzero(distant))
    if count <= FEW * np.count_nonzero(keep & ~wrong):
        return Usable(keep & ~wrong & ~distant)
    return Usable(keep & ~wrong, count)


def _is_short(ts: Microseconds, dur: Microseconds) -> bool:
    """Whether no event can be far from another, nor at 0: the usual case, found in less time."""
    if not ts.size:
        return True
    low, latest, longest = float(ts.min()), float(ts.max()), float(dur.max())  # numpy warns if a sum is infinite
    high = latest + max(longest, 0.0)  # nan, which is no number of any range, if there is one
    return low > 0 and high < MAX_TIME_US and high - low <= FAR_US


def resolution_ns(ts: Microseconds) -> int:
    """Distance of neighboring float64 microseconds at the median of these times, in whole nanoseconds, at least 1."""
    some = np.sort(np.abs(ts[:: max(ts.size // 1000, 1)]))  # np.median would import numpy.ma, which is slow
    return max(int(np.spacing(some[some.size // 2]) * 1000), 1) if some.size else 1


def nanoseconds(ts: Microseconds, origin: int) -> Int64s:
    """Convert microseconds to nanoseconds since `origin` (in microseconds), exactly.

    Near 4.4e12 us the error of a float64 is up to 0.49 ns, so its fractional part still rounds to the right nanosecond.
    """
    whole = np.floor(ts)
    fraction = np.rint((ts - whole) * 1000).astype(np.int64)
    return np.asarray((whole.astype(np.int64) - origin) * 1000 + fraction)


def durations(dur: Microseconds) -> Int64s:
    """Convert microseconds to nanoseconds; durations that are negative or missing become 0."""
    exact: Int64s = np.rint(np.fmax(dur, 0.0) * 1000).astype(np.int64)
    return exact
