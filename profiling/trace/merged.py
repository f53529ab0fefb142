"""Files into which several ranks were merged: which events are whose.

One process writes one file, so several processes with operators or launching calls mean several ranks. Each counts its
correlation ids from the same number, so device work is assigned to its rank before it is matched to launches.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from profiling.trace.columns import Kind
from profiling.trace.parse import TraceError

_LABEL = re.compile(r"\[([^\[\]]+)\]|(?<![a-z])(rank[\s_:=#-]*\d+)", re.IGNORECASE)
_HOST = (Kind.OPERATOR, Kind.LAUNCH)
_DEVICE = (Kind.KERNEL, Kind.COPY, Kind.SET)
_REPEATED_SHARE = 0.01
"""Share of correlation ids that may repeat in the file of one rank: a damaged event does not refuse the others."""


class Events(NamedTuple):
    """The columns of a trace that tell ranks apart; `thread` is an index into `pids`."""

    pids: Sequence[str]
    thread: NDArray[np.int32]
    name: NDArray[np.int32]
    kind: NDArray[np.int8]
    start_ns: NDArray[np.int64]
    correlation: NDArray[np.int64]


class Part(NamedTuple):
    """One rank of a merged file. `owns`: which events are its own; `pids`: those that are no other rank's."""

    label: str
    rank: int
    owns: NDArray[np.bool_]
    pids: set[str]


def parts(events: Events, process_labels: Mapping[str, Sequence[str]]) -> list[Part]:
    """Tell the ranks of a merged file apart; empty for the file of one rank.

    A rank is known by a label in the pid or in the name of the process, such as `[TP00] 101` or `rank 1`; without
    labels, each process is a rank. A device without a label belongs to the rank that made the launches of its work.

    Raises TraceError, without the file's name, if correlation ids collide and nothing else tells whose they are.
    """
    used = np.bincount(events.thread.astype(np.intp) * len(Kind) + events.kind, minlength=len(events.pids) * len(Kind))
    used = used.reshape(-1, len(Kind))  # [thread, kind]

    def pids(*kinds: Kind) -> list[str]:
        return list(dict.fromkeys(events.pids[i] for i in np.flatnonzero(used[:, kinds].any(axis=1)).tolist()))

    hosts, launching, devices = pids(*_HOST), pids(Kind.LAUNCH), pids(*_DEVICE)
    labels = {pid: _label(pid, process_labels) for pid in dict.fromkeys(events.pids)}
    labeled = {labels[pid] for pid in (*hosts, *devices)} - {""}
    if max(len(pids(Kind.OPERATOR)), len(launching), len(labeled)) < 2:
        _refuse_repeated(events, launching)
        return []
    owners = {pid: label for pid, label in labels.items() if label in labeled}
    owners |= {pid: f"process {pid}" for pid in hosts if pid not in owners}
    ranks = _numbered(sorted(set(owners.values()), key=_natural))
    names = list(ranks)
    # Other pids, such as those of the profiler's own events, go to the first rank.
    by_pid = {pid: names.index(owners.get(pid, names[0])) for pid in labels}
    owner = np.array([by_pid[pid] for pid in events.pids], dtype=np.intp)[events.thread]
    unlabeled = [pid for pid in devices if labels[pid] not in labeled]
    for pid in unlabeled:
        rows = _rows(events, [pid], *_DEVICE)
        owner[rows] = _launchers(events, rows, owner, names)
    if unlabeled:
        _refuse_idle(events, owner, names)
    for i in range(len(names)):
        _refuse_collisions(events, owner == i, launching)
    if len(names) < 2:
        return []
    return [
        Part(name, ranks[name], owner == i, {pid for pid in by_pid if by_pid[pid] == i}) for i, name in enumerate(names)
    ]


def select(tables: Sequence[tuple[Any, NDArray[np.bool_]]]) -> tuple[list[Any], list[int]]:
    """Select rows of tables, dataclasses of columns, and the threads that are left: their numbers are the new ones."""
    kept = [
        replace(table, **{name: column[rows] for name, column in vars(table).items() if isinstance(column, np.ndarray)})
        for table, rows in tables
    ]
    threads = np.unique(np.concatenate([table.thread for table in kept]))
    return [replace(table, thread=np.searchsorted(threads, table.thread).astype(np.int32)) for table in kept], (
        threads.tolist()
    )


def _label(pid: str, process_labels: Mapping[str, Sequence[str]]) -> str:
    """The label in a pid or, if there is one only, in the names of its process; empty for none."""
    for texts in ([pid], process_labels.get(pid, ())):
        matches = [match for match in map(_LABEL.search, texts) if match]
        found = {match[1] or "rank " + re.sub(r"\D", "", match[2]) for match in matches}
        if len(found) == 1:
            return found.pop()
    return ""


def _natural(label: str) -> list[tuple[int, str]]:
    """Sort key: numbers by value."""
    return [(int(text), "") if text.isdecimal() else (-1, text) for text in re.split(r"(\d+)", label)]


def _numbered(labels: Sequence[str]) -> dict[str, int]:
    """Rank of each label: its number if every label has one of its own, as in TP00; else its place."""
    numbers = [re.findall(r"\d+", label) for label in labels]
    single = {found[0] for found in numbers if len(found) == 1}
    named = len(single) == len(labels) and not any(label.startswith("process ") for label in labels)
    return {label: int(numbers[i][0]) if named else i for i, label in enumerate(labels)}


def _launchers(
    events: Events, rows: NDArray[np.intp], owner: NDArray[np.intp], names: Sequence[str]
) -> NDArray[np.intp] | int:
    """The rank that launched each of the rows of one device: the only one that made all launches, before their work.

    If the ids do not collide, ranks may share the device.
    """
    ids = events.correlation[rows]
    made = np.zeros((len(names), rows.size), dtype=bool)
    early = np.zeros(len(names), dtype=bool)
    launches = np.flatnonzero((events.kind == Kind.LAUNCH) & (events.correlation != 0))
    for i in range(len(names)):
        own = launches[owner[launches] == i]
        own = own[np.argsort(events.correlation[own], kind="stable")]
        if own.size:
            place = np.minimum(np.searchsorted(events.correlation[own], ids), own.size - 1)
            made[i] = events.correlation[own[place]] == ids
            early[i] = bool((made[i] & (events.start_ns[rows] + 1000 < events.start_ns[own[place]])).any())
    by_rank = made.sum(axis=1)
    whole = np.flatnonzero((by_rank == made.any(axis=0).sum()) & (by_rank > 0))
    if whole.size > 1:
        whole = whole[~early[whole]]
    if whole.size == 1:
        return int(whole[0])
    if by_rank.any() and made.sum(axis=0).max() == 1:
        shared: NDArray[np.intp] = np.where(made.any(axis=0), made.argmax(axis=0), by_rank.argmax())
        return shared
    raise _untold(f"the work on device {events.pids[int(events.thread[rows[0]])]}", names)


def _refuse_idle(events: Events, owner: NDArray[np.intp], names: Sequence[str]) -> None:
    """Refuse if all work that a rank may have launched was assigned to others."""
    device = np.isin(events.kind, _DEVICE)
    ids = np.unique(events.correlation[device & (events.correlation != 0)])
    for i, name in enumerate(names):
        launches = (owner == i) & (events.kind == Kind.LAUNCH)
        if not (device & (owner == i)).any() and np.isin(events.correlation[launches], ids).any():
            raise _untold(f"the device work of {name}", names)


def _refuse_collisions(events: Events, part: NDArray[np.bool_], launching: Sequence[str]) -> None:
    """Refuse if processes under one label made different launches with the same id."""
    device = part & np.isin(events.kind, _DEVICE) & (events.correlation != 0)
    hosts = [pid for pid in launching if part[_rows(events, [pid], Kind.LAUNCH)].any()]
    seen = np.unique(events.correlation[device])
    for pid in hosts if len(hosts) > 1 else ():
        rows = _rows(events, [pid], Kind.LAUNCH)
        others = _rows(events, [other for other in hosts if other != pid], Kind.LAUNCH)
        if np.intersect1d(np.intersect1d(seen, events.correlation[rows]), events.correlation[others]).size:
            raise _untold("device work", [f"process {host}" for host in hosts])


def _refuse_repeated(events: Events, launching: Sequence[str]) -> None:
    """Refuse if launches of one process share their ids and each had device work: ranks whose pids are the same."""
    rows = _rows(events, launching, Kind.LAUNCH)
    ids = events.correlation[rows]
    if not (np.diff(np.sort(ids, kind="stable")) == 0).any():  # ids are in order in most files: sorting is fast
        return
    rows = rows[np.lexsort((events.name[rows], ids))]
    ids, names = events.correlation[rows], events.name[rows]
    # A call of another name may be that of the driver within one of the runtime, which has the same id.
    again = ids[1:][(ids[1:] == ids[:-1]) & (names[1:] == names[:-1]) & (ids[1:] != 0)]
    repeated, times = np.unique(again, return_counts=True)
    work = np.sort(events.correlation[np.isin(events.kind, _DEVICE)])
    pieces = np.searchsorted(work, repeated, side="right") - np.searchsorted(work, repeated)
    if np.count_nonzero(pieces > times) > max(1, _REPEATED_SHARE * np.unique(ids).size):
        raise TraceError(
            "correlation ids stand for several launches each: ranks, or windows, of the same process id were merged "
            "into this file, and nothing tells them apart; analyze the file of each"
        )


def _untold(what: str, names: Sequence[str]) -> TraceError:
    listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return TraceError(
        f"{listed} were merged into this file with colliding correlation ids, and nothing tells who launched {what}; "
        "analyze the file of each rank"
    )


def _rows(events: Events, pids: Sequence[str], *kinds: Kind) -> NDArray[np.intp]:
    of_pid = np.array([pid in pids for pid in events.pids], dtype=bool)
    return np.flatnonzero(np.isin(events.kind, kinds) & of_pid[events.thread])
