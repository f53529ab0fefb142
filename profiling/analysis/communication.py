"""Collectives: their time on each rank, and how much of it overlaps with computing."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from profiling.analysis.account import TimeAccount
from profiling.analysis.collectives import CollectiveCalls, Group, collective_rows, message_bytes
from profiling.analysis.intervals import gaps, length, overlaps, union
from profiling.trace.columns import Kind
from profiling.trace.files import window_name
from profiling.trace.trace import Trace

_NOT_COMPUTING = ("c10d::", "autograd::engine::")


class Collective(Struct, frozen=True):
    """All runs of one collective within one process group on one rank.

    `bytes` are those of the messages that this rank puts in, None where the trace does not say. `group` is the name of
    the group; `group_ranks` are its ranks as the trace has them, such as `[0, 1]`; both are empty where it has none.
    """

    name: str
    calls: int
    total_us: float
    bytes: int | None
    group: str
    group_ranks: str


class Communication(Struct, frozen=True):
    """One rank's collectives: time in which any runs, and its parts with and without computing at the same time.

    `window` numbers the file among those that were read.
    """

    rank: int
    window: int
    busy_us: float
    overlapped_us: float
    exposed_us: float
    collectives: list[Collective]


def rank_labels(ranks: Sequence[Communication], files: Sequence[str]) -> list[str]:
    """Name each: `rank 1`; where a rank has several windows, with how its file's name begins: `rank 1, vm_7_train`."""
    if len({rank.rank for rank in ranks}) == len(ranks):
        return [f"rank {rank.rank}" for rank in ranks]
    return [f"rank {rank.rank}, {window_name(files[rank.window])}" for rank in ranks]


def communication(calls: CollectiveCalls, window: int) -> Communication | None:
    """Analyze the collectives of one rank in a window; None if there are none."""
    trace, spans, rows = calls.index.trace, calls.index.trace.spans, calls.rows
    if not rows.size:
        return None
    start, end = spans.start_ns[rows], spans.start_ns[rows] + spans.dur_ns[rows]
    computing = _computing(calls)
    busy = length(*union(start, end))
    compute_start, compute_end = spans.start_ns[computing], spans.start_ns[computing] + spans.dur_ns[computing]
    either = length(*union(np.concatenate((start, compute_start)), np.concatenate((end, compute_end))))
    # |A and B| = |A| + |B| - |A or B|
    overlapped = busy + length(*union(compute_start, compute_end)) - either
    by_collective: dict[tuple[str, Group], list[int]] = defaultdict(list)
    for row, name, group in zip(rows.tolist(), calls.names, calls.groups, strict=True):
        by_collective[name, group].append(row)
    collectives = [_collective(trace, name, group, own) for (name, group), own in by_collective.items()]
    return Communication(
        rank=trace.rank,
        window=window,
        busy_us=busy / 1e3,
        overlapped_us=overlapped / 1e3,
        exposed_us=(busy - overlapped) / 1e3,
        collectives=sorted(collectives, key=lambda row: -row.total_us),
    )


def hidden_wait_ns(account: TimeAccount) -> int:
    """Time of the steps between operators while collectives run on other threads of the host, as gloo's do.

    The steps wait for other ranks then. No call of theirs shows it in the trace, so it is accounted for as Python.
    """
    index, segments = account.index, account.segments
    spans = index.trace.spans
    if index.trace.rows(Kind.KERNEL).size:
        return 0
    rows = collective_rows(index.trace)
    rows = rows[~index.step_threads[spans.thread[rows]]]
    free = gaps(segments.start_ns, segments.end_ns, *account.running)
    meeting = overlaps(
        free.start_ns, free.end_ns, *union(spans.start_ns[rows], spans.start_ns[rows] + spans.dur_ns[rows])
    )
    return length(meeting.start_ns, meeting.end_ns)


def _computing(calls: CollectiveCalls) -> NDArray[np.intp]:
    """The rows of what computes: kernels but the collectives; where no device ran any, operators that call no other.

    An operator that calls others may wait in between, and those of `c10d` hand a message over or wait for it.
    """
    index = calls.index
    kernels = index.trace.rows(Kind.KERNEL)
    if kernels.size:
        return np.setdiff1d(kernels, calls.rows, assume_unique=True)
    operators = index.operators
    is_named_so = np.array([not name.startswith(_NOT_COMPUTING) for name in index.trace.names], dtype=bool)
    computes = is_named_so[index.operator_names]
    computes[operators.parent[operators.parent >= 0]] = False
    rows: NDArray[np.intp] = operators.rows[computes]
    return rows


def _collective(trace: Trace, name: str, group: Group, rows: list[int]) -> Collective:
    spans = trace.spans
    sizes = [message_bytes(trace.details[detail]) for detail in spans.detail[rows].tolist()]
    known = [size for size in sizes if size is not None]
    return Collective(
        name=name,
        calls=len(rows),
        total_us=int(spans.dur_ns[rows].sum()) / 1e3,
        bytes=sum(known) if len(known) == len(sizes) else None,
        group=group.name,
        group_ranks=group.ranks,
    )
