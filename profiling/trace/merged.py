"""Files into which several ranks were merged: which events are whose.

One process writes one file, so several processes with operators or launching calls mean several ranks. Each counts its
correlation ids from the same number, so device work is assigned to its rank before it is matched to launches.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from msgspec.structs import asdict, replace
from numpy.typing import NDArray

from profiling.trace.columns import Kind
from profiling.trace.groups import by_value, distinct
from profiling.trace.parse import TraceError

_LABEL = re.compile(r"\[([^\[\]]+)\]|(?<![a-z])(rank[\s_:=#-]*\d+)", re.IGNORECASE)
_HOST = (Kind.OPERATOR, Kind.LAUNCH)
_DEVICE = (Kind.KERNEL, Kind.COPY, Kind.SET)
_LOOKED_UP = 1 << 20
"""At most so many launches are looked up at once, which limits the memory that this takes."""
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
    """One rank of a merged file: the rows of its own events, in order."""

    label: str
    rank: int
    rows: NDArray[np.intp]


def parts(events: Events, process_labels: Mapping[str, Sequence[str]]) -> tuple[list[Part], NDArray[np.intp]]:
    """Tell the ranks of a merged file apart; no parts for the file of one rank. Also return the part of each thread.

    A rank is known by a label in the pid or in the name of the process, such as `[TP00] 101` or `rank 1`; without
    labels, each process is a rank. A device without a label belongs to the rank that made the launches of its work.

    Raises TraceError, without the file's name, if correlation ids collide and nothing else tells whose they are.
    """
    none = np.empty(0, dtype=np.intp)
    used = np.bincount(events.thread.astype(np.intp) * len(Kind) + events.kind, minlength=len(events.pids) * len(Kind))
    used = used.reshape(-1, len(Kind))  # [thread, kind]

    def pids(*kinds: Kind) -> list[str]:
        return list(dict.fromkeys(events.pids[i] for i in np.flatnonzero(used[:, kinds].any(axis=1)).tolist()))

    hosts, launching, devices = pids(*_HOST), pids(Kind.LAUNCH), pids(*_DEVICE)
    labels = {pid: _label(pid, process_labels) for pid in dict.fromkeys(events.pids)}
    labeled = {labels[pid] for pid in (*hosts, *devices)} - {""}
    if max(len(pids(Kind.OPERATOR)), len(launching), len(labeled)) < 2:
        _refuse_repeated(events, launching)
        return [], none
    owners = {pid: label for pid, label in labels.items() if label in labeled}
    owners |= {pid: f"process {pid}" for pid in hosts if pid not in owners}
    ranks = _numbered(sorted(set(owners.values()), key=_natural))
    names = list(ranks)
    place = {name: i for i, name in enumerate(names)}
    # Other pids, such as those of the profiler's own events, go to the first rank.
    by_pid = {pid: place[owners.get(pid, names[0])] for pid in labels}
    owner = np.array([by_pid[pid] for pid in events.pids], dtype=np.intp)[events.thread]
    unlabeled = {pid: number for number, pid in enumerate(pid for pid in devices if labels[pid] not in labeled)}
    if unlabeled:
        rows = _rows(events, unlabeled, *_DEVICE)
        device = np.array([unlabeled.get(pid, -1) for pid in events.pids])[events.thread[rows]]
        launches = _Launches(events, owner, len(names))
        for number, places in by_value(device):
            own = rows[places]
            launcher = launches.owner(events.correlation[own], events.start_ns[own])
            if launcher is None:
                raise _untold(f"the work on device {list(unlabeled)[number]}", names)
            owner[own] = launcher
        _refuse_idle(events, owner, names)
    _refuse_collisions(events, owner, by_pid, launching)
    if len(names) < 2:
        return [], none
    of_thread = np.array([by_pid[pid] for pid in events.pids], dtype=np.intp)
    rows_of = dict(by_value(owner))
    return [Part(name, ranks[name], rows_of.get(i, none)) for i, name in enumerate(names)], of_thread


def select(tables: Sequence[tuple[Any, NDArray[np.intp]]]) -> tuple[list[Any], list[int]]:
    """Select rows of tables, structs of columns, and the threads that are left: their numbers are the new ones."""
    kept = []
    for table, rows in tables:
        columns = {name: column for name, column in asdict(table).items() if isinstance(column, np.ndarray)}
        kept.append(replace(table, **{name: column[rows] for name, column in columns.items()}))
    threads = distinct(np.concatenate([table.thread for table in kept]))
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


class _Launches:
    """The launching calls with an id: the first one of each id and rank, in order of id, then of rank."""

    def __init__(self, events: Events, owner: NDArray[np.intp], ranks: int) -> None:
        rows = np.flatnonzero((events.kind == Kind.LAUNCH) & (events.correlation != 0))
        rows = rows[np.lexsort((owner[rows], events.correlation[rows]))]
        ids, numbers = np.unique(events.correlation[rows], return_inverse=True)
        self._ranks = ranks
        self._ids = ids
        self._key, first = np.unique(numbers * ranks + owner[rows], return_index=True)
        self._start_ns = events.start_ns[rows[first]]

    def owner(self, ids: NDArray[np.int64], start_ns: NDArray[np.int64]) -> NDArray[np.intp] | int | None:
        """The rank that launched each piece of one device's work; None if it cannot be told.

        It is the only one that made all launches, before their work. If the ids do not collide, ranks may share the
        device.
        """
        number = np.minimum(np.searchsorted(self._ids, ids), max(self._ids.size - 1, 0))
        known = np.flatnonzero(self._ids[number] == ids) if self._ids.size else np.empty(0, dtype=np.intp)
        if not known.size:
            return None
        low, high = np.searchsorted(self._key, (number[known] + np.array([[0], [1]])) * self._ranks)
        if (high - low).max() == 1:
            made_by = self._key[low] % self._ranks
            ranks, pieces = np.unique(made_by, return_counts=True)
            owner = np.full(ids.size, ranks[pieces.argmax()], dtype=np.intp)
            owner[known] = made_by
            return owner
        order = np.argsort(high - low, kind="stable")  # ids of few ranks leave few candidates
        candidates = self._key[low[order[0]] : high[order[0]]] % self._ranks
        number, start_ns = number[known][order], start_ns[known][order]
        for in_time in (True, False):
            left = self._made_all(candidates, number, start_ns, in_time=in_time)
            if left.size == 1:
                return int(left[0])
        return None

    def _made_all(
        self, ranks: NDArray[np.intp], number: NDArray[np.intp], start_ns: NDArray[np.int64], *, in_time: bool
    ) -> NDArray[np.intp]:
        """Which of the ranks made all launches, given by the numbers of their ids; `in_time`: before their work."""
        done = 0
        while done < number.size and ranks.size:
            # Most ranks drop out early: the more are left, the fewer launches are looked up at once.
            upto = done + max(1, min(done, _LOOKED_UP // ranks.size))
            key = number[done:upto, np.newaxis] * self._ranks + ranks
            place = np.minimum(np.searchsorted(self._key, key), self._key.size - 1)
            made = self._key[place] == key
            if in_time:
                made &= start_ns[done:upto, np.newaxis] + 1000 >= self._start_ns[place]
            ranks, done = ranks[made.all(axis=0)], upto
        return ranks


def _refuse_idle(events: Events, owner: NDArray[np.intp], names: Sequence[str]) -> None:
    """Refuse if all work that a rank may have launched was assigned to others."""
    device, launch = np.isin(events.kind, _DEVICE), events.kind == Kind.LAUNCH
    launched = launch & (events.correlation != 0) & np.isin(events.correlation, events.correlation[device])
    idle = np.bincount(owner[launched], minlength=len(names)) > 0
    idle &= np.bincount(owner[device], minlength=len(names)) == 0
    if idle.any():
        raise _untold(f"the device work of {names[int(idle.argmax())]}", names)


def _refuse_collisions(
    events: Events, owner: NDArray[np.intp], by_pid: Mapping[str, int], hosts: Sequence[str]
) -> None:
    """Refuse if processes under one label made different launches with the same id."""
    of_rank: dict[int, list[str]] = {}
    for pid in hosts:
        of_rank.setdefault(by_pid[pid], []).append(pid)
    several = np.array([len(of_rank.get(rank, ())) > 1 for rank in range(max(by_pid.values()) + 1)])
    if not several.any():
        return
    pid_numbers = {pid: number for number, pid in enumerate(by_pid)}
    process = np.array([pid_numbers[pid] for pid in events.pids])[events.thread]
    counted = several[owner] & (events.correlation != 0)
    launch = np.flatnonzero(counted & (events.kind == Kind.LAUNCH))
    device = np.flatnonzero(counted & np.isin(events.kind, _DEVICE))
    ids, numbers = np.unique(events.correlation[np.concatenate((launch, device))], return_inverse=True)
    key = owner[np.concatenate((launch, device))] * ids.size + numbers
    made = np.unique(np.column_stack((key[: launch.size], process[launch])), axis=0)[:, 0]
    repeated = np.intersect1d(made[1:][made[1:] == made[:-1]], key[launch.size :])
    if repeated.size:
        raise _untold("device work", [f"process {host}" for host in of_rank[int(repeated[0] // ids.size)]])


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


def _rows(events: Events, pids: Collection[str], *kinds: Kind) -> NDArray[np.intp]:
    wanted = set(pids)
    of_pid = np.array([pid in wanted for pid in events.pids], dtype=bool)
    return np.flatnonzero(np.isin(events.kind, kinds) & of_pid[events.thread])
