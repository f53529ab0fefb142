"""What the host waits for: the calls that block it, and the device work that goes on meanwhile."""

from collections import defaultdict
from enum import StrEnum

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from profiling.analysis.account import OTHER_STREAMS, TimeAccount
from profiling.analysis.blocking_calls import WaitKind
from profiling.analysis.collectives import collective_rows
from profiling.analysis.owners import owners
from profiling.trace.columns import Kind
from profiling.vocabulary import PHASE_LABELS


class WorkKind(StrEnum):
    """What goes on while the host waits. The last four are calls that block while the device has nothing to do."""

    kernel = "kernel"
    collective = "collective"
    copy = "copy"
    fill = "fill"
    other_streams = "other streams"
    idle = "device idle"
    memory = WaitKind.memory.value
    pinned = WaitKind.pinned.value
    module = WaitKind.module.value
    driver = WaitKind.driver.value

    @property
    def is_work(self) -> bool:
        """Whether the device works meanwhile, on what the host waits for."""
        return self in (WorkKind.kernel, WorkKind.collective, WorkKind.copy, WorkKind.fill)


class BlockingCall(Struct, frozen=True):
    """All calls of one name that blocked the steps for one reason."""

    kind: WaitKind
    name: str
    calls: int
    wait_us: float


class WaitedFor(Struct, frozen=True):
    """Time for which `waits` calls, in the phase `waited_in`, waited for one kernel or copy that one operator launched.

    `launched_in` is the phase of that operator. Where the device did nothing that was waited for, `name` is that of the
    blocking call, and `operator` and `launched_in` are empty.
    """

    kind: WorkKind
    name: str
    operator: str
    launched_in: str
    waited_in: str
    wait_us: float
    waits: int


def blocked_by(account: TimeAccount) -> list[BlockingCall]:
    """The calls that block the steps, the longest waiting first."""
    trace, calls, waits = account.index.trace, account.blocking_calls, account.waits
    totals: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0])
    ns = np.bincount(waits.call, weights=waits.end_ns - waits.start_ns, minlength=calls.rows.size)
    for call in np.flatnonzero(np.bincount(waits.call, minlength=calls.rows.size)).tolist():
        entry = totals[int(calls.kinds[call]), int(trace.spans.name[calls.rows[call]])]
        entry[0] += 1
        entry[1] += int(ns[call])
    kinds = list(WaitKind)
    return [
        BlockingCall(kinds[kind], trace.names[name], count, time / 1e3)
        for (kind, name), (count, time) in sorted(totals.items(), key=lambda item: -item[1][1])
    ]


def waited_for(account: TimeAccount) -> list[WaitedFor]:
    """What the steps wait for, the longest first; the times add up to the waiting of all phases."""
    index, parts, waits = account.index, account.wait_parts, account.waits
    trace, spans = index.trace, index.trace.spans
    if not parts.wait.size:
        return []
    place = np.full(spans.name.size + 1, -1, dtype=np.intp)
    place[index.device_rows] = np.arange(index.device_rows.size)
    is_work = parts.row >= 0
    device = np.where(is_work, place[parts.row], -1)
    call_row = account.blocking_calls.rows[waits.call[parts.wait]]
    owned = owners(index)
    owner, phase = np.append(owned.of, -1), np.append(index.device_phase, -1)  # for position -1
    keys = np.column_stack(
        (
            work_kinds(account),
            spans.name[np.where(is_work, parts.row, call_row)],
            owner[device],
            phase[device],
            account.segments.phase[waits.segment[parts.wait]],
        )
    )
    distinct, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.ravel()
    time = np.bincount(group, weights=parts.length_ns, minlength=len(distinct))
    pairs = np.column_stack((group, waits.call[parts.wait]))
    first = np.unique(pairs, axis=0, return_index=True)[1]  # without an index, it would import numpy.ma, which is slow
    number = np.bincount(group[first], minlength=len(distinct))
    kinds = list(WorkKind)
    rows = []
    for i in np.argsort(-time, kind="stable").tolist():
        kind, name, operator, launched_in, waited_in = distinct[i].tolist()
        rows.append(
            WaitedFor(
                kind=kinds[kind],
                name=trace.names[name],
                operator=owned.names[operator] if launched_in >= 0 else "",
                launched_in=PHASE_LABELS[launched_in] if launched_in >= 0 else "",
                waited_in=PHASE_LABELS[waited_in],
                wait_us=float(time[i]) / 1e3,
                waits=int(number[i]),
            )
        )
    return rows


def work_kinds(account: TimeAccount) -> NDArray[np.intp]:
    """Kind of each of the account's `wait_parts`, as an index into `list(WorkKind)`."""
    index, parts = account.index, account.wait_parts
    kinds = list(WorkKind)
    by_row = np.full(index.trace.spans.kind.size, kinds.index(WorkKind.kernel), dtype=np.intp)
    by_row[index.trace.rows(Kind.COPY)] = kinds.index(WorkKind.copy)
    by_row[index.trace.rows(Kind.SET)] = kinds.index(WorkKind.fill)
    by_row[collective_rows(index.trace)] = kinds.index(WorkKind.collective)
    alone = np.array([kinds.index(_ALONE.get(kind, WorkKind.idle)) for kind in WaitKind])
    call = account.waits.call[parts.wait]
    result = alone[account.blocking_calls.kinds[call]]
    result[parts.row == OTHER_STREAMS] = kinds.index(WorkKind.other_streams)
    is_work = parts.row >= 0
    result[is_work] = by_row[parts.row[is_work]]
    return result


_ALONE = {
    WaitKind.memory: WorkKind.memory,
    WaitKind.pinned: WorkKind.pinned,
    WaitKind.module: WorkKind.module,
    WaitKind.driver: WorkKind.driver,
}
"""What a call waits for while the device does nothing, if not for the device."""
