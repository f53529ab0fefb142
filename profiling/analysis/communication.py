"""Collectives: their time on each rank, how much of it overlaps with computing, and which rank the others wait for."""

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from profiling.analysis.index import Index
from profiling.analysis.intervals import union
from profiling.trace.columns import Kind

_COLLECTIVE = re.compile(
    r"^(?:nccl|rccl|mccl|xccl|hccl|oneccl|gloo|mpi)[A-Z_:]|ncclDevKernel|ncclKernel|oneCCL", re.ASCII
)
_ELEMENT_BYTES = {
    "Double": 8,
    "Long": 8,
    "Float": 4,
    "Int": 4,
    "Half": 2,
    "BFloat16": 2,
    "Char": 1,
    "Byte": 1,
    "Bool": 1,
}


class Collective(Struct, frozen=True):
    """All runs of one collective on one rank; `bytes` is 0 where the trace does not say."""

    name: str
    calls: int
    total_us: float
    bytes: int


class Communication(Struct, frozen=True):
    """One rank's collectives: time in which any runs, and its parts with and without computing at the same time."""

    rank: int
    busy_us: float
    overlapped_us: float
    exposed_us: float
    collectives: list[Collective]


class Straggler(Struct, frozen=True):
    """A collective that all ranks ran equally often: the rank that the others waited for, and for how long.

    A collective ends on all ranks at once, so the rank that spends least time in a call started it last; no common
    clock is needed. `last_rank` is last in most calls, a share of `last_share`. `waited_us` sums, over calls and ranks,
    the time beyond that of the last rank.
    """

    collective: str
    calls: int
    last_rank: int
    last_share: float
    waited_us: float


def communication(index: Index) -> Communication | None:
    """Analyze the collectives of one rank (kernels, or annotations without a device); None if there are none."""
    trace, spans = index.trace, index.trace.spans
    rows = collective_rows(index)
    if not rows.size:
        return None
    start, end = spans.start_ns[rows], spans.start_ns[rows] + spans.dur_ns[rows]
    kernels = trace.rows(Kind.KERNEL)
    computing = kernels[~np.isin(kernels, rows, assume_unique=True)]
    busy = _length(*union(start, end))
    compute_start, compute_end = spans.start_ns[computing], spans.start_ns[computing] + spans.dur_ns[computing]
    either = _length(*union(np.concatenate((start, compute_start)), np.concatenate((end, compute_end))))
    # |A and B| = |A| + |B| - |A or B|
    overlapped = busy + _length(*union(compute_start, compute_end)) - either
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in rows.tolist():
        detail = trace.details[spans.detail[row]]
        size = detail.elements * _ELEMENT_BYTES.get(detail.dtype.decode("utf-8", "replace").strip('"'), 0)
        for i, value in enumerate((1, int(spans.dur_ns[row]), size)):
            totals[_name(index, row)][i] += value
    return Communication(
        rank=trace.rank,
        busy_us=busy / 1e3,
        overlapped_us=overlapped / 1e3,
        exposed_us=(busy - overlapped) / 1e3,
        collectives=[
            Collective(name, calls, time / 1e3, size)
            for name, (calls, time, size) in sorted(totals.items(), key=lambda item: -item[1][1])
        ],
    )


def stragglers(indices: Sequence[Index]) -> list[Straggler]:
    """Compare the ranks of a job; the longest waiting first, empty for fewer than two ranks."""
    durations: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index in indices:
        spans = index.trace.spans
        rows = collective_rows(index)
        for row in rows[np.argsort(spans.start_ns[rows], kind="stable")].tolist():
            durations[_name(index, row)][index.trace.rank].append(int(spans.dur_ns[row]))
    ranks = {index.trace.rank for index in indices}
    results = []
    for name, by_rank in durations.items():
        if len(ranks) < 2 or set(by_rank) != ranks or len({len(runs) for runs in by_rank.values()}) != 1:
            continue
        numbers = sorted(by_rank)
        table = np.array([by_rank[rank] for rank in numbers])  # [rank, call]
        last = np.bincount(table.argmin(axis=0), minlength=len(numbers))
        results.append(
            Straggler(
                collective=name,
                calls=table.shape[1],
                last_rank=numbers[int(last.argmax())],
                last_share=float(last.max() / table.shape[1]),
                waited_us=int((table - table.min(axis=0)).sum()) / 1e3,
            )
        )
    return sorted(results, key=lambda row: -row.waited_us)


def collective_rows(index: Index) -> NDArray[np.intp]:
    """Rows of collective kernels, or of the host's annotations for them where no device ran any."""
    trace, spans = index.trace, index.trace.spans
    named = np.array([bool(_COLLECTIVE.search(name)) for name in trace.names], dtype=bool)
    described = np.array([bool(detail.collective) for detail in trace.details])
    matches = named[spans.name] | described[spans.detail]
    kernels = np.flatnonzero(matches & (spans.kind == Kind.KERNEL))
    return kernels if kernels.size else np.flatnonzero(matches & (spans.kind == Kind.ANNOTATION))


def _name(index: Index, row: int) -> str:
    """The recorded name of a collective; in old traces the name of the kernel's function."""
    detail = index.trace.details[index.trace.spans.detail[row]]
    function = index.trace.names[int(index.trace.spans.name[row])]
    return detail.collective or function.partition("(")[0]


def _length(start: NDArray[np.int64], end: NDArray[np.int64]) -> int:
    return int((end - start).sum())
