"""Python stacks: which frame called which, by the ids that the profiler gave them, else by time."""

import numpy as np
from msgspec import Struct

from profiling.analysis.nesting import Nest, nest, tolerance_ns
from profiling.trace.callers import UNKNOWN_CALLER
from profiling.trace.trace import Int64s, Trace


class Stacks(Struct, frozen=True, eq=False):
    """All Python frames; the parent of a frame is its caller.

    The ids of frames tell the callers. Without ids, a frame is called by the innermost one around it. A frame ends at
    the latest with its caller, and when its caller calls another function; a frame of a generator that never returned
    lasts longer in the file, by mistake. `overlapping` is the number of frames that do so, or that overlap the next
    frame of the same caller in part.
    """

    frames: Nest
    overlapping: int
    by_id: bool


def stacks(trace: Trace) -> Stacks:
    """Find the callers of all frames; empty without frames."""
    frames = trace.frames
    by_id = bool((frames.caller != UNKNOWN_CALLER).any())
    nested = nest(frames, np.arange(frames.name.size), frames.caller if by_id else None)
    end, overlapping = _returned(nested, tolerance_ns(frames, nested.start_ns))
    return Stacks(Nest(nested.rows, nested.thread, nested.start_ns, end, nested.parent), overlapping, by_id)


def _returned(nested: Nest, tolerance: int) -> tuple[Int64s, int]:
    """When each frame has returned at the latest, by position, and the number of frames that overlap others."""
    parent, start, end = nested.parent, nested.start_ns, nested.end_ns
    caller = np.where(parent >= 0, parent, -1 - nested.thread)
    order = np.argsort(caller, kind="stable")
    first, next_ = order[:-1], order[1:]
    late = (caller[first] == caller[next_]) & (end[first] > start[next_] + tolerance)
    first, next_ = first[late], next_[late]
    around = end[next_] <= end[first] + tolerance
    returned = end.copy()
    returned[first[around]] = start[next_[around]]

    inner = np.flatnonzero(parent >= 0)
    if (returned[inner] > returned[parent[inner]] + tolerance).any():
        # Pointer doubling: each round takes the ends of twice as many callers into account.
        up, least = parent.copy(), returned.copy()
        while inner.size:
            least[inner] = np.minimum(least[inner], least[up[inner]])
            up[inner] = up[up[inner]]
            inner = inner[up[inner] >= 0]
        returned = np.where(least > start, least, returned)  # a frame that starts later contradicts that end
    overlaps = returned + tolerance < end
    overlaps[first] = True
    return returned, int(overlaps.sum())
