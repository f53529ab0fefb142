"""Operators: calls, time, input shapes, call stacks, and the device time and memory that they caused."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from profiling.analysis.index import Index
from profiling.analysis.nesting import nest

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
    """Operators by name, the largest self time first."""
    names = index.trace.names
    return _table(index, index.operator_names, lambda name: (names[name], None, None))


def operators_by_shape(index: Index) -> list[Operator]:
    """Operators by name and input shapes, the largest self time first; shapes are "" where none were recorded."""
    names, shapes = index.trace.names, index.trace.shapes
    pairs = index.operator_names.astype(np.int64) * len(shapes) + index.trace.spans.shapes[index.operators.rows]
    distinct, group = np.unique(pairs, return_inverse=True)

    def label(key: int) -> Label:
        return names[distinct[key] // len(shapes)], shapes[distinct[key] % len(shapes)], None

    return _table(index, group, label)


def operators_by_stack(index: Index) -> list[Operator]:
    """Operators by name and the Python frames they were called in, the largest self time first.

    Stacks are "" where none were recorded, as on autograd's threads. The frames of the profiler and of
    `nn.Module.__call__` are left out, so that the STACK_FRAMES frames are those of the user's code.
    """
    names, frames = index.trace.names, index.trace.frames
    listed = np.array([bool(_PYTHON.search(name)) and not _INTERNAL.search(name) for name in names], dtype=bool)
    calls = nest(frames, np.flatnonzero(listed[frames.name]))
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

    return _table(index, group.ravel(), label)


def _table(index: Index, group: NDArray[Any], label: Callable[[int], Label]) -> list[Operator]:
    """One row per group of operators, the largest self time first; `label` names a group."""
    nested = index.operators
    is_call = ~index.repeats

    def total(values: NDArray[Any]) -> NDArray[np.int64]:
        return np.bincount(group, weights=values).astype(np.int64)

    self_ns = total(nested.self_ns())
    present = np.flatnonzero(np.bincount(group))
    order = present[np.argsort(-self_ns[present], kind="stable")]
    columns = (
        order,
        total(is_call)[order],
        self_ns[order] / 1e3,
        total((nested.end_ns - nested.start_ns) * is_call)[order] / 1e3,
        total(index.operator_device_ns)[order] / 1e3,
        total(index.operator_allocated)[order],
        total(index.trace.spans.flops[nested.rows])[order],
    )
    rows = []
    for key, calls, self_us, total_us, device_us, allocated, flops in zip(
        *map(np.ndarray.tolist, columns), strict=True
    ):
        name, shapes, stack = label(key)
        rows.append(Operator(name, calls, self_us, total_us, device_us, allocated, flops, shapes, stack))
    return rows
