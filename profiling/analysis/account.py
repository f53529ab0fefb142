"""How the time of the steps is spent: in operators, in Python, loading data, and waiting for what.

Only the threads count that a step runs on or waits for (`Index.step_threads`), and only the time inside steps and
phases. Waits on other threads, and the synchronization with which the profiler closes a window, belong to no step.
"""

from functools import cached_property

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from profiling.analysis.blocking_calls import CLOCK_ERROR_NS, BlockingCalls, blocking_calls
from profiling.analysis.index import Index, PhaseNumbers
from profiling.analysis.intervals import Pieces, cut, gaps, highest_inside, overlaps, union, within
from profiling.analysis.nesting import Rows
from profiling.trace.columns import Kind
from profiling.trace.groups import by_value
from profiling.trace.trace import Int64s, Trace
from profiling.vocabulary import TRACE_PHASES


class Segments(Struct, frozen=True, eq=False):
    """The time that is accounted for, cut wherever a step or a phase begins or ends: disjoint, in order of time.

    `step` is an index into the steps, -1 outside of them; `phase` an index into PHASE_LABELS.
    """

    start_ns: Int64s
    end_ns: Int64s
    step: NDArray[np.intp]
    phase: PhaseNumbers


class Waits(Struct, frozen=True, eq=False):
    """Intervals in which a thread of the steps is blocked; each lies within one segment. Disjoint, in order of time.

    `call` is an index into the blocking calls, `segment` into the segments.
    """

    start_ns: Int64s
    end_ns: Int64s
    call: NDArray[np.intp]
    segment: NDArray[np.intp]


class WaitParts(Struct, frozen=True, eq=False):
    """The waits, cut by what the device did meanwhile.

    `wait` is an index into the waits; `row` is the row of the device work that was waited for, else IDLE (the device
    did nothing) or OTHER_STREAMS (it worked, but on streams that the call does not wait for).
    """

    length_ns: Int64s
    wait: NDArray[np.intp]
    row: Rows


IDLE, OTHER_STREAMS = -1, -2


class TimeAccount:
    """The account of one trace; each result is computed at its first use."""

    def __init__(self, index: Index) -> None:
        self.index = index

    @cached_property
    def blocking_calls(self) -> BlockingCalls:
        """The calls that block the host, on any thread."""
        return blocking_calls(self.index.trace, self.index.device_rows, self.index.launching_rows)

    @cached_property
    def segments(self) -> Segments:
        """The steps, and the phases outside of them."""
        marks, nested = self.index.steps, self.index.phases
        on_path = self.index.step_threads[nested.thread]
        edges = (marks.start_ns, marks.end_ns, nested.start_ns[on_path], nested.end_ns[on_path])
        cuts = np.sort(np.concatenate(edges))
        start, end = cuts[:-1], cuts[1:]
        step = np.searchsorted(marks.start_ns, start, side="right") - 1
        step[start >= marks.end_ns[step]] = -1
        phase = self._phase(start)
        kept = (end > start) & ((step >= 0) | (phase < len(TRACE_PHASES)))
        return Segments(start[kept], end[kept], step[kept], phase[kept])

    def _phase(self, at_ns: Int64s) -> PhaseNumbers:
        """Number of the phase that is open at each of some sorted times.

        On several threads, that of the last of autograd's threads holds, and that of the main thread least of all.
        """
        index, nested = self.index, self.index.phases
        on_path = index.step_threads[nested.thread]
        edges = np.concatenate((nested.start_ns[on_path], nested.end_ns[on_path]))
        thread = np.concatenate((nested.thread[on_path],) * 2)
        order = np.lexsort((edges, thread))
        edges, thread = edges[order], thread[order]
        open_ = nested.locate(thread, edges)  # until the next edge of the thread
        low, high = np.searchsorted(at_ns, edges), np.searchsorted(at_ns, np.append(edges[1:], 0))
        some = (open_ >= 0) & (low < high)
        rank = open_ + np.where(thread == index.main_thread, 0, nested.thread.size)
        highest = highest_inside(low[some], high[some], rank[some], at_ns.size)
        phase = np.append(index.phase_ids, len(TRACE_PHASES)).astype(np.intp)
        return phase[np.where(highest >= 0, highest % max(nested.thread.size, 1), -1)]

    @cached_property
    def waits(self) -> Waits:
        """When a thread of the steps is blocked."""
        rows, spans, segments = self.blocking_calls.rows, self.index.trace.spans, self.segments
        calls = np.flatnonzero(self.index.step_threads[spans.thread[rows]])
        pieces = _pieces(self.index, rows[calls])
        parts = overlaps(pieces.start_ns, pieces.end_ns, segments.start_ns, segments.end_ns)
        return Waits(parts.start_ns, parts.end_ns, calls[pieces.owner[parts.first]], parts.second)

    @cached_property
    def wait_parts(self) -> WaitParts:
        """What the device did during each wait."""
        index, calls, waits = self.index, self.blocking_calls, self.waits
        spans, running = index.trace.spans, _Running(index.trace, index.device_rows)
        waits_for = calls.waits_for[waits.call]
        parts: list[tuple[Int64s, NDArray[np.intp], Rows]] = []

        def add(pieces: Pieces, row: Rows | int) -> None:
            parts.append((pieces.end_ns - pieces.start_ns, pieces.owner, np.broadcast_to(row, pieces.owner.shape)))

        def cover(open_: Pieces, rows: Rows, label: int | None = None) -> Pieces:
            """Add the parts of the waits `open_` in which the rows run, as theirs or as `label`; return the rest."""
            work = _pieces(index, rows)
            edges = open_.start_ns, open_.end_ns, work.start_ns, work.end_ns
            found, left = overlaps(*edges), gaps(*edges)
            row = rows[work.owner[found.second]] if label is None else label
            add(Pieces(found.start_ns, found.end_ns, open_.owner[found.first]), row)
            return Pieces(left.start_ns, left.end_ns, open_.owner[left.owner])

        for number, own in by_value(waits_for):
            device = running.rows(waits.start_ns[own], waits.end_ns[own] + CLOCK_ERROR_NS)
            thread = spans.thread[device]
            awaited = calls.streams[number].of_threads(len(index.trace.threads))[thread]
            rest = cover(Pieces(waits.start_ns[own], waits.end_ns[own], own), device[awaited])
            behind = self._behind(rest, device[awaited], device[~awaited])
            left = [_some(rest, behind < 0)]
            queued = np.flatnonzero(behind >= 0)
            work = dict(by_value(thread)) if queued.size else {}
            for stream, places in by_value(behind[queued]):
                left.append(cover(_some(rest, queued[places]), device[work[stream]]))
            rest = Pieces(*(np.concatenate([getattr(pieces, name) for pieces in left]) for name in _PIECES))
            add(cover(rest, device[~awaited], OTHER_STREAMS), IDLE)
        columns = zip(*parts, strict=True) if parts else ([np.empty(0, dtype=np.intp)] for _ in range(3))
        return WaitParts(*(np.concatenate(column) for column in columns))

    def _behind(self, rest: Pieces, awaited: Rows, others: Rows) -> NDArray[np.intp]:
        """The stream that the awaited ones wait for in each interval without work of theirs; -1 for none.

        Work that is queued on an idle stream waits for another one: that of the work which ends last before it starts.
        Not so if the trace records such waits (`cuda_sync`): then the awaited streams already include it.
        """
        spans = self.index.trace.spans
        behind = np.full(rest.owner.size, -1, dtype=np.intp)
        if not others.size or self.index.trace.rows(Kind.SYNC).size:
            return behind
        end = spans.start_ns[others] + spans.dur_ns[others]
        order = np.argsort(end, kind="stable")
        last = np.searchsorted(end[order], rest.end_ns + CLOCK_ERROR_NS, side="right") - 1
        latest = others[order[last]]  # of any row where there is none: `last` is -1
        found = np.isin(rest.end_ns, spans.start_ns[awaited]) & (last >= 0) & (end[order[last]] > rest.start_ns)
        behind[found] = spans.thread[latest[found]]
        return behind

    @cached_property
    def running(self) -> tuple[Int64s, Int64s]:
        """When an operator is open on a thread of the steps: disjoint intervals, in order of time."""
        operators = self.index.operators
        on_path = self.index.step_threads[operators.thread]  # not only roots: a child may end after its parent
        return union(operators.start_ns[on_path], operators.end_ns[on_path])

    @cached_property
    def operator_ns(self) -> Int64s:
        """Self time of each operator without waiting, by position; 0 on other threads than those of the steps."""
        nested, spans, rows = self.index.operators, self.index.trace.spans, self.blocking_calls.rows
        own_ns: Int64s = np.where(self.index.step_threads[nested.thread], nested.self_ns(), 0)
        for thread, places in by_value(spans.thread[rows]):
            if not self.index.step_threads[thread]:
                continue
            waits = _pieces(self.index, rows[places])
            at = np.arange(*np.searchsorted(nested.thread, [thread, thread + 1]))
            start, end, caller = nested.start_ns[at], nested.end_ns[at], nested.parent[at]
            own_ns[at] -= within(waits.start_ns, waits.end_ns, start, end)
            called = caller >= 0  # the time of a callee is no self time of its caller
            end = np.minimum(end[called], nested.end_ns[caller[called]])
            np.add.at(own_ns, caller[called], within(waits.start_ns, waits.end_ns, start[called], end))
        return np.maximum(own_ns, 0)

    @cached_property
    def operator_segments(self) -> NDArray[np.intp]:
        """Segment in which each operator starts, by position; -1 outside of them and on other threads."""
        nested, segments = self.index.operators, self.segments
        place = np.searchsorted(segments.start_ns, nested.start_ns, side="right") - 1
        inside = (place >= 0) & self.index.step_threads[nested.thread]
        inside[inside] = nested.start_ns[inside] < segments.end_ns[place[inside]]
        return np.where(inside, place, -1)

    @property
    def operator_ns_outside(self) -> int:
        """Self time of the operators on the steps' threads, but outside all segments."""
        return int(self.operator_ns[self.operator_segments < 0].sum())


_PIECES = Pieces.__struct_fields__


class _Running:
    """The rows of the device's work, to be found by time."""

    def __init__(self, trace: Trace, device_rows: Rows) -> None:
        start_ns = trace.spans.start_ns[device_rows]
        order = np.argsort(start_ns, kind="stable")
        self._rows, self._start_ns = device_rows[order], start_ns[order]
        self._latest_end_ns = np.maximum.accumulate(self._start_ns + trace.spans.dur_ns[self._rows])

    def rows(self, start_ns: Int64s, end_ns: Int64s) -> Rows:
        """All rows that run within any of some intervals, in the order of the file, and maybe some other ones."""
        first = np.searchsorted(self._latest_end_ns, start_ns, side="right")
        low, high = union(first, np.maximum(np.searchsorted(self._start_ns, end_ns, side="right"), first))
        count = high - low
        return np.sort(self._rows[np.arange(count.sum()) + np.repeat(low - np.cumsum(count) + count, count)])


def _some(pieces: Pieces, chosen: NDArray[np.bool_ | np.intp]) -> Pieces:
    return Pieces(pieces.start_ns[chosen], pieces.end_ns[chosen], pieces.owner[chosen])


def _pieces(index: Index, rows: Rows) -> Pieces:
    start = index.trace.spans.start_ns[rows]
    return cut(start, start + index.trace.spans.dur_ns[rows])
