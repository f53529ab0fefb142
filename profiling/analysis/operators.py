"""Operators: how often, how long, on what shapes, and what they cost the device and the allocator."""

from collections.abc import Callable
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from profiling.analysis.index import Index


class Operator(Struct, frozen=True):
    """All calls of one operator, or of one operator on one set of shapes.

    `self_us` is time outside child operators. `total_us` counts nested calls of the same operator again unless one is
    the only child of the other; calls, self and total time agree with torch's `key_averages`. `device_us` and
    `allocated_bytes` are what the operator launched and allocated itself, not through its children.
    """

    name: str
    calls: int
    self_us: float
    total_us: float
    device_us: float
    allocated_bytes: int
    flops: int
    shapes: str | None = None


def operators(index: Index) -> list[Operator]:
    """Operators by name, the largest self time first."""
    names = index.trace.names
    return _table(index, index.operator_names, lambda name: (names[name], None))


def operators_by_shape(index: Index) -> list[Operator]:
    """Operators by name and input shapes, the largest self time first; shapes are "" where none were recorded."""
    names, shapes = index.trace.names, index.trace.shapes
    pairs = index.operator_names.astype(np.int64) * len(shapes) + index.trace.spans.shapes[index.operators.rows]
    distinct, group = np.unique(pairs, return_inverse=True)
    return _table(index, group, lambda key: (names[distinct[key] // len(shapes)], shapes[distinct[key] % len(shapes)]))


def _table(index: Index, group: NDArray[Any], label: Callable[[int], tuple[str, str | None]]) -> list[Operator]:
    """One row per group of operators; `label` gives a group's name and shapes."""
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
        name, shapes = label(key)
        rows.append(Operator(name, calls, self_us, total_us, device_us, allocated, flops, shapes))
    return rows
