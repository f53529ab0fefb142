"""Steps and phases: how their time divides into operators, Python, loading data and waiting."""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from profiling.analysis.account import TimeAccount
from profiling.analysis.index import PhaseNumbers
from profiling.analysis.intervals import union, within
from profiling.analysis.waits import WorkKind, work_kinds
from profiling.trace.trace import Int64s
from profiling.vocabulary import PHASE_LABELS, TRACE_PHASES


class Phase(Struct, frozen=True):
    """One phase over the whole trace.

    `total_us` is the time between its starts and ends, on any thread. `self_us` is the time of the steps' threads in
    this phase and in no phase inside it: the sum of `operator_us` (in operators, without waiting), `wait_us` (blocked
    by a call, see `profiling.analysis.blocking_calls`) and `python_us` (the rest: Python, dispatch, loading data,
    waiting for other threads). Device time and allocations are those that were launched inside, on any thread. The last
    row, `other`, is the time of the steps outside all phases; its `total_us` is the time of all steps. `derived`
    phases are not marked in the trace, see `profiling.analysis.derived_phases`.
    """

    name: str
    calls: int
    total_us: float
    self_us: float
    operator_us: float
    python_us: float
    wait_us: float
    device_us: float
    allocated_bytes: int
    derived: bool


class Step(Struct, frozen=True):
    """One step: its time, and the parts of it for loading data, waiting for the device, operators and the rest.

    The four parts add up to `total_us`; of two at once, waiting counts before loading, and loading before operators.
    `waiting_us` divides the waiting by what it was for, see `WorkKind`. `bound` is `device` if the device idles less
    than the host waits for its work, or less than a twentieth of the step; else `host`. `window` numbers the traces
    that are summarized together.
    """

    window: int
    number: int
    start_us: float
    total_us: float
    load_us: float
    device_wait_us: float
    operator_us: float
    python_us: float
    waiting_us: dict[WorkKind, float]
    bound: str


class StepTime(Struct, frozen=True):
    """All steps; `marked` is False if the trace marks none and its whole extent counts as one step.

    `waits_for` is the largest part of the steps outside operators: `data`, `device`, `driver` (calls that block while
    the device has nothing to do: allocating memory, loading code, starting up) or `python`; `nothing` if each is at
    most a tenth of the time. `mostly` is the largest part of all, also `operators`, and `mostly_share` its share.
    """

    marked: bool
    median_us: float
    waits_for: str
    mostly: str = ""
    mostly_share: float = 0.0

    @property
    def words(self) -> str:
        """What the steps consist of, the most first: `mostly operators (85 %); waits most for python`."""
        most = f"mostly {self.mostly} ({100 * self.mostly_share:.0f} %)" if self.mostly else ""
        waits = "" if self.waits_for in (self.mostly, "nothing") else f"waits most for {self.waits_for}"
        return "; ".join(filter(None, (most, waits)))


def phases(account: TimeAccount) -> list[Phase]:
    """The phases that occur, in the order of TRACE_PHASES, then `other`."""
    index, segments, waits = account.index, account.segments, account.waits
    nested, ids, none = index.phases, index.phase_ids, len(TRACE_PHASES)
    blocked_ns = _by_phase(segments.phase[waits.segment], waits.end_ns - waits.start_ns)
    occupied = _merged(account.running, (waits.start_ns, waits.end_ns))
    occupied_ns = _by_phase(segments.phase, within(*occupied, segments.start_ns, segments.end_ns))
    self_ns = _by_phase(segments.phase, segments.end_ns - segments.start_ns)
    total_ns = _by_phase(ids, nested.end_ns - nested.start_ns)
    total_ns[none] = (index.steps.end_ns - index.steps.start_ns).sum()
    calls = np.bincount(ids, minlength=none + 1)
    calls[none] = len(index.steps.numbers)
    spans = index.trace.spans
    device_ns = _by_phase(index.device_phase, np.where(index.launched_outside, 0, spans.dur_ns[index.device_rows]))
    allocated = _by_phase(index.operator_phase, index.operator_allocated)
    return [
        Phase(
            name=PHASE_LABELS[i],
            calls=int(calls[i]),
            total_us=int(total_ns[i]) / 1e3,
            self_us=int(self_ns[i]) / 1e3,
            operator_us=int(occupied_ns[i] - blocked_ns[i]) / 1e3,
            python_us=int(self_ns[i] - occupied_ns[i]) / 1e3,
            wait_us=int(blocked_ns[i]) / 1e3,
            device_us=int(device_ns[i]) / 1e3,
            allocated_bytes=int(allocated[i]),
            derived=i in index.derived_phases,
        )
        for i in range(none + 1)
        if calls[i] or self_ns[i]
    ]


def steps(account: TimeAccount, window: int = 0) -> list[Step]:
    """The steps in order of time; one that covers the whole extent if the trace marks none."""
    index, waits = account.index, account.waits
    marks, nested, spans = index.steps, index.phases, index.trace.spans
    bounds = marks.start_ns, marks.end_ns
    loads = index.step_threads[nested.thread] & (index.phase_ids == TRACE_PHASES.index("load"))
    blocked = _merged((waits.start_ns, waits.end_ns))
    loading = _merged(blocked, (nested.start_ns[loads], nested.end_ns[loads]))
    occupied = _merged(loading, account.running)
    until = [within(*intervals, *bounds) for intervals in (blocked, loading, occupied)]
    total = marks.end_ns - marks.start_ns
    device_start = spans.start_ns[index.device_rows]
    busy = within(*union(device_start, device_start + spans.dur_ns[index.device_rows]), *bounds)
    waiting = _waiting(account)
    return [
        Step(
            window=window,
            number=number,
            start_us=int(marks.start_ns[i]) / 1e3,
            total_us=int(total[i]) / 1e3,
            load_us=int(until[1][i] - until[0][i]) / 1e3,
            device_wait_us=int(until[0][i]) / 1e3,
            operator_us=int(until[2][i] - until[1][i]) / 1e3,
            python_us=int(total[i] - until[2][i]) / 1e3,
            waiting_us={kind: int(ns) / 1e3 for kind, ns in zip(WorkKind, waiting[i], strict=True) if ns},
            bound=_bound(int(total[i]), int(busy[i]), int(waiting[i][_IS_WORK].sum())),
        )
        for i, number in enumerate(marks.numbers)
    ]


_IS_WORK = [kind.is_work for kind in WorkKind]
_IN_DRIVER = (WorkKind.memory, WorkKind.pinned, WorkKind.module, WorkKind.driver)


def _bound(total_ns: int, busy_ns: int, waited_for_work_ns: int) -> str:
    idle_ns = total_ns - busy_ns
    return "device" if busy_ns and (idle_ns < waited_for_work_ns or idle_ns * 20 < total_ns) else "host"


def _waiting(account: TimeAccount) -> Int64s:
    """Waiting time by step and kind of work: [steps, kinds], in nanoseconds."""
    parts = account.wait_parts
    step = account.segments.step[account.waits.segment[parts.wait]]
    table = np.zeros((len(account.index.steps.numbers), len(WorkKind)), dtype=np.int64)
    inside = step >= 0
    np.add.at(table, (step[inside], work_kinds(account)[inside]), parts.length_ns[inside])
    return table


def step_time(rows: list[Step], *, marked: bool) -> StepTime:
    """Median time of the steps of one or several windows, and what they wait for."""
    in_driver = sum(time for step in rows for kind, time in step.waiting_us.items() if kind in _IN_DRIVER)
    shares = {
        "data": sum(step.load_us for step in rows),
        "device": sum(step.device_wait_us for step in rows) - in_driver,
        "driver": in_driver,
        "python": sum(step.python_us for step in rows),
    }
    most = max(shares, key=lambda name: shares[name])
    enough = shares[most] * 10 > sum(step.total_us for step in rows)
    times = sorted(step.total_us for step in rows)
    median = (times[len(times) // 2] + times[(len(times) - 1) // 2]) / 2
    parts = {**shares, "operators": sum(step.operator_us for step in rows)}
    mostly = max(parts, key=lambda name: parts[name])
    total_us = sum(step.total_us for step in rows)
    share = parts[mostly] / total_us if total_us else 0.0
    return StepTime(marked, median, most if enough else "nothing", mostly if share else "", share)


def _by_phase(phase: PhaseNumbers | NDArray[np.int8], values: Int64s) -> Int64s:
    return np.bincount(phase, weights=values, minlength=len(PHASE_LABELS)).astype(np.int64)


def _merged(*intervals: tuple[Int64s, Int64s]) -> tuple[Int64s, Int64s]:
    starts, ends = zip(*intervals, strict=True)
    return union(np.concatenate(starts), np.concatenate(ends))
