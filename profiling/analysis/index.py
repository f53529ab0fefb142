"""Results that several analyses share: nested operators, phases, steps, and which operator launched what."""

import re
from functools import cached_property

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from profiling.analysis.derived_phases import DerivedPhases, Marks, derive_phases
from profiling.analysis.nesting import TOLERANCE_NS, Nest, Positions, Rows, nest
from profiling.analysis.stacks import Stacks, stacks
from profiling.trace.columns import Kind
from profiling.trace.groups import distinct
from profiling.trace.trace import Int64s, Intervals, Trace
from profiling.vocabulary import TRACE_PHASES

_PHASE_OF_PREFIX = {
    "enumerate(DataLoader)": "load",
    "Optimizer.step#": "optimizer",
    "Optimizer.zero_grad#": "optimizer",
}
_LIGHTNING = re.compile(r"\[pl\]\[profile\](?:.*[.\]])?(\w+?)(?:_with_closure_\d+)?").fullmatch
_PHASE_OF_LIGHTNING = {
    "train_dataloader_next": "load",
    "val_next": "load",
    "get_train_batch": "load",
    "batch_to_device": "transfer",
    "training_step": "forward",
    "model_forward": "forward",
    "backward": "backward",
    "optimizer_step": "optimizer",
    "optimizer_zero_grad": "optimizer",
    "validation_step": "evaluate",
    "test_step": "evaluate",
    "predict_step": "infer",
}
_MARKED_BY_TORCH = tuple(_PHASE_OF_PREFIX)
_STEP = "ProfilerStep#"
_IS_STEP = re.compile(rf"{_STEP}[0-9]{{1,18}}").fullmatch
_BACKWARD = re.compile(r"^autograd::engine::evaluate_function|\wBackward\d*$|^(?:struct )?torch::autograd::")
"""Operators of autograd's engine; in old releases its functions, whose names may end without a number."""


def phase_of(annotation: str) -> str | None:
    """Phase of a `record_function` name: ours, also as `## forward ##`, or one of torch's or Lightning's; else None."""
    plain = annotation.strip("# ").lower()
    if plain in TRACE_PHASES:
        return plain
    if lightning := _LIGHTNING(annotation):
        return _PHASE_OF_LIGHTNING.get(lightning[1])
    return next((phase for prefix, phase in _PHASE_OF_PREFIX.items() if annotation.startswith(prefix)), None)


def is_step(annotation: str) -> bool:
    """Whether an annotation marks a step of the profiler."""
    return annotation.startswith(_STEP)


class Steps(Struct, frozen=True, eq=False):
    """Steps in order of time, disjoint, and their thread; if none is marked (`marked` False), one covers the trace.

    `overlapping`: number of marks that overlapped an earlier one by more than the rounding of times.
    """

    numbers: list[int]
    start_ns: Int64s
    end_ns: Int64s
    thread: int | None
    marked: bool
    overlapping: int = 0


PhaseNumbers = NDArray[np.intp]
"""Indices into PHASE_LABELS; the last one stands for no phase."""

NO_OPERATOR = "(no operator)"
"""Stands for the operator of kernels and allocations that were issued outside all operators."""

LAUNCHED_OUTSIDE = "(launched outside the window)"
"""Stands for the operator of device work whose launch is not in the file, usually because it was before the window."""


class Index:
    """Results about one trace, each computed at its first use.

    A row is an index into a table of the trace; a position is an index into a `Nest`, whose intervals are sorted.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    @cached_property
    def operators(self) -> Nest:
        """The operators, nested; annotations and Python functions between them are no levels."""
        return nest(self.trace.spans, self.trace.rows(Kind.OPERATOR))

    @cached_property
    def operator_names(self) -> NDArray[np.int32]:
        """Name of each operator, as an index into `Trace.names`, by position."""
        return self.trace.spans.name[self.operators.rows]

    @cached_property
    def repeats(self) -> NDArray[np.bool_]:
        """Which operators only repeat their caller: the only child of an operator of the same name, by position.

        Example: `aten::mul` with a number converts the number to a tensor and calls itself. `key_averages` counts both
        as one call. Source: torch.autograd.profiler_util.EventList._remove_dup_nodes.
        """
        parent, names = self.operators.parent, self.operator_names
        children = np.bincount(parent[parent >= 0], minlength=parent.size)
        repeats: NDArray[np.bool_] = (parent >= 0) & (names[parent] == names) & (children[parent] == 1)
        return repeats

    @cached_property
    def marked_phases(self) -> Nest:
        """The annotations of phases, nested."""
        return nest(self.trace.spans, np.flatnonzero((self.trace.spans.kind == Kind.ANNOTATION) & self._is_phase))

    @cached_property
    def _derived(self) -> DerivedPhases:
        marked, steps = self.marked_phases, self.steps
        names = self.trace.spans.name[marked.rows]
        by_torch = np.array([self.trace.names[name].startswith(_MARKED_BY_TORCH) for name in names], dtype=bool)
        edges = np.concatenate((steps.start_ns, steps.end_ns)) if steps.marked else np.empty(0, dtype=np.int64)
        marks = Marks(marked, self._phase_ids[names], by_torch, edges, self.main_thread)
        return derive_phases(self.trace, self.operators, self._backward_functions, marks)

    @cached_property
    def derived_phases(self) -> frozenset[int]:
        """The phases that the trace does not mark, but that were derived: indices into TRACE_PHASES."""
        return frozenset(self._derived.phase.tolist())

    @cached_property
    def _phase_table(self) -> tuple[Intervals, NDArray[np.int8]]:
        """The marked phases, then the derived ones, and the phase of each."""
        spans, rows, derived = self.trace.spans, self.marked_phases.rows, self._derived
        main = np.full(derived.phase.size, self.main_thread, dtype=np.int32)
        table = Intervals(
            start_ns=np.append(spans.start_ns[rows], derived.start_ns),
            dur_ns=np.append(spans.dur_ns[rows], derived.end_ns - derived.start_ns),
            name=np.append(spans.name[rows], np.full(derived.phase.size, -1, dtype=np.int32)),
            thread=np.append(spans.thread[rows], main),
            resolution_ns=spans.resolution_ns,
        )
        return table, np.append(self._phase_ids[spans.name[rows]], derived.phase)

    @cached_property
    def stacks(self) -> Stacks:
        """The Python frames and their callers."""
        return stacks(self.trace)

    @cached_property
    def phases(self) -> Nest:
        """The marked and the derived phases, nested; one inside another of the same phase is left out."""
        table, ids = self._phase_table
        nested = nest(table, np.arange(ids.size))
        ids = ids[nested.rows]
        inner = (nested.parent >= 0) & (ids[nested.parent] == ids)
        return nest(table, nested.rows[~inner]) if inner.any() else nested

    @cached_property
    def phase_ids(self) -> NDArray[np.int8]:
        """Phase of each position in `phases`, as an index into TRACE_PHASES."""
        return self._phase_table[1][self.phases.rows]

    @cached_property
    def _phase_ids(self) -> NDArray[np.int8]:
        """Phase of each name; -1 for none."""
        annotations = distinct(self.trace.spans.name[self.trace.rows(Kind.ANNOTATION)])
        ids = np.full(len(self.trace.names), -1, dtype=np.int8)
        for name in annotations:
            if phase := phase_of(self.trace.names[name]):
                ids[name] = TRACE_PHASES.index(phase)
        return ids

    @property
    def _is_phase(self) -> NDArray[np.bool_]:
        return np.greater_equal(self._phase_ids[self.trace.spans.name], 0)

    @cached_property
    def main_thread(self) -> int:
        """The thread of the steps, else of most marked phases, else of most operators that autograd does not run.

        A trace of the device alone has neither: then the thread that launches most of its work.
        """
        if self.steps.thread is not None:
            return self.steps.thread
        threads = self.marked_phases.thread
        if not threads.size:
            others = ~self._run_by_autograd
            threads = self.operators.thread[others] if others.any() else self.operators.thread
        if not threads.size:
            threads = self.trace.spans.thread[self.launching_rows[self.launching_rows >= 0]]
        return int(np.bincount(threads).argmax()) if threads.size else 0

    @cached_property
    def autograd_threads(self) -> NDArray[np.bool_]:
        """Which threads run autograd's backward operators; no phase is marked on them."""
        runs = np.zeros(len(self.trace.threads), dtype=bool)
        runs[self.operators.thread[self._run_by_autograd]] = True
        return runs

    @cached_property
    def step_threads(self) -> NDArray[np.bool_]:
        """Which threads are on the path of a step: the main thread, and autograd's, for which it waits."""
        on_path = self.autograd_threads.copy()
        on_path[self.main_thread : self.main_thread + 1] = True  # a trace may have no thread at all
        return on_path

    @cached_property
    def _backward_functions(self) -> Positions:
        """For each operator, the innermost function of autograd's engine that it is or runs in, -1 for none."""
        backward = np.array([bool(_BACKWARD.search(name)) for name in self.trace.names], dtype=bool)
        return self.operators.nearest(backward[self.operator_names])

    @property
    def _run_by_autograd(self) -> NDArray[np.bool_]:
        return np.greater_equal(self._backward_functions, 0)

    def locate_phase(self, thread: NDArray[np.int32], at_ns: Int64s) -> Positions:
        """Position in `phases` of the innermost phase open on a thread at a time, -1 for none.

        On autograd's threads it is the phase of the main thread, which waits for them.
        """
        position = self.phases.locate(thread, at_ns)
        elsewhere = np.flatnonzero((position < 0) & self.autograd_threads[thread])
        main = np.full(elsewhere.size, self.main_thread, dtype=np.int32)
        position[elsewhere] = self.phases.locate(main, at_ns[elsewhere])
        return position

    def phase_at(self, thread: NDArray[np.int32], at_ns: Int64s) -> PhaseNumbers:
        """Number of the phase that is open on a thread at a time."""
        position = self.locate_phase(thread, at_ns)
        if not self.phase_ids.size:
            return np.full(position.size, len(TRACE_PHASES), dtype=np.intp)
        return np.where(position >= 0, self.phase_ids[position], len(TRACE_PHASES))

    @cached_property
    def operator_phase(self) -> PhaseNumbers:
        """Number of the phase of each operator, by position."""
        return self.phase_at(self.operators.thread, self.operators.start_ns)

    @cached_property
    def steps(self) -> Steps:
        """The `ProfilerStep#N` annotations of the thread that has most of them.

        One inside an earlier one is left out, and one that reaches into the next ends where that begins.
        """
        trace, spans = self.trace, self.trace.spans
        numbers = {number: int(name[len(_STEP) :]) for number, name in enumerate(trace.names) if _IS_STEP(name)}
        rows = np.flatnonzero((spans.kind == Kind.ANNOTATION) & np.isin(spans.name, list(numbers)))
        if not rows.size:
            start, end = trace.extent_ns
            return Steps([0], np.array([start]), np.array([end]), None, marked=False)
        thread = int(np.bincount(spans.thread[rows]).argmax())
        rows = rows[spans.thread[rows] == thread]
        rows = rows[np.lexsort((-spans.dur_ns[rows], spans.start_ns[rows]))]
        start, end = spans.start_ns[rows], spans.start_ns[rows] + spans.dur_ns[rows]
        earlier = np.maximum.accumulate(end)[:-1]
        overlapping = int(np.count_nonzero(np.minimum(end[1:], earlier) - start[1:] > TOLERANCE_NS))
        kept = np.concatenate(([True], (end[1:] > earlier) | (start[1:] >= earlier)))
        rows, start, end = rows[kept], start[kept], end[kept]
        end[:-1] = np.minimum(end[:-1], start[1:])
        return Steps([numbers[n] for n in spans.name[rows]], start, end, thread, marked=True, overlapping=overlapping)

    @cached_property
    def device_rows(self) -> Rows:
        """Rows of kernels, copies and fills."""
        return self.trace.rows(Kind.KERNEL, Kind.COPY, Kind.SET)

    @cached_property
    def launching_rows(self) -> Rows:
        """For each of `device_rows`, the row of the call that launched it, -1 where that was not recorded."""
        launches = self.trace.rows(Kind.LAUNCH)
        return _match(self.trace.spans.correlation, self.device_rows, launches)

    @cached_property
    def launching_operators(self) -> Positions:
        """For each of `device_rows`, the position of the operator that launched it, -1 for none.

        That is the innermost operator around the launching call. If this call was not recorded, `External id` is the id
        of the operator, except in old traces, where it equals the correlation.
        """
        spans, launch = self.trace.spans, self.launching_rows
        launcher = np.full(launch.size, -1, dtype=np.intp)
        known = np.flatnonzero(launch >= 0)
        launcher[known] = self.operators.locate(spans.thread[launch[known]], spans.start_ns[launch[known]])
        named = np.flatnonzero((launch < 0) & (spans.external[self.device_rows] != spans.correlation[self.device_rows]))
        if named.size:
            matched = _match(spans.external, self.device_rows[named], self.operators.rows)
            position = np.full(spans.name.size + 1, -1, dtype=np.intp)
            position[self.operators.rows] = np.arange(self.operators.rows.size)
            launcher[named] = position[matched]
        return launcher

    @cached_property
    def operator_device_ns(self) -> Int64s:
        """Time of the device work that each operator launched directly, by position."""
        owned = self.launching_operators >= 0
        total = np.zeros(self.operators.rows.size, dtype=np.int64)
        np.add.at(total, self.launching_operators[owned], self.trace.spans.dur_ns[self.device_rows[owned]])
        return total

    @cached_property
    def device_phase(self) -> PhaseNumbers:
        """Number of the phase that launched each of `device_rows`; no phase where the launch was not recorded."""
        phase = np.full(self.device_rows.size, len(TRACE_PHASES), dtype=np.intp)
        launched = np.flatnonzero(self.launching_rows >= 0)
        launch = self.launching_rows[launched]
        phase[launched] = self.phase_at(self.trace.spans.thread[launch], self.trace.spans.start_ns[launch])
        known = self.launching_operators >= 0
        phase[known] = self.operator_phase[self.launching_operators[known]]
        return phase

    @cached_property
    def launched_outside(self) -> NDArray[np.bool_]:
        """Which of `device_rows` have a correlation with a launch that is not in the file.

        All False for a file without any launch, which says nothing about launches.
        """
        correlated = self.trace.spans.correlation[self.device_rows] != 0
        unlinked = (self.launching_rows < 0) & (self.launching_operators < 0)
        return np.asarray(correlated & unlinked & bool(self.trace.rows(Kind.LAUNCH).size))

    @cached_property
    def allocating_operators(self) -> Positions:
        """Position of the operator that made each allocation, -1 for none."""
        memory = self.trace.allocations
        return self.operators.locate(memory.thread, memory.start_ns)

    @cached_property
    def operator_allocated(self) -> Int64s:
        """Bytes that each operator directly allocated, by position; freed bytes are not subtracted."""
        moved = self.trace.allocations.moved
        owned = (self.allocating_operators >= 0) & (moved > 0)
        total = np.zeros(self.operators.rows.size, dtype=np.int64)
        np.add.at(total, self.allocating_operators[owned], moved[owned])
        return total


def _match(key: Int64s, rows: Rows, among: Rows) -> Rows:
    """For each of `rows`, the first of `among` with the same nonzero key, -1 for none."""
    among = among[key[among] != 0]
    if not among.size:
        return np.full(rows.size, -1, dtype=np.intp)
    among = among[np.argsort(key[among], kind="stable")]
    place = np.minimum(np.searchsorted(key[among], key[rows]), among.size - 1)
    return np.where(key[among[place]] == key[rows], among[place], -1)
