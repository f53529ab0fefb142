"""Operators: calls, time, input shapes, call stacks, and the device time and memory that they caused."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from profiling.analysis.index import Index
from profiling.analysis.owners import owners
from profiling.trace.groups import distinct

STACK_FRAMES = 8
"""Number of Python frames in a stack, counted from the operator outwards."""
_PYTHON = re.compile(r"\(\d+\): ")  # `file.py(12): function`; built-ins and modules have no line
_INTERNAL = re.compile(
    r"(?:^|[/\\])torch[/\\](?:profiler[/\\]|(?:autograd[/\\]profiler|nn[/\\]modules[/\\]module)\.py\()"
)


class Operator(Struct, frozen=True):
    """All calls of one operator, or of one operator with the same input shapes or the same stack.

    Calls, self and total time agree with torch's `key_averages`. `self_us` is the time outside child operators;
    `total_us` counts nested calls of one operator again, unless the inner call is the only child of the outer one.
    `device_us` and `allocated_bytes` are what the operator launched and allocated directly, not through its children.
    Device work that no operator launched has rows of its own, named as in `profiling.analysis.owners`: `calls` counts
    its launching calls, and itself where none was recorded. They have no time on the host, which is no operator's.
    `stack` has one line per Python frame, innermost first, such as `train/loop.py(90): train_step`.
    """

    name: str
    calls: int
    self_us: float
    total_us: float
    device_us: float
    allocated_bytes: int
    flops: int
    shapes: str | None = None
    stack: str | None = None


Label = tuple[str, str | None, str | None]
"""Name, shapes and stack."""


def operators(index: Index) -> list[Operator]:
    """Operators by name, in `operator_order`."""
    names = index.trace.names
    return _table(index, index.operator_names, lambda name: (names[name], None, None))


def operator_order(row: Operator) -> float:
    """Sort key: the largest self time first; rows without any are placed by their device time."""
    return -(row.self_us or row.device_us)


def operators_by_shape(index: Index) -> list[Operator]:
    """Operators by name and input shapes, in `operator_order`; shapes are "" where none were recorded."""
    names, shapes = index.trace.names, index.trace.shapes
    pairs = index.operator_names.astype(np.int64) * len(shapes) + index.trace.spans.shapes[index.operators.rows]
    distinct, group = np.unique(pairs, return_inverse=True)

    def label(key: int) -> Label:
        return names[distinct[key] // len(shapes)], shapes[distinct[key] % len(shapes)], None

    return _table(index, group, label, shapes="")


def operators_by_stack(index: Index) -> list[Operator]:
    """Operators by name and the Python frames they were called in, in `operator_order`.

    Stacks are "" where none were recorded, as on autograd's threads. The frames of the profiler and of
    `nn.Module.__call__` are left out, so that the STACK_FRAMES frames are those of the user's code.
    """
    names, frames = index.trace.names, index.trace.frames
    listed = np.array([bool(_PYTHON.search(name)) and not _INTERNAL.search(name) for name in names], dtype=bool)
    stack = index.stacks.frames
    calls = stack.only(listed[frames.name[stack.rows]])
    at = calls.locate(index.operators.thread, index.operators.start_ns)
    name, parent = np.append(frames.name[calls.rows], -1), np.append(calls.parent, -1)  # for position -1
    columns = [index.operator_names]
    for _ in range(STACK_FRAMES):
        columns.append(name[at])
        at = parent[at]
    distinct, group = np.unique(np.column_stack(columns), axis=0, return_inverse=True)

    def label(key: int) -> Label:
        operator, *stack = distinct[key].tolist()
        return names[operator], None, "\n".join(names[frame] for frame in stack if frame >= 0)

    return _table(index, group.ravel(), label, stack="")


def _table(
    index: Index,
    group: NDArray[Any],
    label: Callable[[int], Label],
    *,
    shapes: str | None = None,
    stack: str | None = None,
) -> list[Operator]:
    """One row per group of operators, which `label` names, and per other owner, with these `shapes` and `stack`."""
    nested = index.operators
    is_call = ~index.repeats

    def total(values: NDArray[Any]) -> NDArray[np.int64]:
        return np.bincount(group, weights=values).astype(np.int64)

    present = np.flatnonzero(np.bincount(group))
    columns = (
        present,
        total(is_call)[present],
        total(nested.self_ns())[present] / 1e3,
        total((nested.end_ns - nested.start_ns) * is_call)[present] / 1e3,
        total(index.operator_device_ns)[present] / 1e3,
        total(index.operator_allocated)[present],
        total(index.trace.spans.flops[nested.rows])[present],
    )
    rows = []
    for key, calls, self_us, total_us, device_us, allocated, flops in zip(
        *map(np.ndarray.tolist, columns), strict=True
    ):
        name, *rest = label(key)
        rows.append(Operator(name, calls, self_us, total_us, device_us, allocated, flops, *rest))
    place = {row.name: number for number, row in enumerate(rows) if (row.shapes, row.stack) == (shapes, stack)}
    for other in _other_owners(index, shapes, stack):
        if (number := place.get(other.name)) is None:
            rows.append(other)
        else:  # an annotation or a call of this name
            rows[number] = structs.replace(rows[number], device_us=rows[number].device_us + other.device_us)
    return sorted(rows, key=operator_order)


def _other_owners(index: Index, shapes: str | None, stack: str | None) -> list[Operator]:
    """One row per owner of device work that is no operator."""
    owned = owners(index)
    outside = np.flatnonzero((owned.operator < 0) & ~index.launched_outside)
    if not outside.size:
        return []
    owner, launch = owned.of[outside].astype(np.int32), index.launching_rows[outside]
    time = np.bincount(owner, weights=index.trace.spans.dur_ns[index.device_rows[outside]])
    calls = np.bincount(owner[launch < 0], minlength=time.size)
    first = np.unique(launch[launch >= 0], return_index=True)[1]
    calls += np.bincount(owner[launch >= 0][first], minlength=time.size)
    return [
        Operator(owned.names[key], int(calls[key]), 0.0, 0.0, float(time[key]) / 1e3, 0, 0, shapes, stack)
        for key in distinct(owner).tolist()
    ]
