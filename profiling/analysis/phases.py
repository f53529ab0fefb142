"""Steps and phases: how the time of a step divides into operators, Python and waiting."""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from profiling.analysis.index import Index
from profiling.analysis.nesting import Nest, union_ns
from profiling.trace.trace import Int64s
from profiling.vocabulary import PHASE_LABELS, TRACE_PHASES


class Phase(Struct, frozen=True):
    """One phase over the whole trace.

    `total_us` is the time between its starts and ends, `self_us` the part of it outside the phases inside. Self time is
    the sum of `operator_us` (in operators, on the phase's thread or autograd's, without waiting), `wait_us` (in calls
    that wait for the device) and `python_us` (the rest: Python, dispatch, data loading, waiting for other threads).
    Device time and allocations are those of the operators inside, on any thread. The last row, `other`, is the time
    outside all phases; its `total_us` is the time of all steps. `derived` phases are not marked in the trace, see
    `profiling.analysis.derived_phases`.
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

    `window` numbers the traces that are summarized together.
    """

    window: int
    number: int
    start_us: float
    total_us: float
    load_us: float
    device_wait_us: float
    operator_us: float
    python_us: float


class StepTime(Struct, frozen=True):
    """All steps; `marked` is False if the trace marks none and its whole extent counts as one step.

    `waits_for` is the largest part of the steps outside operators: `data`, `device` or `python`; `nothing` if each is
    at most a tenth of the time.
    """

    marked: bool
    median_us: float
    waits_for: str


def phases(index: Index) -> list[Phase]:
    """The phases that occur, in the order of TRACE_PHASES, then `other`."""
    nested, operators, spans = index.phases, index.operators, index.trace.spans
    ids, none = index.phase_ids, len(TRACE_PHASES)
    total_ns = np.zeros(none + 1, dtype=np.int64)
    self_ns = np.zeros(none + 1, dtype=np.int64)
    np.add.at(total_ns, ids, nested.end_ns - nested.start_ns)
    np.add.at(self_ns, ids, nested.self_ns())

    roots = np.flatnonzero((operators.parent < 0) & on_step_thread(index, operators.thread))
    operator_ns = np.array([_covered(operators, roots[index.operator_phase[roots] == i]) for i in range(none + 1)])
    waits = index.wait_rows
    wait_phase = index.phase_at(spans.thread[waits], spans.start_ns[waits])
    wait_ns = _by_phase(wait_phase, spans.dur_ns[waits])
    inside = operators.locate(spans.thread[waits], spans.start_ns[waits]) >= 0
    operator_ns -= _by_phase(wait_phase[inside], spans.dur_ns[waits][inside])

    steps = index.steps
    total_ns[none] = (steps.end_ns - steps.start_ns).sum()
    outermost = (nested.parent < 0) & (nested.thread == index.main_thread)
    covered = _within(nested.start_ns[outermost], nested.end_ns[outermost], steps.start_ns, steps.end_ns).sum()
    calls = np.bincount(ids, minlength=none + 1)
    calls[none] = len(steps.numbers)
    backward = TRACE_PHASES.index("backward")
    if not calls[backward]:  # not marked: autograd's operators stand for the phase
        total_ns[backward] = self_ns[backward] = operator_ns[backward]
        covered += operator_ns[backward]
    self_ns[none] = max(int(total_ns[none] - covered), 0)
    device_ns = _by_phase(index.operator_phase, index.operator_device_ns)
    allocated = _by_phase(index.operator_phase, index.operator_allocated)
    return [
        Phase(
            name=PHASE_LABELS[i],
            calls=int(calls[i]),
            total_us=int(total_ns[i]) / 1e3,
            self_us=int(self_ns[i]) / 1e3,
            operator_us=int(operator_ns[i]) / 1e3,
            python_us=max(int(self_ns[i] - operator_ns[i] - wait_ns[i]), 0) / 1e3,
            wait_us=int(wait_ns[i]) / 1e3,
            device_us=int(device_ns[i]) / 1e3,
            allocated_bytes=int(allocated[i]),
            derived=i in index.derived_phases,
        )
        for i in range(none + 1)
        if calls[i] or operator_ns[i]
    ]


def steps(index: Index, window: int = 0) -> list[Step]:
    """The steps in order of time; one that covers the whole extent if the trace marks none."""
    marks, nested, operators, spans = index.steps, index.phases, index.operators, index.trace.spans
    bounds = marks.start_ns, marks.end_ns
    thread, loads = index.main_thread, TRACE_PHASES.index("load")
    loading = (nested.thread == thread) & (index.phase_ids == loads)
    load = _within(nested.start_ns[loading], nested.end_ns[loading], *bounds)
    waits = index.wait_rows
    waits = waits[spans.thread[waits] == thread]
    wait = _within(spans.start_ns[waits], spans.start_ns[waits] + spans.dur_ns[waits], *bounds)
    running = (operators.parent < 0) & on_step_thread(index, operators.thread) & (index.operator_phase != loads)
    running_ns = _within(*union_ns(operators.start_ns[running], operators.end_ns[running]), *bounds)
    waits = waits[operators.locate(spans.thread[waits], spans.start_ns[waits]) >= 0]
    running_ns -= _within(spans.start_ns[waits], spans.start_ns[waits] + spans.dur_ns[waits], *bounds)
    total = marks.end_ns - marks.start_ns
    python = np.maximum(total - load - wait - running_ns, 0)
    return [
        Step(window, number, *(int(value) / 1e3 for value in values))
        for number, *values in zip(marks.numbers, marks.start_ns, total, load, wait, running_ns, python, strict=True)
    ]


def step_time(rows: list[Step], *, marked: bool) -> StepTime:
    """Median time of the steps of one or several windows, and what they wait for."""
    shares = {
        "data": sum(step.load_us for step in rows),
        "device": sum(step.device_wait_us for step in rows),
        "python": sum(step.python_us for step in rows),
    }
    most = max(shares, key=lambda name: shares[name])
    enough = shares[most] * 10 > sum(step.total_us for step in rows)
    times = sorted(step.total_us for step in rows)
    median = (times[len(times) // 2] + times[(len(times) - 1) // 2]) / 2
    return StepTime(marked, median, most if enough else "nothing")


def _by_phase(phase: NDArray[np.intp], values: Int64s) -> Int64s:
    return np.bincount(phase, weights=values, minlength=len(PHASE_LABELS)).astype(np.int64)


def _within(start: Int64s, end: Int64s, low: Int64s, high: Int64s) -> Int64s:
    """Total time of disjoint intervals, in any order, inside each of the windows [low, high)."""
    order = np.argsort(start, kind="stable")
    start, end = start[order], end[order]
    before = np.concatenate(([0], np.cumsum(end - start)))

    def until(at: Int64s) -> Int64s:
        """Total time of the intervals before each time in `at`."""
        count = np.searchsorted(start, at)
        last = np.maximum(count - 1, 0)
        over = np.maximum(end[last] - at, 0) if end.size else 0
        return before[count] - np.where(count > 0, over, 0)

    return until(high) - until(low)


def on_step_thread(index: Index, thread: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which threads are on the path of a step: the main thread, and autograd's, for which it waits."""
    return np.asarray((thread == index.main_thread) | index.autograd_threads[thread])


def _covered(nested: Nest, positions: NDArray[np.intp]) -> int:
    """Time in which at least one of these intervals is open."""
    start, end = union_ns(nested.start_ns[positions], nested.end_ns[positions])
    return int((end - start).sum())
