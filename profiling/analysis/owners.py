"""Who launched the device work: an operator, a compiled region, a graph launch, or nobody that the trace names."""

import re

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from profiling.analysis.index import LAUNCHED_OUTSIDE, NO_OPERATOR, Index, is_step, phase_of
from profiling.analysis.nesting import Positions, Rows, nest
from profiling.trace.columns import Kind
from profiling.trace.groups import distinct

GRAPH_LAUNCH = "graph launch"
_IS_REGION = re.compile(r"^(?:Torch-Compiled Region|CompiledFunction(?:Backward)?$)").search
"""Compiled code: by Dynamo's mark, or by the function that autograd runs where the code is trained."""
_IS_GRAPH_LAUNCH = re.compile(r"graphlaunch|^urEnqueueCommandBuffer|^aclmdlRIExecute", re.IGNORECASE).search


class Owners(Struct, frozen=True, eq=False):
    """The owner of each of `Index.device_rows`: `names[of[i]]`.

    `operator` is the position of the operator that launched it, -1 where the owner is no operator. Then the owner is
    the compiled region around the launching call, else GRAPH_LAUNCH for the launch of a graph, else the innermost
    annotation around the call that marks neither a step nor a phase, else the name of the call. What has no launching
    call in the trace belongs to LAUNCHED_OUTSIDE, or to NO_OPERATOR where the trace does not say that there was one.
    """

    names: list[str]
    of: NDArray[np.intp]
    operator: Positions


def owners(index: Index) -> Owners:
    """Find the owner of all device work."""
    trace, spans = index.trace, index.trace.spans
    names = [*trace.names, GRAPH_LAUNCH, NO_OPERATOR, LAUNCHED_OUTSIDE]
    graph_launch, no_operator, launched_outside = range(len(trace.names), len(names))
    operator, launch = index.launching_operators, index.launching_rows
    of = np.where(index.launched_outside, launched_outside, no_operator)
    of[operator >= 0] = index.operator_names[operator[operator >= 0]]

    outside = np.flatnonzero((operator < 0) & (launch >= 0))
    calls = launch[outside]
    called = spans.name[calls]
    is_graph = np.zeros(len(trace.names), dtype=bool)
    for name in distinct(called).tolist():
        is_graph[name] = bool(_IS_GRAPH_LAUNCH(trace.names[name]))
    annotation, compiled = _annotations_around(index, calls)
    of[outside] = np.select(
        [compiled, is_graph[called], annotation >= 0],
        [annotation, np.full(calls.size, graph_launch), annotation],
        called,
    )
    return Owners(names, of, operator)


def largest_other_owner(index: Index) -> tuple[str, int, int] | None:
    """The owner that is no operator, if most of the device time is its own: name, its time and all time (ns).

    A compiled region is none either, also where it is recorded as an operator. Work without a recorded launch does not
    count.
    """
    owned = owners(index)
    dur_ns = np.where(index.launching_rows < 0, 0, index.trace.spans.dur_ns[index.device_rows])
    region = np.array([bool(_IS_REGION(name)) for name in owned.names], dtype=bool)
    other = (owned.operator < 0) | region[owned.of]
    time = np.bincount(owned.of[other], weights=dur_ns[other], minlength=1)
    largest = int(time.argmax())
    total = int(dur_ns.sum())
    return (owned.names[largest], int(time[largest]), total) if 2 * time[largest] > total else None


def _annotations_around(index: Index, calls: Rows) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Name of the innermost annotation around each call that marks neither a step nor a phase; whether it is compiled.

    The name is that of the innermost compiled region, if the call is in one; -1 outside of all.
    """
    trace, spans = index.trace, index.trace.spans
    rows = trace.rows(Kind.ANNOTATION)
    region, listed = np.zeros(len(trace.names), dtype=bool), np.zeros(len(trace.names), dtype=bool)
    for number in distinct(spans.name[rows]).tolist():
        name = trace.names[number]
        region[number] = bool(_IS_REGION(name))
        listed[number] = not (is_step(name) or phase_of(name))
    nested = nest(spans, rows[listed[spans.name[rows]]])
    inside = nested.locate(spans.thread[calls], spans.start_ns[calls])
    name_of = np.append(spans.name[nested.rows], -1).astype(np.intp)  # the last one for position -1
    compiled = np.append(nested.nearest(region[name_of[:-1]]), -1)[inside]
    return name_of[np.where(compiled >= 0, compiled, inside)], compiled >= 0
