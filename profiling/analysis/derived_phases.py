"""Phases that a trace does not mark, derived from what autograd, modules and optimizers record anyway.

- `forward`: from the first to the last operator, or call of a root module, that a backward pass goes back through. An
  operator created the node of autograd's graph that has its sequence number, unless a later operator has the same one.
  Frozen layers before the first such operator belong to it. Without any backward pass, each call of a root module is a
  forward pass; that needs stacks.
- `loss`: the end of `forward`, from the first loss function after the last layer on; without one, `forward` has it all.
- `backward`: the time in which autograd runs backward functions, on any thread of the process.
- `optimizer`: what torch marks itself, `Optimizer.step#` and `Optimizer.zero_grad#`, as one phase if only Python is
  between them. Without such marks, calls into `torch.optim`, else fused and multi-tensor operators, after a backward
  pass.

The intervals are on the main thread, which waits for autograd's other threads. Loading data needs no derivation: torch
marks it. Transfer, preprocessing and metrics cannot be told apart from other operators.

Without stacks, the Python code at both ends of a phase leaves no record: half of the pause between two operators is
taken as part of the phase, but no more than 100 us or an eighth of the phase. Short losses are therefore uncertain.
"""

import re

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from profiling.analysis.nesting import Nest, Positions
from profiling.trace.columns import Kind
from profiling.trace.groups import distinct
from profiling.trace.trace import Int64s, Trace
from profiling.vocabulary import TRACE_PHASES

_DERIVABLE = _FORWARD, _LOSS, _BACKWARD, _OPTIMIZER = tuple(
    TRACE_PHASES.index(name) for name in ("forward", "loss", "backward", "optimizer")
)
_COMPOSITE = [TRACE_PHASES.index(name) for name in ("optimizer", "evaluate", "infer")]
"""Marked phases that may contain forward passes; the step of an optimizer may be given the whole step of training."""
_PAUSE_SHARE, _PAUSE_NS = 8, 100_000
"""A pause adds to a phase at most its length divided by the first, and at most the second."""

_NO_TIMES: Int64s = np.empty(0, dtype=np.int64)

_TORCH = r"(?:^|[/\\])torch[/\\]"
_MODULE = re.compile(r"^nn\.Module: ")
_PARALLEL_MODULE = re.compile(r"^(?:DistributedDataParallel|FullyShardedDataParallel)\.forward$")
_BACKWARD_CALL = re.compile(
    rf"{_TORCH}(?:_?tensor\.py\(\d+\): backward|autograd[/\\]__init__\.py\(\d+\): (?:backward|grad))$"
)
_OPTIMIZER_CALL = re.compile(
    rf"{_TORCH}optim[/\\](?!lr_scheduler|swa_utils)\w+\.py\(\d+\): (?:step|_(?:single|multi)_tensor_\w+|_fused_\w+)$"
)
_OPTIMIZER_OPERATOR = re.compile(r"^aten::_(?:foreach|fused_(?:adam|sgd|adagrad))")
_ENGINE = re.compile(r"^autograd::engine::evaluate_function")
_GRADIENT_OF_LOSS = re.compile(r"^aten::ones_like$")
_LOSS_FUNCTION = re.compile(r"^aten::(?:\w*loss(?:_nd|2d)?|binary_cross_entropy\w*|kl_div)$")
_LOSS_INPUT = re.compile(r"^aten::(?:log_softmax|broadcast_tensors|(?:ones|zeros|full)_like)$")
_LAYER = re.compile(
    r"^aten::(?:linear|addmm|b?mm|matmul|einsum|\w*conv\w*|(?:batch|layer|group|instance|rms)_norm|embedding\w*|lstm|gru|scaled_dot_product_attention)$"
)


class Stretches(Struct, frozen=True, eq=False):
    """Disjoint intervals of one thread, in order of time."""

    start_ns: Int64s
    end_ns: Int64s

    def open_at(self, at_ns: Int64s) -> Positions:
        """Index of the interval that is open at each time, -1 for none."""
        place = np.searchsorted(self.start_ns, at_ns, side="right") - 1
        place[(place >= 0) & (np.append(self.end_ns, 0)[place] <= at_ns)] = -1
        return place


class DerivedPhases(Stretches, frozen=True, eq=False):
    """Stretches of the main thread, disjoint except that an optimizer's step may contain others.

    `phase` is an index into TRACE_PHASES.
    """

    phase: NDArray[np.int8]


class Marks(Struct, frozen=True, eq=False):
    """What the trace marks: phases, each with its index into TRACE_PHASES; and when steps begin and end.

    `by_torch` says which of the phases torch marked itself, not the program.
    """

    phases: Nest
    phase_ids: NDArray[np.int8]
    by_torch: NDArray[np.bool_]
    step_edges_ns: Int64s
    main_thread: int


def derive_phases(trace: Trace, operators: Nest, backward: Positions, marks: Marks) -> DerivedPhases:
    """Derive the phases that the trace marks nowhere.

    Args:
        trace: the trace.
        operators: its operators.
        backward: for each of them, the innermost function of autograd's engine that it is or runs in, -1 for none.
        marks: what the trace marks.
    """
    marked = marks.phase_ids[~(marks.by_torch & (marks.phase_ids == _OPTIMIZER))]
    missing = [phase for phase in _DERIVABLE if not (marked == phase).any()]
    if not trace.threads or not missing:
        return DerivedPhases(_NO_TIMES, _NO_TIMES, np.empty(0, dtype=np.int8))
    work = _MainThread(trace, operators, backward, marks)
    backward_passes = work.backward_passes()
    forward_passes = work.forward_passes(backward_passes)
    if (marks.phase_ids == _OPTIMIZER).any():
        updates = work.joined_updates(backward_passes)
    else:
        updates = work.unmarked_updates(forward_passes, backward_passes)
    found = dict(zip(_DERIVABLE, (*work.split_off_loss(forward_passes), backward_passes, updates), strict=True))
    start = np.concatenate([found[phase].start_ns for phase in missing])
    end = np.concatenate([found[phase].end_ns for phase in missing])
    phase = np.repeat(np.array(missing, dtype=np.int8), [found[phase].start_ns.size for phase in missing])
    order = np.argsort(start, kind="stable")
    start, end, phase = start[order], end[order], phase[order]
    passes = np.flatnonzero(phase != _OPTIMIZER)
    end[passes[:-1]] = np.minimum(end[passes[:-1]], start[passes[1:]])  # of several threads
    return work.with_pauses(DerivedPhases(start, end, phase))


class _MainThread:
    """What the main thread does besides running backward functions, and where its phases can begin and end.

    `tops` are its outermost such operators, disjoint, in order of time. `edges` are the bounds of marked phases and of
    steps, `update_edges` those without the bounds of updates, and `exact` are bounds of derived phases that
    Python functions tell.
    """

    def __init__(self, trace: Trace, operators: Nest, backward: Positions, marks: Marks) -> None:
        self.trace, self.operators, self.marks = trace, operators, marks
        on_main = marks.phases.thread == marks.main_thread
        bounds = marks.phases.start_ns[on_main], marks.phases.end_ns[on_main]
        self.edges = _merged(*bounds, marks.step_edges_ns)
        self.exact: list[Int64s] = []
        other = on_main & (marks.phase_ids != _OPTIMIZER)
        bounds = marks.phases.start_ns[other], marks.phases.end_ns[other]
        self.update_edges = _merged(*bounds, marks.step_edges_ns)
        parent, inside = operators.parent, backward >= 0
        pids = [thread.pid for thread in trace.threads]
        in_process = np.array([pid == pids[marks.main_thread] for pid in pids], dtype=bool)
        outermost = np.flatnonzero(inside & ((parent < 0) | ~inside[parent]) & in_process[operators.thread])
        self.outermost = outermost[np.argsort(operators.start_ns[outermost], kind="stable")]
        contains = np.zeros(parent.size, dtype=bool)  # a whole step may be recorded as an operator
        level = parent[self.outermost]
        while (level := level[(level >= 0) & ~contains[level]]).size:
            contains[level] = True
            level = np.unique(parent[level], return_index=True)[0]  # without an index, it would import numpy.ma
        self.others = np.flatnonzero((operators.thread == marks.main_thread) & ~inside & ~contains)
        above = parent[self.others]
        self.tops = self.others[(above < 0) | contains[above]]
        self.top_start, self.top_end = operators.start_ns[self.tops], operators.end_ns[self.tops]
        self.recorded = self._recorded()

    def _recorded(self) -> NDArray[np.bool_]:
        """Which of `tops` created a node of autograd's graph that a backward pass ran later."""
        operators, sequence = self.operators, self.trace.spans.sequence[self.operators.rows]
        ran, first = np.unique(sequence[self.outermost], return_index=True)
        candidates = self.others[sequence[self.others] >= 0][::-1]
        created, last = np.unique(sequence[candidates], return_index=True)
        recorded = np.zeros(self.tops.size, dtype=bool)
        if ran.size and created.size:
            place = np.minimum(np.searchsorted(ran, created), ran.size - 1)
            creation, run = operators.start_ns[candidates[last]], operators.start_ns[self.outermost[first[place]]]
            recorded[self._top_at(creation[(ran[place] == created) & (creation < run)])] = True
        return recorded

    def backward_passes(self) -> Stretches:
        """Runs of backward functions without another operator of the main thread between them."""
        # Old releases record no engine around a function: additions of gradients are operators of their own.
        by_engine = self._named(self.outermost, _ENGINE).any()
        between = _merged(self.edges, self.top_start if by_engine else self.top_start[self.recorded])
        passes = _joined(self.operators.start_ns[self.outermost], self.operators.end_ns[self.outermost], between)
        # A pass begins with the gradient of the loss, which is 1.
        before = self._top_at(passes.start_ns)
        known = np.flatnonzero(before >= 0)
        known = known[self._named(self.tops[before[known]], _GRADIENT_OF_LOSS)]
        start, gradient = passes.start_ns.copy(), self.top_start[before[known]]
        same = np.searchsorted(self.edges, gradient, "right") == np.searchsorted(self.edges, start[known], "right")
        start[known[same]] = gradient[same]
        return self._widened(Stretches(start, passes.end_ns), self._calls(_BACKWARD_CALL))

    def forward_passes(self, backward: Stretches) -> Stretches:
        """From the first to the last operator that was recorded, and the calls of modules around them."""
        calls, edges = self._module_calls(backward), _merged(self.edges, backward.start_ns)
        recorded = self._with_frozen_layers(edges)
        start, end = self.top_start[recorded], self.top_end[recorded]
        if not self.outermost.size:
            self.exact += [calls.start_ns, calls.end_ns]
            return self._unmarked(calls)
        holds = np.searchsorted(start, calls.start_ns) < np.searchsorted(start, calls.end_ns)
        calls = Stretches(calls.start_ns[holds], calls.end_ns[holds])
        self.exact += [calls.start_ns, calls.end_ns]
        start, end = np.append(start, calls.start_ns), np.append(end, calls.end_ns)
        order = np.argsort(start, kind="stable")
        items = self._unmarked(Stretches(start[order], end[order]))
        return _joined(items.start_ns, items.end_ns, edges)

    def _with_frozen_layers(self, edges: Int64s) -> NDArray[np.bool_]:
        """The recorded of `tops`, and layers before them that were not recorded, as they are not trained."""
        wanted, recorded = self.recorded.copy(), np.flatnonzero(self.recorded)
        layers = np.flatnonzero(self._named(self.tops, _LAYER) & ~self.recorded)
        after = np.searchsorted(recorded, layers)
        layers, after = layers[after < recorded.size], recorded[after[after < recorded.size]]
        number = np.searchsorted(edges, self.top_start, side="right")
        wanted[layers[number[layers] == number[after]]] = True
        return wanted

    def split_off_loss(self, forward: Stretches) -> tuple[Stretches, Stretches]:
        """Divide each pass before the first loss function after its last layer; return the passes and the losses."""
        of_pass = forward.open_at(self.top_start)
        layers = np.flatnonzero(self._named(self.tops, _LAYER) & (of_pass >= 0))
        last_layer = np.full(forward.start_ns.size, -1)
        np.maximum.at(last_layer, of_pass[layers], layers)
        losses = np.flatnonzero(self._named(self.tops, _LOSS_FUNCTION) & (of_pass >= 0))
        losses = losses[losses > last_layer[of_pass[losses]]]
        number, first = np.unique(of_pass[losses], return_index=True)
        top = losses[first]
        inputs = self._named(self.tops, _LOSS_INPUT)
        top = np.where((top > 0) & inputs[top - 1] & (of_pass[top - 1] == number), top - 1, top)
        pause = (top > 0) & (of_pass[top - 1] == number)
        begin = np.where(pause, (self.top_end[top - 1] + self.top_start[top]) // 2, forward.start_ns[number])
        end = forward.end_ns.copy()
        end[number] = begin
        rest = end > forward.start_ns
        return Stretches(forward.start_ns[rest], end[rest]), Stretches(begin, forward.end_ns[number])

    def unmarked_updates(self, forward: Stretches, backward: Stretches) -> Stretches:
        """Calls of optimizers, or updates of many tensors at once, that follow a backward pass."""
        calls = self._calls(_OPTIMIZER_CALL)
        if not calls.start_ns.size:
            updates = self._named(self.tops, _OPTIMIZER_OPERATOR)
            calls = Stretches(self.top_start[updates], self.top_end[updates])
        calls = self._unmarked(calls)
        free = (forward.open_at(calls.start_ns) < 0) & (backward.open_at(calls.start_ns) < 0)
        free &= np.searchsorted(backward.start_ns, calls.start_ns) > 0
        edges = _merged(self.edges, forward.start_ns, backward.start_ns)
        return _joined(calls.start_ns[free], calls.end_ns[free], edges)

    def joined_updates(self, backward: Stretches) -> Stretches:
        """Marked updates of which several follow each other, with only Python and no long pause between them."""
        phases, is_update = self.marks.phases, self.marks.phase_ids == _OPTIMIZER
        own = is_update & (phases.thread == self.marks.main_thread) & ((phases.parent < 0) | ~is_update[phases.parent])
        updates = Stretches(phases.start_ns[own], phases.end_ns[own])
        length, pause = updates.end_ns - updates.start_ns, updates.start_ns[1:] - updates.end_ns[:-1]
        others = _merged(self.update_edges, self.top_start, backward.start_ns)
        edges = _merged(
            others[updates.open_at(others) < 0],
            self.marks.step_edges_ns,
            updates.start_ns[1:][(pause > length[:-1] + length[1:]) | (np.diff(phases.parent[own]) != 0)],
        )
        joined = _joined(updates.start_ns, updates.end_ns, edges)
        number = np.searchsorted(updates.start_ns, joined.end_ns) - np.searchsorted(updates.start_ns, joined.start_ns)
        several = (number > 1) & _among(joined.end_ns, updates.end_ns)
        return Stretches(joined.start_ns[several], joined.end_ns[several])

    def with_pauses(self, phases: DerivedPhases) -> DerivedPhases:
        """Extend the phases into the pauses before and after them, unless a call of Python tells where they end."""
        exact = np.concatenate((_NO_TIMES, *self.exact))
        longest = np.minimum((phases.end_ns - phases.start_ns) // _PAUSE_SHARE, _PAUSE_NS)

        def pause(at: Int64s, away: Int64s) -> Int64s:
            return np.where(_among(at, exact), 0, np.minimum(np.abs(away - at) // 2, longest))

        def nearest(edges: Int64s) -> tuple[Int64s, Int64s]:
            before, after = (edges, phases.end_ns, self.top_end), (edges, phases.start_ns, self.top_start)
            return _last(_merged(*before), phases.start_ns), _next(_merged(*after), phases.end_ns)

        is_update = phases.phase == _OPTIMIZER
        before, after = (
            np.where(is_update, of_update, of_pass)
            for of_update, of_pass in zip(nearest(self.update_edges), nearest(self.edges), strict=True)
        )
        return DerivedPhases(
            phases.start_ns - pause(phases.start_ns, before), phases.end_ns + pause(phases.end_ns, after), phases.phase
        )

    def _widened(self, passes: Stretches, calls: Stretches) -> Stretches:
        """Extend passes to the calls that they are in, but not over other operators or marks."""
        before = _last(_merged(self.edges, self.top_end), passes.start_ns)
        after = _next(_merged(self.edges, self.top_start), passes.end_ns)
        first, last = calls.open_at(passes.start_ns), calls.open_at(passes.end_ns - 1)
        start, end = passes.start_ns.copy(), passes.end_ns.copy()
        start[first >= 0] = np.maximum(calls.start_ns[first[first >= 0]], before[first >= 0])
        end[last >= 0] = np.minimum(calls.end_ns[last[last >= 0]], after[last >= 0])
        self.exact += [start[first >= 0], end[last >= 0]]
        return Stretches(start, end)

    def _module_calls(self, backward: Stretches) -> Stretches:
        """Calls of root modules, without those that contain a backward pass, the end of a step or half of a mark."""
        spans, thread = self.trace.spans, self.marks.main_thread
        rows = np.flatnonzero((spans.kind == Kind.ANNOTATION) & (spans.thread == thread))
        rows = rows[_matches(self.trace, spans.name[rows], _PARALLEL_MODULE)]
        modules = self._calls(_MODULE)
        start = np.append(modules.start_ns, spans.start_ns[rows])
        end = np.append(modules.end_ns, spans.start_ns[rows] + spans.dur_ns[rows])
        cuts = _merged(self.marks.step_edges_ns, backward.start_ns)
        whole = np.searchsorted(cuts, start, side="right") == np.searchsorted(cuts, end)
        phases = self.marks.phases
        on_main = phases.thread == thread
        begun = np.sort(phases.start_ns[on_main])
        ended = np.sort(phases.end_ns[on_main])
        whole &= np.searchsorted(begun, end) - np.searchsorted(begun, start) == (
            np.searchsorted(ended, end, side="right") - np.searchsorted(ended, start, side="right")
        )
        return _outermost(start[whole], end[whole])

    def _calls(self, pattern: re.Pattern[str]) -> Stretches:
        """Outermost calls of Python functions on the main thread."""
        frames = self.trace.frames
        rows = np.flatnonzero(frames.thread == self.marks.main_thread)
        rows = rows[_matches(self.trace, frames.name[rows], pattern)]
        return _outermost(frames.start_ns[rows], frames.start_ns[rows] + frames.dur_ns[rows])

    def _named(self, positions: Positions, pattern: re.Pattern[str]) -> NDArray[np.bool_]:
        """Which of these operators have such a name."""
        return _matches(self.trace, self.trace.spans.name[self.operators.rows[positions]], pattern)

    def _top_at(self, at_ns: Int64s) -> Positions:
        """Index of the last of `tops` that starts by each time, -1 for none."""
        return np.searchsorted(self.top_start, at_ns, side="right") - 1

    def _unmarked(self, items: Stretches) -> Stretches:
        """Leave out what starts inside a marked phase that has no phases in it."""
        phases = self.marks.phases
        position = phases.locate(np.full(items.start_ns.size, self.marks.main_thread, dtype=np.int32), items.start_ns)
        free = position < 0
        free[~free] = np.isin(self.marks.phase_ids[position[~free]], _COMPOSITE)
        return Stretches(items.start_ns[free], items.end_ns[free])


def _matches(trace: Trace, name: NDArray[np.int32], pattern: re.Pattern[str]) -> NDArray[np.bool_]:
    """Which of these names, given as indices into `Trace.names`, the pattern is found in."""
    found = np.zeros(len(trace.names), dtype=bool)
    numbers = distinct(name)
    found[numbers] = [bool(pattern.search(trace.names[number])) for number in numbers]
    return found[name]


def _merged(*times_ns: Int64s) -> Int64s:
    """All of these times, sorted."""
    return np.sort(np.concatenate(times_ns), kind="stable")


def _among(times_ns: Int64s, others_ns: Int64s) -> NDArray[np.bool_]:
    """Whether each time is one of the others, as numpy.isin, which may import numpy.ma."""
    ordered = np.append(np.sort(others_ns), np.iinfo(np.int64).max)
    return np.asarray(ordered[np.searchsorted(ordered[:-1], times_ns)] == times_ns)


def _joined(start_ns: Int64s, end_ns: Int64s, edges_ns: Int64s) -> Stretches:
    """Join intervals, in order of time, that have no edge between them; they end at the next edge at the latest."""
    number = np.searchsorted(edges_ns, start_ns, side="right")
    first = np.flatnonzero(np.diff(number, prepend=-1))
    if not first.size:
        return Stretches(start_ns, end_ns)
    next_edge = np.append(edges_ns, np.iinfo(np.int64).max)[number[first]]
    return Stretches(start_ns[first], np.minimum(np.maximum.reduceat(end_ns, first), next_edge))


def _outermost(start_ns: Int64s, end_ns: Int64s) -> Stretches:
    """The intervals that begin in no other one, in order of time."""
    order = np.lexsort((-end_ns, start_ns))
    start, end = start_ns[order], end_ns[order]
    kept = start >= np.concatenate(([start[0]], np.maximum.accumulate(end)[:-1])) if start.size else np.empty(0, bool)
    return Stretches(start[kept], end[kept])


def _last(times_ns: Int64s, at_ns: Int64s) -> Int64s:
    """The last of the sorted times that is not after each of `at_ns`; `at_ns` itself if there is none."""
    place = np.searchsorted(times_ns, at_ns, side="right") - 1
    return np.where(place >= 0, np.append(times_ns, 0)[place], at_ns)


def _next(times_ns: Int64s, at_ns: Int64s) -> Int64s:
    """The first of the sorted times that is not before each of `at_ns`; `at_ns` itself if there is none."""
    place = np.searchsorted(times_ns, at_ns)
    return np.where(place < times_ns.size, np.append(times_ns, 0)[place], at_ns)
