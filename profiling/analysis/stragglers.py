"""Stragglers: which rank of a process group the others wait for in its collectives."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from profiling.analysis.collectives import CollectiveCalls, Group

_ONE_SIDED = "left out, as one rank may end them before another begins:"
_LISTED = 4


class Straggler(Struct, frozen=True):
    """A collective of one process group: the rank that the others waited for, and for how long.

    A collective ends on all ranks at once, so the rank that spends least time in a call started it last; no common
    clock is needed. `last_rank` is last in most calls, a share of `last_share`. `waited_us` sums, over calls and ranks,
    the time beyond that of the last rank. `ranks` are those compared, which may be fewer than `group_size` (0: not
    recorded); `group` and `group_ranks` are as in `Collective`.
    """

    collective: str
    calls: int
    last_rank: int
    last_share: float
    waited_us: float
    group: str
    group_ranks: str
    group_size: int
    ranks: list[int]


class RankComparison(NamedTuple):
    """The longest waiting first, and what was not compared and why: one line, or none."""

    stragglers: list[Straggler]
    notes: list[str]


class _Call(NamedTuple):
    """`number` counts the group's calls, None where the trace does not; `place` counts them within a window."""

    window: tuple[int, ...]
    number: int | None
    place: int
    dur_ns: int


Calls = Mapping[int, Sequence[_Call]]
"""Calls of each rank, in the order of their start."""


def compare_ranks(windows: Sequence[CollectiveCalls]) -> RankComparison:
    """Compare the ranks of each process group, collective by collective; nothing for fewer than two ranks.

    Calls are paired by their number within the group; where it is not recorded, by their order in windows of the same
    steps, if all ranks made equally many.
    """
    ranks = {window.index.trace.rank for window in windows}
    if len(ranks) < 2:
        return RankComparison([], [])
    calls, symmetric = _by_group(windows)
    of_group: dict[Group, set[int]] = defaultdict(set)
    for (group, _), by_rank in calls.items():
        of_group[group] |= set(by_rank)
    several = any(window.several for window in windows)
    stragglers: list[Straggler] = []
    remarks: dict[str, list[str]] = defaultdict(list)
    for (group, name), by_rank in calls.items():
        members, label = of_group[group], _label(name, group)
        if group.size == 1:
            continue
        if name not in symmetric:
            remarks[_ONE_SIDED].append(label)
        elif group == Group() and several:
            remarks["the traces do not tell which of the job's groups ran"].append(label)
        elif 0 < group.size < len(members):
            remarks["more ranks name the group than it has, in"].append(label)
        elif len(by_rank) < 2 or (group == Group() and set(by_rank) != ranks):
            remarks["too few ranks of the group are here, or ran"].append(label)
        else:
            durations = _paired(by_rank)
            compared, calls_made = durations.shape[1], max(map(len, by_rank.values()))
            if compared:
                stragglers.append(_straggler(group, name, sorted(by_rank), durations))
            if compared < calls_made:
                remarks["not every rank has all calls of"].append(f"{label} ({compared:,} of {calls_made:,} compared)")
            if len(by_rank) < group.size:
                remarks["compared without the ranks that are not here:"].append(
                    f"{label} ({len(by_rank)} of {group.size} ranks)"
                )
            if group == Group():
                remarks["all ranks were taken as one group, as the traces name none, in"].append(label)
    return RankComparison(sorted(stragglers, key=lambda row: -row.waited_us), _notes(remarks))


def _by_group(windows: Sequence[CollectiveCalls]) -> tuple[dict[tuple[Group, str], dict[int, list[_Call]]], set[str]]:
    """Calls by group, collective and rank; and the collectives that end on no rank before all have begun."""
    calls: dict[tuple[Group, str], dict[int, list[_Call]]] = {}
    symmetric = set()
    seen: Counter[tuple[int, tuple[int, ...]]] = Counter()
    for window in windows:
        rank, steps = window.index.trace.rank, window.index.steps
        numbers = tuple(steps.numbers) if steps.marked else ()
        identity = (*numbers, -seen[rank, numbers])  # windows of the same steps pair in their order
        seen[rank, numbers] += 1
        durations = window.index.trace.spans.dur_ns[window.rows].tolist()
        made: Counter[tuple[Group, str]] = Counter()
        for place, key in enumerate(zip(window.groups, window.names, strict=True)):
            if key not in calls and window.meets(place):
                symmetric.add(key[1])
            by_rank = calls.setdefault(key, defaultdict(list))
            by_rank[rank].append(_Call(identity, window.numbers[place], made[key], durations[place]))
            made[key] += 1
    return calls, symmetric


def _paired(by_rank: Calls) -> NDArray[np.int64]:
    """Durations in ns of the calls that all ranks made: [rank in order, call]."""
    ranks = sorted(by_rank)
    if all(call.number is not None for own in by_rank.values() for call in own):
        # Several kernels of one call have the same number.
        tables = [_numbered([(call.number or 0, call.dur_ns) for call in by_rank[rank]]) for rank in ranks]
    else:
        made = [Counter(call.window for call in by_rank[rank]) for rank in ranks]
        equal = {window for window, count in made[0].items() if all(other[window] == count for other in made)}
        tables = [
            {(call.window, call.place): call.dur_ns for call in by_rank[rank] if call.window in equal} for rank in ranks
        ]
    common = [call for call in tables[0] if all(call in table for table in tables)]
    return np.array([[table[call] for call in common] for table in tables], dtype=np.int64)


def _numbered(calls: Sequence[tuple[int, int]]) -> dict[tuple[Hashable, int], int]:
    """Duration by number and occurrence of the number."""
    seen: Counter[int] = Counter()
    durations: dict[tuple[Hashable, int], int] = {}
    for number, duration in calls:
        durations[number, seen[number]] = duration
        seen[number] += 1
    return durations


def _straggler(group: Group, name: str, ranks: list[int], durations: NDArray[np.int64]) -> Straggler:
    calls = durations.shape[1]
    last = np.bincount(durations.argmin(axis=0), minlength=len(ranks))
    return Straggler(
        collective=name,
        calls=calls,
        last_rank=ranks[int(last.argmax())],
        last_share=float(last.max() / calls),
        waited_us=int((durations - durations.min(axis=0)).sum()) / 1e3,
        group=group.name,
        group_ranks=group.ranks,
        group_size=group.size,
        ranks=ranks,
    )


def _label(name: str, group: Group) -> str:
    return " of ".join(filter(None, (name, " ".join(filter(None, (group.name, group.ranks))))))


def _notes(remarks: Mapping[str, Sequence[str]]) -> list[str]:
    """One line of all remarks; a few examples for each."""
    parts = []
    for remark, labels in remarks.items():
        more = f" and {len(labels) - _LISTED} more" if len(labels) > _LISTED else ""
        parts.append(f"{remark} {', '.join(labels[:_LISTED])}{more}")
    return [f"collectives compared between ranks: {'; '.join(parts)}"] if parts else []
