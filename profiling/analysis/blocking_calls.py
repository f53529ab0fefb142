"""Which calls of the host into the device's runtime block the host, and for which streams they wait.

A call that has device work of its own (a copy, a kernel) is judged by times: it blocks if it lasts until its work has
ended. Names decide only where the trace has no such evidence: synchronizations and calls of memory management have no
work of their own.

Sources: https://docs.nvidia.com/cuda/cuda-runtime-api/api-sync-behavior.html (copies from and to pageable memory),
https://docs.nvidia.com/cuda/cuda-c-programming-guide/#lazy-loading (code that the first launch of a kernel loads).
"""

import re
from collections.abc import Callable, Sequence
from enum import StrEnum

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from profiling.analysis.intervals import overlaps, union
from profiling.analysis.nesting import Rows
from profiling.analysis.stream_sets import Streams, reachable, with_awaited
from profiling.trace.columns import Kind
from profiling.trace.groups import by_value, distinct
from profiling.trace.trace import Int64s, Trace

CLOCK_ERROR_NS = 2000
"""The times of host and device are converted from two clocks, and old traces round them to microseconds."""
LONG_CALL_NS = 100_000
"""Calls that do not block return within some microseconds."""
FULL_QUEUE = 1000
"""A stream takes about this many launches ahead of the device; then each one waits for the end of an earlier one."""
USUAL_LAUNCH_NS = 10_000
"""Launches that block last longer. For shorter ones the times of host and device are too inexact to tell."""


class WaitKind(StrEnum):
    """Why a call blocks the host."""

    synchronize = "synchronization"
    copy = "blocking copy"
    launch = "blocked launch"
    memory = "device memory"
    pinned = "pinned memory"
    module = "module loading"
    driver = "driver"


_NAMES: dict[WaitKind, Callable[[str], re.Match[str] | None]] = {
    kind: re.compile(pattern, re.IGNORECASE).search
    for kind, pattern in {
        WaitKind.synchronize: (
            r"synchroni[sz]e|(?:queue|stream|device|event)sync$|sync(?:queue|stream|device|event)"
            r"|^(?:ur|pi)(?:events?wait|queuefinish)|^cnrtwaitnotifier"
        ),
        WaitKind.pinned: (
            r"(?:alloc|free)host|^(?:cuda|hip|musa|cumem|hipmem|mumem|urusm|cnrt|syn)host(?:m?alloc|free|(?:un)?register)"
        ),
        WaitKind.memory: (
            r"^(?!.*(?:async|host))(?:(?:cuda|hip|musa|aclrt|cn|cnrt|tops|syndevice)(?:malloc|free)"
            r"|(?:cu|hip|mu)mem(?:alloc|free|create|release|map|unmap|setaccess)"
            r"|zemem(?:alloc|free)|urusm(?:deviceal|sharedal|free))"
        ),
        WaitKind.module: r"(?:module|library)(?:load|unload|getfunction|getkernel)|^(?:cu|hip)linkcomplete",
        WaitKind.copy: r"memcpy(?!.*async)(?<!enqueueusmmemcpy)",
    }.items()
}  # the first that matches holds
_ENQUEUES = re.compile(r"launch|enqueue|memcpy|memset|eventrecord|streamwait", re.IGNORECASE)
"""Calls that put something into a stream's queue, which may be full."""
_LOADS_LAZILY = re.compile(
    r"^(?:cuda|hip)(?:func[gs]et|getfuncby|getsymbol|occupancy)|^cu(?:kernelgetfunction|funcload|occupancy)",
    re.IGNORECASE,
)
"""Calls that take a kernel or a variable, whose code is loaded at its first use."""
_HOST_COPY = re.compile(r"HtoD|DtoH|HostToDevice|DeviceToHost|\bM2D\b|\bD2M\b", re.IGNORECASE)
_PAGEABLE = re.compile(r"pageable|\bM2D\b|\bD2M\b", re.IGNORECASE)
"""On XPU `M` is memory that SYCL did not allocate, `H` is pinned."""


class BlockingCalls(Struct, frozen=True, eq=False):
    """Calls that block, in the order of the file.

    `rows` of `Trace.spans`; `kinds` are indices into `list(WaitKind)`; `waits_for` is an index into `streams`, sets of
    `Trace.threads`: the rows of the device whose work the call waits for.
    """

    rows: Rows
    kinds: NDArray[np.int8]
    waits_for: NDArray[np.intp]
    streams: Sequence[Streams]


def blocking_calls(trace: Trace, device_rows: Rows, launching_rows: Rows) -> BlockingCalls:
    """Find the calls that block the host; `launching_rows` has the launching call of each of `device_rows`, or -1."""
    spans = trace.spans
    calls = trace.rows(Kind.LAUNCH)
    called = spans.name[calls]
    kinds = _by_name(trace, called, _named)
    is_copy = kinds == _number(WaitKind.copy)
    work = _Work(trace, calls, device_rows, launching_rows, is_copy)
    long = spans.dur_ns[calls] >= LONG_CALL_NS
    kinds[work.exists & is_copy] = _NONE
    kinds[work.is_blocking_copy] = _number(WaitKind.copy)
    kinds[work.is_blocking_launch] = _number(WaitKind.launch)
    rest = long & (kinds == _NONE)
    enqueues = work.exists[rest] | _so_named(trace, called[rest], _is_enqueueing)
    loads = work.is_first_launch[rest] | _so_named(trace, called[rest], _is_loading_lazily)
    kinds[rest] = np.select(
        [enqueues & work.behind_other_work[rest], loads],
        [_number(WaitKind.launch), _number(WaitKind.module)],
        _number(WaitKind.driver),
    )
    kinds[rest & ~work.exists & _so_named(trace, called, _is_copying)] = _number(WaitKind.copy)
    blocking = np.flatnonzero(kinds != _NONE)
    kinds = kinds[blocking]
    own = np.isin(kinds, (_number(WaitKind.copy), _number(WaitKind.launch)))
    synchronizes = kinds == _number(WaitKind.synchronize)
    streams, waits_for = _streams(trace, calls[blocking], np.where(own, work.stream[blocking], -1), synchronizes)
    return BlockingCalls(calls[blocking], kinds, waits_for, streams)


_NONE = -1


def _number(kind: WaitKind) -> int:
    return list(WaitKind).index(kind)


def _named(name: str) -> int:
    return next((_number(kind) for kind, matches in _NAMES.items() if matches(name)), _NONE)


def _is_copying(call: str) -> bool:
    return "memcpy" in call.lower()


def _is_launching(call: str) -> bool:
    return "launch" in call.lower()


def _is_enqueueing(call: str) -> bool:
    return bool(_ENQUEUES.search(call))


def _is_loading_lazily(call: str) -> bool:
    return bool(_LOADS_LAZILY.search(call))


def _is_with_host(copy: str) -> bool:
    return bool(_HOST_COPY.search(copy)) and "pinned" not in copy.lower()


def _is_pageable(copy: str) -> bool:
    return bool(_PAGEABLE.search(copy))


class _Work:
    """What the trace shows about the device work that each of `calls` launched; arrays by call.

    `named_copy`: which calls are copies that block, by their names.
    """

    def __init__(
        self,
        trace: Trace,
        calls: Rows,
        device_rows: Rows,
        launching_rows: Rows,
        named_copy: NDArray[np.bool_],
    ) -> None:
        spans = trace.spans
        place = np.full(spans.name.size, -1, dtype=np.intp)
        place[calls] = np.arange(calls.size)
        rows, call = device_rows[launching_rows >= 0], place[launching_rows[launching_rows >= 0]]
        order = np.lexsort((spans.start_ns[rows], call))
        rows, call = rows[order], call[order]
        first = np.flatnonzero(np.concatenate(([True], call[1:] != call[:-1]))) if rows.size else rows
        self.exists = np.zeros(calls.size, dtype=bool)
        self.exists[call[first]] = True

        def by_call(values: NDArray[np.generic], empty: int) -> NDArray[np.int64]:
            column = np.full(calls.size, empty, dtype=np.int64)
            column[call[first]] = values
            return column

        end_ns = spans.start_ns[rows] + spans.dur_ns[rows]
        work_start = by_call(spans.start_ns[rows[first]], 0)
        work_end = by_call(np.maximum.reduceat(end_ns, first) if rows.size else end_ns, 0)
        self.stream = by_call(spans.thread[rows[first]], -1)
        kind = by_call(spans.kind[rows[first]], -1)
        name = by_call(spans.name[rows[first]], 0)

        start, end = spans.start_ns[calls], spans.start_ns[calls] + spans.dur_ns[calls]
        half = (end - start) / 2
        spans_work = (start <= work_start + CLOCK_ERROR_NS) & (end >= work_end - CLOCK_ERROR_NS)
        busy_stream, busy_device = _busy_ns(trace, device_rows, start, end, self.stream)
        called = spans.name[calls]
        is_copy = np.isin(kind, (Kind.COPY, Kind.SET)) | _so_named(trace, called, _is_copying)
        is_copy &= self.exists & ~_so_named(trace, called, _is_launching)  # a graph may begin with a copy
        with_host = np.zeros(calls.size, dtype=bool)
        copies = np.flatnonzero(is_copy & (kind == Kind.COPY))
        with_host[copies] = _so_named(trace, name[copies], _is_with_host)
        # The host copies from or to a pinned buffer meanwhile. Some traces do not say which memory is pageable.
        staged = with_host & (end > work_start + CLOCK_ERROR_NS)
        staged[staged] = _so_named(trace, name[staged], _is_pageable) | ((end - start)[staged] >= LONG_CALL_NS)
        self.is_blocking_copy = staged | (is_copy & spans_work & (with_host | named_copy | (busy_stream > half)))
        in_full_queue = _queued(start, work_end, self.stream) >= FULL_QUEUE
        after_kernel = ~is_copy & spans_work & (busy_stream > half)
        self.is_blocking_launch = self.exists & (end - start >= USUAL_LAUNCH_NS) & (in_full_queue | after_kernel)
        self.is_blocking_launch &= ~self.is_blocking_copy
        self.behind_other_work = busy_device > half
        self.is_first_launch = np.zeros(calls.size, dtype=bool)
        kernels = np.flatnonzero(kind == Kind.KERNEL)
        in_time = kernels[np.argsort(start[kernels], kind="stable")]
        self.is_first_launch[in_time[np.unique(name[in_time], return_index=True)[1]]] = True


def _by_name(trace: Trace, names: NDArray[np.signedinteger], judge: Callable[[str], int]) -> NDArray[np.int8]:
    """Apply a function to each name, given by its number: once for equal ones."""
    judged = np.zeros(len(trace.names), dtype=np.int8)
    for number in np.flatnonzero(np.bincount(names)).tolist():
        judged[number] = judge(trace.names[number])
    return np.asarray(judged[names])


def _so_named(trace: Trace, names: NDArray[np.signedinteger], judge: Callable[[str], bool]) -> NDArray[np.bool_]:
    return _by_name(trace, names, judge) > 0


def _queued(start: Int64s, work_end: Int64s, stream: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each call, how many earlier ones on its stream have work that has not ended when it starts."""
    queued = np.zeros(start.size, dtype=np.int64)
    with_work = np.flatnonzero(stream >= 0)
    for _, places in by_value(stream[with_work]):
        own = with_work[places]
        launched = np.searchsorted(np.sort(start[own]), start[own])
        queued[own] = launched - np.searchsorted(np.sort(work_end[own]), start[own], side="right")
    return queued


def _busy_ns(
    trace: Trace, device_rows: Rows, start: Int64s, end: Int64s, stream: NDArray[np.int64]
) -> tuple[Int64s, Int64s]:
    """Time of each call in which its stream, and in which any device, runs something."""
    spans = trace.spans
    on_stream = np.zeros(start.size, dtype=np.int64)
    with_work = np.flatnonzero(stream >= 0)
    rows_of = {number: device_rows[places] for number, places in by_value(spans.thread[device_rows])}
    for number, places in by_value(stream[with_work]):
        own = with_work[places]
        on_stream[own] = _covered(trace, rows_of[number], start[own], end[own])
    return on_stream, _covered(trace, device_rows, start, end)


def _covered(trace: Trace, rows: Rows, start: Int64s, end: Int64s) -> Int64s:
    """Time of each interval, in any order, that the union of `rows` covers."""
    spans = trace.spans
    busy_start, busy_end = union(spans.start_ns[rows], spans.start_ns[rows] + spans.dur_ns[rows])
    found = overlaps(start, end, busy_start, busy_end)
    return np.bincount(found.first, weights=found.end_ns - found.start_ns, minlength=start.size).astype(np.int64)


def _streams(
    trace: Trace, calls: Rows, stream: NDArray[np.int64], synchronizes: NDArray[np.bool_]
) -> tuple[list[Streams], NDArray[np.intp]]:
    """The streams that each call waits for: its own one, else those that the trace names for it, else all.

    A stream that waits for an event of another one makes the host wait for both.
    """
    spans = trace.spans
    device = trace.rows(Kind.KERNEL, Kind.COPY, Kind.SET)
    every = frozenset(distinct(spans.thread[device]).tolist())
    by_pid: dict[int | str, list[int]] = {}
    for used in sorted(every):
        by_pid.setdefault(trace.threads[used].pid, []).append(used)
    of_pid = {pid: frozenset(streams) for pid, streams in by_pid.items()}
    number = {(thread.pid, str(thread.tid)): i for i, thread in enumerate(trace.threads)}
    marks = trace.rows(Kind.SYNC)
    named: dict[int, frozenset[int]] = {}
    behind: dict[int, set[int]] = {}
    for row in marks.tolist():
        thread, what = int(spans.thread[row]), trace.names[spans.name[row]].lower()
        pid, other = trace.threads[thread].pid, trace.details[spans.detail[row]].wait_on_stream
        waited = number.get((pid, str(other)))
        if "wait event" in what:
            if waited is not None:
                behind.setdefault(thread, set()).add(waited)
        elif "stream" in what:
            named[int(spans.correlation[row])] = frozenset({thread})
        elif "event" in what:
            if waited is not None:
                named[int(spans.correlation[row])] = frozenset({waited})
        else:
            named[int(spans.correlation[row])] = of_pid.get(pid, frozenset())
    named.pop(0, None)  # events without a correlation
    sets: dict[frozenset[int], int] = {}
    chosen = np.zeros(calls.size, dtype=np.intp)
    for i, (row, own, is_synchronization) in enumerate(
        zip(calls.tolist(), stream.tolist(), synchronizes.tolist(), strict=True)
    ):
        known = frozenset({own}) if own >= 0 else every
        if is_synchronization:
            known = named.get(int(spans.correlation[row]), every)
        chosen[i] = sets.setdefault(known, len(sets))
    reached = reachable(behind)
    return [with_awaited(known, reached) for known in sets], chosen
