"""Which interval contains which, per thread: the base of self times and of finding what was open at a time."""

from itertools import pairwise

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from profiling.trace.groups import by_value
from profiling.trace.trace import Int64s, Intervals

Rows = NDArray[np.intp]
"""Indices into a table of the trace."""

Positions = NDArray[np.intp]
"""Indices into a `Nest`; -1 for none."""

TOLERANCE_NS = 1000
"""Old traces round times to microseconds, so a child may seem to end up to that much after its parent."""
_FEW_LEVELS = 128
"""Climbing so many levels one by one costs less than the tables for climbing any number in few steps."""
_GRIDS_NS = (1000, 100, 10)
"""Times that are all multiples of one of these have been rounded to it."""


class Nest(Struct, frozen=True, eq=False):
    """Intervals of one or several threads, sorted by thread, then start, then longest first.

    A position is an index into these five arrays. `rows` is the interval's row in the table it came from; `parent` is
    the position of the innermost interval around it, -1 for a root.
    """

    rows: Rows
    thread: NDArray[np.int32]
    start_ns: Int64s
    end_ns: Int64s
    parent: Positions

    def self_ns(self) -> Int64s:
        """Time of each interval outside its direct children, by position.

        Its sum over a thread is the time in which at least one interval is open.
        """
        self_ns = self.end_ns - self.start_ns
        child = np.flatnonzero(self.parent >= 0)
        parent = self.parent[child]
        inside = np.minimum(self.end_ns[child], self.end_ns[parent]) - self.start_ns[child]
        np.subtract.at(self_ns, parent, inside)
        return np.asarray(np.maximum(self_ns, 0))

    def locate(self, thread: NDArray[np.int32], at_ns: Int64s) -> Positions:
        """Position of the innermost interval that is open on a thread at a time, -1 for none."""
        positions = np.full(at_ns.shape, -1, dtype=np.intp)
        for number, places in by_value(thread):
            low, high = np.searchsorted(self.thread, [number, number + 1])
            times = at_ns[places]
            if 8 * (high - low) < times.size and np.all(times[1:] >= times[:-1]):
                # Of many sorted times, those between two edges of the intervals have the position of the first edge.
                edges = np.sort(np.concatenate((self.start_ns[low:high], self.end_ns[low:high])))
                after = np.diff(np.searchsorted(times, edges), prepend=0, append=times.size)
                positions[places] = np.repeat(np.append(-1, self._innermost(low, high, edges)), after)
            else:
                positions[places] = self._innermost(low, high, times)
        return positions

    def _innermost(self, low: int, high: int, at_ns: Int64s) -> Positions:
        """As `locate`, on the thread whose intervals are at the positions from `low` to `high`."""
        started = np.searchsorted(self.start_ns[low:high], at_ns, side="right")
        return _climb(np.where(started > 0, low + started - 1, -1), self.parent, self.end_ns, at_ns)

    def nearest(self, wanted: NDArray[np.bool_]) -> Positions:
        """For each interval, the innermost one that is `wanted`: itself or an ancestor, -1 for none."""
        up = np.where(wanted, np.arange(wanted.size), self.parent)
        # Pointer doubling: each round replaces a pointer by the pointer of its target, which doubles the distance.
        while True:
            open_ = np.flatnonzero((up >= 0) & ~wanted[up])
            if not open_.size:
                return up
            up[open_] = up[up[open_]]

    def only(self, wanted: NDArray[np.bool_]) -> "Nest":
        """The `wanted` intervals; the parent of each is the innermost wanted one around it."""
        position = np.flatnonzero(wanted)
        number = np.cumsum(wanted) - 1
        parent = np.append(self.nearest(wanted), -1)[self.parent[position]]
        return Nest(
            self.rows[position],
            self.thread[position],
            self.start_ns[position],
            self.end_ns[position],
            np.where(parent >= 0, number[parent], -1),
        )


def nest(table: Intervals, rows: Rows, parents: NDArray[np.int32] | None = None) -> Nest:
    """Nest the given rows of a table: by `parents`, the row of the parent of each row (-1: a root), else by time.

    Where it is less than -1, or the parent would start after its child, time decides.

    Intervals that overlap only in part are treated as in torch's `key_averages`: the earlier one is not the parent of
    the later one, nor of any interval that follows. An overlap that rounded times explain is none: an interval shorter
    than the resolution of its start is nobody's parent, and none is the parent of one of its own name that begins
    within that resolution of its end.
    """
    thread, start, dur = table.thread[rows], table.start_ns[rows], table.dur_ns[rows]
    if not _in_order(thread, start, dur):
        order = np.lexsort((-dur, start, thread))
        rows, thread, start, dur = rows[order], thread[order], start[order], dur[order]
        parents = None if parents is None else parents[order]
    end = start + dur
    resolution, tolerance = table.resolution_ns, tolerance_ns(table, start)

    def past(child: Positions | slice, candidate: Positions | slice) -> NDArray[np.bool_]:
        """Whether candidate parents have ended, or end before the child does."""
        overlap = end[candidate] - start[child]
        # Rounding keeps the order of durations: what lasts longer than the candidate is no child of it.
        is_past = (overlap <= 0) | (end[child] > end[candidate] + tolerance) | (dur[child] > dur[candidate])
        if resolution > 1:
            same_name = table.name[rows[child]] == table.name[rows[candidate]]
            is_past |= (dur[candidate] < resolution) | ((overlap < resolution) & same_name)
        return np.asarray(is_past)

    inside = _starts_in_another(thread, start, end)
    parent = np.where(inside, np.arange(-1, rows.size - 1), -1)
    if parents is None:
        inside[1:] &= past(slice(1, None), slice(-1))
        pending = np.flatnonzero(inside)
    else:
        position = np.full(table.name.size, rows.size, dtype=np.intp)
        position[rows] = np.arange(rows.size)
        known = np.where(parents >= 0, position[parents], parents)
        usable = (known >= -1) & (known < np.arange(rows.size))
        parent[usable] = known[usable]
        pending = np.flatnonzero(inside & ~usable)
        pending = pending[past(pending, parent[pending])]
    rounds = 0
    while pending.size:
        # All intervals between an interval and its candidate parent have ended. A candidate that has ended too, or that
        # ends before the interval does, is replaced by its own candidate: a chain of siblings halves in each round.
        parent[pending] = parent[parent[pending]]
        rounds += 1
        if rounds % _FEW_LEVELS == 0:  # of a deep call that has ended, whose levels would take a round each
            too_early = np.maximum(start[pending], end[pending] - tolerance - 1)
            parent[pending] = _climb(parent[pending], parent, end, too_early)
        pending = pending[parent[pending] >= 0]
        pending = pending[past(pending, parent[pending])]
    return Nest(rows, thread, start, end, parent)


def tolerance_ns(table: Intervals, start_ns: Int64s) -> int:
    """How much later than its parent a child may seem to end, if times were rounded as these starts of a table are.

    Writers round starts and durations; a float64 with too few digits rounds the starts once more.
    """
    few = start_ns[:1000]  # usually these tell
    grid = next((grid for grid in _GRIDS_NS if not (few % grid).any() and not (start_ns % grid).any()), 1)
    return min(max(2 * grid, table.resolution_ns + 1), TOLERANCE_NS)


def call_chains(nested: Nest, names: NDArray[np.int32]) -> tuple[NDArray[np.intp], list[tuple[int, int]]]:
    """Number the distinct call chains: the names from a root down to an interval, such as (`aten::linear`, `aten::t`).

    Returns the number of each position's chain and, for each chain, the number of the chain without its last name (-1
    for a root) and that last name. Shorter chains come first; those of one length are in order of first occurrence.
    """
    path = np.full(names.size, -1, dtype=np.intp)
    chains: list[tuple[int, int]] = []
    depth = _depths(nested.parent)
    by_depth = np.argsort(depth, kind="stable")
    levels = np.split(by_depth, np.cumsum(np.bincount(depth))[:-1]) if depth.size else []
    width = int(names.max(initial=0)) + 1
    for level in levels:
        above = np.where(nested.parent[level] >= 0, path[nested.parent[level]], -1)
        keys, first, group = np.unique((above + 1) * width + names[level], return_index=True, return_inverse=True)
        by_first = np.argsort(first)
        rank = np.empty(by_first.size, dtype=np.intp)
        rank[by_first] = np.arange(by_first.size)
        path[level] = len(chains) + rank[group]
        chains += [(key // width - 1, key % width) for key in keys[by_first].tolist()]
    return path, chains


def _depths(parent: Positions) -> NDArray[np.intp]:
    """Number of ancestors of each interval."""
    depth, up = (parent >= 0).astype(np.intp), parent.copy()
    pending = np.flatnonzero(parent >= 0)
    while (pending := pending[up[pending] >= 0]).size:  # pointer doubling, as in `Nest.nearest`
        depth[pending], up[pending] = depth[pending] + depth[up[pending]], up[up[pending]]
    return depth


def _climb(inside: Positions, parent: Positions, end: Int64s, at: Int64s) -> Positions:
    """Replace intervals that have ended by their innermost ancestor that is open, -1 for none, in place."""
    pending = np.flatnonzero(inside >= 0)
    for _ in range(_FEW_LEVELS):
        if not pending.size:
            return inside
        pending = pending[end[inside[pending]] <= at[pending]]
        inside[pending] = parent[inside[pending]]
        pending = pending[inside[pending] >= 0]
    pending = pending[end[inside[pending]] <= at[pending]]
    if pending.size:
        # Tables of the ancestor 2^n levels up and of the latest end below it: then climb in steps of 2^n, …, 2, 1.
        up, latest = np.append(parent, -1), np.append(end, np.iinfo(np.int64).min)  # the last ones for position -1
        tables = []
        while (up >= 0).any():
            tables.append((up, latest))
            up, latest = up[up], np.maximum(latest, latest[up])
        for above, latest_end in reversed([*tables, (up, latest)]):
            ended = pending[latest_end[inside[pending]] <= at[pending]]
            inside[ended] = above[inside[ended]]
    return inside


def _starts_in_another(thread: NDArray[np.int32], start: Int64s, end: Int64s) -> NDArray[np.bool_]:
    """Which intervals begin before an earlier one of their thread has ended; the others are roots."""
    latest = np.empty_like(end)
    edges = [0, *(np.flatnonzero(np.diff(thread)) + 1).tolist(), end.size]
    for low, high in pairwise(edges):
        np.maximum.accumulate(end[low:high], out=latest[low:high])
    inside = np.zeros(end.size, dtype=bool)
    inside[1:] = (latest[:-1] > start[1:]) & (thread[1:] == thread[:-1])
    return inside


def _in_order(thread: NDArray[np.int32], start: Int64s, dur: Int64s) -> bool:
    """Whether intervals are already in the order of a `Nest`, as Kineto writes those of a single thread."""
    same = thread[1:] == thread[:-1]
    later = start[1:] > start[:-1]
    longest_first = (start[1:] == start[:-1]) & (dur[1:] <= dur[:-1])
    return bool(np.all((thread[1:] > thread[:-1]) | (same & (later | longest_first))))
