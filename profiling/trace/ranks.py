"""The rank of a trace: from its header, else from the names of its file and of the files beside it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from profiling.trace.text import zip_members

_NAMED = re.compile(r"(?<![a-z])rank[-_=]?(\d{1,7})(?!\d)", re.ASCII | re.IGNORECASE)
_AXIS = re.compile(r"(?<![a-z])(dp|pp|tp|ep|node)([-_]?)(\d{1,7})(?![\da-z])", re.ASCII | re.IGNORECASE)
_WORKER = re.compile(r"(?:worker[-_]?|profile_(?=\d+\.json))(\d{1,7})\.", re.ASCII | re.IGNORECASE)
"""`worker3.<time>.pt.trace.json` of PyTorch's examples, no host (`worker3_<pid>.…`); `profile_3.json` of Accelerate."""
_FOLDER = re.compile(r"rank[-_=]?(\d{1,7})", re.ASCII | re.IGNORECASE)
_WHOLE = re.compile(r"\s*(\d{1,7})(?:\.0*)?\s*", re.ASCII)

_LAYOUTS = (
    ("rank",),
    ("dp", "rank"),
    ("node", "rank"),
    ("tp",),
    ("pp", "tp"),
    ("dp", "pp", "tp"),
    ("pp",),
    ("dp",),
    ("ep",),
)
"""Which parts of a name number the ranks, the last one fastest; tried in this order.

In SGLang, `dp` and `ep` follow from `tp`. vLLM writes all of them beside a rank, which counts within its `dp`. Names of
one's own often have the rank within a node.
"""

_MAX_RANK = 10**7


class Rank(NamedTuple):
    """A rank in the distributed job, and a note if the file does not simply say so."""

    number: int
    note: str | None = None


class FolderNames:
    """The names of files that number ranks together; each folder is listed once for each kind of name."""

    def __init__(self) -> None:
        self._strides: dict[tuple[Path, frozenset[str]], Mapping[str, int] | None] = {}

    def number(self, path: Path, parts: Mapping[str, int]) -> int | None:
        """Number a name, split into its parts, among those of its folder."""
        key = (path.parent, frozenset(parts))
        if key not in self._strides:
            try:
                names = [entry.name for entry in path.parent.iterdir()]
            except OSError:  # for example a member of a zip file
                names = []
            alike = [other for name in (*names, path.name) if (other := _parts(name)).keys() == parts.keys()]
            self._strides[key] = _strides(alike)
        strides = self._strides[key]
        return None if strides is None else sum(stride * parts[axis] for axis, stride in strides.items())


def rank_of(header: Mapping[str, Any], path: Path, names: FolderNames) -> Rank:
    """Return the rank that a trace's header states, else that of its name; 0 where neither has one.

    A header may have it as text or as a fraction. A file that is alone in a zip file has a name of its own. Not used
    are names of hosts, which may end in numbers, too.
    """
    info = header.get("distributedInfo")
    stated = info.get("rank") if isinstance(info, dict) else None
    if type(stated) is int and 0 <= stated <= _MAX_RANK:
        return Rank(stated)
    if not isinstance(stated, bool) and (whole := _WHOLE.fullmatch(str(stated))):
        return Rank(int(whole[1]), f"its rank is written as {stated!r} and read as {int(whole[1])}")
    members = zip_members(path)
    named = _rank_in_name(path / next(iter(members)) if len(members) == 1 else path, names)
    why = "states no rank" if stated is None else f"states the rank {str(stated)[:40]!r}"
    if named is not None:
        return Rank(named, f"the file {why}: {named} is taken from its name")
    return Rank(0, None if not isinstance(info, dict) or "rank" not in info else f"the file {why}: 0 is assumed")


def _rank_in_name(path: Path, names: FolderNames) -> int | None:
    parts = _parts(path.name)
    if parts.keys() == {"rank"}:
        return parts["rank"]
    if parts:
        return names.number(path, parts)
    if worker := _WORKER.match(path.name) or _FOLDER.fullmatch(path.parent.name):
        return int(worker[1])
    return None


def _parts(name: str) -> dict[str, int]:
    """Split `…-TP-1-PP-0…` or `dp0_…_rank3…` into its numbered parts; `tp8` alone is rather a size, `node-3` a host."""
    rank = _NAMED.search(name)
    found = [(axis.lower(), separator, int(number)) for axis, separator, number in _AXIS.findall(name)]
    parts = {axis: number for axis, separator, number in found if rank or (separator and axis != "node")}
    return parts | ({"rank": int(rank[1])} if rank else {})


def _strides(alike: Sequence[Mapping[str, int]]) -> Mapping[str, int] | None:
    """What each part of names with the same parts counts for: of the fewest parts that tell all of them apart."""
    distinct = {tuple(sorted(other.items())) for other in alike}
    for axes in _LAYOUTS:
        if set(axes) <= alike[0].keys() and len({tuple(other[axis] for axis in axes) for other in alike}) == len(
            distinct
        ):
            strides, stride = {}, 1
            for axis in reversed(axes):
                strides[axis] = stride
                stride *= 1 + max(other[axis] for other in alike)
            return strides
    return None
