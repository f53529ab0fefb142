"""The tree of `nn.Module` calls, and what each module's operators cost; needs traces recorded with stacks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from profiling.analysis.index import Index
from profiling.analysis.nesting import Nest, call_chains

_PREFIX = "nn.Module: "
UNNAMED = "(unnamed)"
PATH_CHARACTERS = 1000
"""Longer paths are cut. If they were whole, their total length would grow with the square of the depth."""


class Module(Struct, frozen=True):
    """All calls of one module at one place in the tree.

    `path` joins the modules from the root, such as `ResNet_0/Sequential_1/BasicBlock_0`; of a path that is longer than
    PATH_CHARACTERS, it has a hash of the whole and the end: `…3f2a90c4d1e58b17…Block_7/Linear_0`. `parent` is the index
    of the calling module, which comes earlier in the list; -1 for a root.

    `self_us` is the time outside child modules. `backward_us`, `device_us` and `allocated_bytes` cover what ran outside
    child modules, too: the first is the time of the backward operators, the others are what was launched and allocated
    in the forward pass.
    """

    path: str
    name: str
    depth: int
    calls: int
    total_us: float
    self_us: float
    backward_us: float
    device_us: float
    allocated_bytes: int
    parent: int


def modules(index: Index) -> list[Module]:
    """The tree in the order of first calls, parents before children; empty without stacks."""
    nested, path, parents, labels = _calls(index)
    if not path.size:
        return []
    position = nested.locate(index.operators.thread, index.operators.start_ns)
    inside = np.where(position >= 0, path[position], -1)

    def total(group: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
        known = group >= 0
        return np.bincount(group[known], weights=values[known], minlength=len(labels))

    calls = np.bincount(path, minlength=len(labels))
    columns = [
        total(path, nested.end_ns - nested.start_ns) / 1e3,
        total(path, nested.self_ns()) / 1e3,
        total(*_backward(index, nested, path)) / 1e3,
        (total(inside, index.operator_device_ns) + total(*_launched_outside(index, nested, path))) / 1e3,
    ]
    allocated = total(inside, index.operator_allocated)
    order = tree_order(parents)
    place = {-1: -1} | {number: row for row, number in enumerate(order)}
    depths, paths = _depths(parents), _paths(parents, labels)
    return [
        Module(
            path=paths[i],
            name=labels[i],
            depth=depths[i],
            calls=int(calls[i]),
            total_us=float(columns[0][i]),
            self_us=float(columns[1][i]),
            backward_us=float(columns[2][i]),
            device_us=float(columns[3][i]),
            allocated_bytes=int(allocated[i]),
            parent=place[parents[i]],
        )
        for i in order
    ]


def path_notes(rows: Sequence[Module]) -> list[str]:
    """Say how many paths are cut: one line, or none."""
    cut = sum(len(row.path) > PATH_CHARACTERS for row in rows)
    note = f"{cut:,} paths of modules are longer than {PATH_CHARACTERS:,} characters: a hash and their end are shown"
    return [note] if cut else []


def _calls(index: Index) -> tuple[Nest, NDArray[np.intp], list[int], list[str]]:
    """The calls of modules, nested, and their paths.

    Returns:
        The calls; the number of each call's path, by position; and for each path, parents first, the number of the path
        that it extends (-1 for a root) and its last name.
    """
    trace = index.trace
    prefixed = np.array([name.startswith(_PREFIX) for name in trace.names], dtype=bool)
    frames = index.stacks.frames
    nested = frames.only(prefixed[trace.frames.name[frames.rows]])
    path, chains = call_chains(nested, trace.frames.name[nested.rows])
    # A file may contain any name; a slash in it would look like a level of the path.
    labels = [trace.names[name].removeprefix(_PREFIX).replace("/", "\\") or UNNAMED for _, name in chains]
    return nested, path, [above for above, _ in chains], labels


def _depths(parents: Sequence[int]) -> list[int]:
    depths: list[int] = []
    for above in parents:
        depths.append(depths[above] + 1 if above >= 0 else 0)
    return depths


def _paths(parents: Sequence[int], labels: Sequence[str]) -> list[str]:
    """The text of each path, see `Module`."""
    lengths: list[int] = []
    for above, label in zip(parents, labels, strict=True):
        lengths.append(len(label) + (lengths[above] + 1 if above >= 0 else 0))
    hashes = _hashes(parents, labels) if max(lengths, default=0) > PATH_CHARACTERS else []
    paths: list[str] = []
    ends: list[str] = []
    for number, (above, label) in enumerate(zip(parents, labels, strict=True)):
        ends.append((f"{ends[above]}/{label}" if above >= 0 else label)[-PATH_CHARACTERS:])
        cut = lengths[number] > PATH_CHARACTERS
        paths.append(f"…{hashes[number].hex()}…{ends[-1]}" if cut else ends[-1])
    return paths


def _hashes(parents: Sequence[int], labels: Sequence[str]) -> list[bytes]:
    """A hash of each whole path."""
    from hashlib import blake2b  # imports OpenSSL, for the rare trace that needs it

    hashes: list[bytes] = []
    for above, label in zip(parents, labels, strict=True):
        hashes.append(blake2b((hashes[above] if above >= 0 else b"") + label.encode(), digest_size=8).digest())
    return hashes


def _launched_outside(index: Index, nested: Nest, path: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Module paths and times of the device work that was launched outside all operators, such as CUDA graphs."""
    spans, launch = index.trace.spans, index.launching_rows
    outside = np.flatnonzero((index.launching_operators < 0) & (launch >= 0))
    calls = launch[outside]
    position = nested.locate(spans.thread[calls], spans.start_ns[calls])
    return np.where(position >= 0, path[position], -1), spans.dur_ns[index.device_rows[outside]]


def _backward(index: Index, nested: Nest, path: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Module paths of forward operators and the time of their backward ones, paired by the trace's flows."""
    flows, operators = index.trace.flows, index.operators
    ends = np.flatnonzero(flows.start == 0)
    starts = np.flatnonzero(flows.start == 1)
    if not (ends.size and starts.size):
        return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.int64)
    starts = starts[np.argsort(flows.flow[starts], kind="stable")]
    place = np.minimum(np.searchsorted(flows.flow[starts], flows.flow[ends]), starts.size - 1)
    paired = flows.flow[starts[place]] == flows.flow[ends]
    ends, starts = ends[paired], starts[place[paired]]

    source = nested.locate(flows.thread[starts], flows.start_ns[starts])
    target = operators.locate(flows.thread[ends], flows.start_ns[ends])
    known = (source >= 0) & (target >= 0)
    roots = operators.nearest(operators.parent < 0)[target[known]]  # including autograd's own work around the operator
    roots, first = np.unique(roots, return_index=True)
    return path[source[known][first]], operators.end_ns[roots] - operators.start_ns[roots]


def tree_order(parents: Sequence[int]) -> list[int]:
    """Order paths so that each is followed by its children, siblings by number; -1 is the parent of roots."""
    children: dict[int, list[int]] = {}
    for number, parent in enumerate(parents):
        children.setdefault(parent, []).append(number)
    ordered: list[int] = []
    pending = children.get(-1, [])[::-1]
    while pending:
        number = pending.pop()
        ordered.append(number)
        pending += children.get(number, [])[::-1]
    return ordered
