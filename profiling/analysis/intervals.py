"""Arithmetic of intervals [start, end) in nanoseconds, over whole columns at once."""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from profiling.trace.trace import Int64s

Numbers = NDArray[np.intp]


class Pieces(Struct, frozen=True, eq=False):
    """Disjoint intervals in order of time. `owner` is an index into the intervals that they were cut from."""

    start_ns: Int64s
    end_ns: Int64s
    owner: Numbers


class Overlaps(Struct, frozen=True, eq=False):
    """Where two sets of disjoint intervals overlap; `first` and `second` are indices into the two sets."""

    start_ns: Int64s
    end_ns: Int64s
    first: Numbers
    second: Numbers


def cut(start_ns: Int64s, end_ns: Int64s) -> Pieces:
    """Cut intervals, in any order, into disjoint pieces that cover the same time.

    Where several are open, the piece belongs to the one that ends last: a wait for all of them ends with that one.
    """
    order = np.lexsort((-end_ns, start_ns))
    start, end = start_ns[order], end_ns[order]
    if not start.size:
        return Pieces(start, end, order)
    latest = np.maximum.accumulate(end)
    leads = np.concatenate(([True], end[1:] > latest[:-1]))
    owner = np.maximum.accumulate(np.where(leads, np.arange(start.size), 0))
    stop = np.minimum(np.append(start[1:], latest[-1]), latest)
    kept = stop > start
    return Pieces(start[kept], stop[kept], order[owner[kept]])


def overlaps(a_start_ns: Int64s, a_end_ns: Int64s, b_start_ns: Int64s, b_end_ns: Int64s) -> Overlaps:
    """Intersect two sets of intervals; those of `b` are disjoint and in order of time.

    The result has the order of `a`, and within each of these intervals the order of time.
    """
    low = np.searchsorted(b_end_ns, a_start_ns, side="right")
    high = np.maximum(np.searchsorted(b_start_ns, a_end_ns, side="left"), low)
    count = high - low
    first = np.repeat(np.arange(a_start_ns.size), count)
    second = np.arange(first.size) - np.repeat(np.cumsum(count) - count, count) + low[first]
    start = np.maximum(a_start_ns[first], b_start_ns[second])
    return Overlaps(start, np.minimum(a_end_ns[first], b_end_ns[second]), first, second)


def gaps(start_ns: Int64s, end_ns: Int64s, inside_start_ns: Int64s, inside_end_ns: Int64s) -> Pieces:
    """The parts of disjoint intervals that other disjoint intervals do not cover, both in order of time."""
    covered = overlaps(start_ns, end_ns, inside_start_ns, inside_end_ns)
    owner = np.concatenate((np.arange(start_ns.size), covered.first))
    starts = np.concatenate((start_ns, covered.end_ns))
    order = np.lexsort((starts, owner))
    owner, starts = owner[order], starts[order]
    # Every interval begins with a gap, and every covered part ends one: the two lists have the same order.
    ends = np.concatenate((covered.start_ns, end_ns))
    ends = ends[np.lexsort((ends, np.concatenate((covered.first, np.arange(start_ns.size)))))]
    kept = ends > starts
    return Pieces(starts[kept], ends[kept], owner[kept])


def within(start_ns: Int64s, end_ns: Int64s, low_ns: Int64s, high_ns: Int64s) -> Int64s:
    """Total time of disjoint intervals, in order of time, inside each of the windows [low, high)."""
    before = np.concatenate(([0], np.cumsum(end_ns - start_ns)))

    def until(at: Int64s) -> Int64s:
        """Total time of the intervals before each time in `at`."""
        count = np.searchsorted(start_ns, at)
        last = np.maximum(count - 1, 0)
        over = np.maximum(end_ns[last] - at, 0) if end_ns.size else 0
        return np.asarray(before[count] - np.where(count > 0, over, 0))

    return until(high_ns) - until(low_ns)


def union(start_ns: Int64s, end_ns: Int64s) -> tuple[Int64s, Int64s]:
    """Merge intervals, in any order, into disjoint ones in order of time."""
    order = np.argsort(start_ns, kind="stable")
    start, end = start_ns[order], np.maximum.accumulate(end_ns[order])
    if not start.size:
        return start, end
    first = np.concatenate(([True], start[1:] > end[:-1]))
    last = np.concatenate((first[1:], [True]))
    return start[first], end[last]


def highest_inside(low: Numbers, high: Numbers, value: Numbers, count: int) -> Numbers:
    """The highest value of the ranges [low, high) that contain each of `count` indices, -1 for none."""
    highest = np.full(count, -1, dtype=np.intp)
    levels = np.log2(high - low).astype(np.intp)
    for level in range(int(levels.max(initial=0)), -1, -1):
        # So far `highest[i]` is about the ranges that contain the 2 ** (level + 1) indices from i on: halve these.
        width = 1 << level
        highest[width:] = np.maximum(highest[width:], highest[:-width])
        own = levels == level
        np.maximum.at(highest, low[own], value[own])
        np.maximum.at(highest, high[own] - width, value[own])
    return highest


def length(start_ns: Int64s, end_ns: Int64s) -> int:
    """Total time of disjoint intervals."""
    return int((end_ns - start_ns).sum())
