"""Operators: how often, how long, on what shapes, from where, and what they cost the device and the allocator."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from profiling.analysis.index import Index
from profiling.analysis.nesting import nest

STACK_FRAMES = 8
"""The Python frames of a stack that are told, counted from the operator outwards."""
_LINE = re.compile(r"\(\d+\): ")  # of Python's own code: `file.py(12): function`; built-ins and modules have none
_MACHINERY = re.compile(
    r"(?:^|[/\\])torch[/\\](?:profiler[/\\]|(?:autograd[/\\]profiler|nn[/\\]modules[/\\]module)\.py\()"
)


class Operator(Struct, frozen=True):
    """All calls of one operator, or of one operator on one set of shapes, or from one place.

    `self_us` is time outside child operators. `total_us` counts nested calls of the same operator again unless one is
    the only child of the other; calls, self and total time agree with torch's `key_averages`. `device_us` and
    `allocated_bytes` are what the operator launched and allocated itself, not through its children. `stack` has a line
    for each Python frame, innermost first, such as `train/loop.py(90): train_step`.
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

    Stacks are "" where none were recorded, as on autograd's own threads. The profiler's frames are left out, and those
    of `nn.Module.__call__`, which would take the place of half the others.
    """
    names, frames = index.trace.names, index.trace.frames
    told = np.array([bool(_LINE.search(name)) and not _MACHINERY.search(name) for name in names], dtype=bool)
    calls = nest(frames, np.flatnonzero(told[frames.name]))
    at = calls.locate(index.operators.thread, index.operators.start_ns)
    name, parent = np.append(frames.name[calls.rows], -1), np.append(calls.parent, -1)  # so that -1 leads to -1
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
    """One row per group of operators."""
    nested = index.operators
    once = ~index.repeats

    def total(values: NDArray[Any]) -> NDArray[np.int64]:
        return np.bincount(group, weights=values).astype(np.int64)

    self_ns = total(nested.self_ns())
    present = np.flatnonzero(np.bincount(group))
    order = present[np.argsort(-self_ns[present], kind="stable")]
    columns = (
        order,
        total(once)[order],
        self_ns[order] / 1e3,
        total((nested.end_ns - nested.start_ns) * once)[order] / 1e3,
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
