"""Collectives: which rows they are, and the name, process group and message of each."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from profiling.analysis.index import Index
from profiling.analysis.nesting import nest
from profiling.trace.columns import Detail, Kind
from profiling.trace.groups import distinct
from profiling.trace.trace import Trace

_LIBRARIES = "nccl|rccl|mccl|xccl|hccl|eccl|cncl|bkcl|oneccl|msccl"
_HOST_LIBRARIES = "gloo|mpi|ucc"
_ANNOTATION = re.compile(rf"^(?:{_LIBRARIES}|{_HOST_LIBRARIES}):", re.IGNORECASE)
_HOST_ANNOTATION = re.compile(rf"^(?:{_HOST_LIBRARIES}):", re.IGNORECASE)
_LIBRARY_KERNEL = re.compile(
    rf"(?:^|::)(?:{_LIBRARIES}|hcom_|k?userbuffers_|(?:nv|roc|i)shmem|deep_ep::(?!\S*layout)|mori::|moe_?a2a(?!prepare))"
    r"|nccl(?:symk?)?(?:dev)?kernel|oneccl|cross_device_reduce|multimem_|symmetric_memory::|symm_mem",
    re.IGNORECASE,
)
_MEETING = re.compile(
    r"(?<![A-Za-z])(?i:all_?reduce|all_?gather|reduce_?scatter|all_?(?:to|2)_?all)"
    r"|All_?(?:Reduce|Gather|To_?All)|Reduce_?Scatter"
)
"""Operations in which every rank needs data of every other, so that none can end before all have begun."""
_WITHIN_ONE_DEVICE = re.compile(r"^triton_[a-z]+_fused|(?:block|warp|cta|thread|lane)_?(?i:all_?reduce)")
"""Compiled code is named after the operators around it; the others are sums over the threads of a block."""
_MEETING_KERNEL = re.compile(r"cross_device_reduce|barrier", re.IGNORECASE)
_RETURN_TYPE = re.compile(r"^(?:(?:static|__global__|void)\s+)+")
_TEMPLATE = re.compile(r"<[^<>]*>")
_NUMBER = re.compile(rb'"?(\d{1,18})"?')
_CALL_NUMBER = re.compile(r"(?:__\d+)+(?:_\d+)*$")
_MAX_NAME = 4096

_BYTES = {
    "double": 8, "long": 8, "long long": 8, "float": 4, "half": 2, "char": 1, "byte": 1, "bool": 1, "short": 2,
    "int": 4, "complexhalf": 4, "complexfloat": 8, "complexdouble": 16, "complex<half>": 4, "complex<float>": 8,
    "complex<double>": 16,
}  # fmt: skip
_SIZED = re.compile(r"(?:b?float|b?complex|bits|q?u?int)(\d+)(?:_e\d+m\d+(?:fn|fnuz|fnu)?|_t)?(?:_?x(\d+))?")


class Group(NamedTuple):
    """A process group. `ranks` is as in the trace, such as `[0, 1]` or `[0, 1, ..., 63]`; empty and 0 are unknown."""

    name: str = ""
    ranks: str = ""
    size: int = 0


class CollectiveCalls(Struct, frozen=True, eq=False):
    """The collectives of one rank in one window, in the order of their start.

    `rows` are those of kernels, or of the host's annotations where no device ran any. `names`: as recorded; in old
    traces the annotation around the launch, else the function of the kernel. `numbers` count the calls of a group and
    are the same on all its ranks; None where they are not recorded. `several`: whether the rank is in several groups,
    so that a call of `Group()` may be of any of them.
    """

    index: Index
    rows: NDArray[np.intp]
    names: list[str]
    groups: list[Group]
    numbers: list[int | None]
    several: bool

    def meets(self, place: int) -> bool:
        """Whether the call at a place ends on no rank before it has begun on all.

        Not so for sends and receives; for broadcast, scatter, gather and reduce, in which one rank only sends or only
        receives; for kernels whose operation is unknown; and for annotations of a device's library, which end with the
        launch.
        """
        name = self.names[place]
        on_host = self.index.trace.spans.kind[self.rows[place]] == Kind.ANNOTATION
        if on_host and not _HOST_ANNOTATION.match(name):
            return False
        return bool(_MEETING.search(name) or _MEETING_KERNEL.search(name))


def find_collectives(index: Index) -> CollectiveCalls:
    """Find the collectives of a trace, with the groups that their arguments or the header tell."""
    trace, spans = index.trace, index.trace.spans
    rows = collective_rows(trace)
    rows = rows[np.argsort(spans.start_ns[rows], kind="stable")]
    numbers = spans.detail[rows].tolist()
    details = {number: trace.details[number] for number in set(numbers)}
    configured = _configured_groups(trace.header)
    keys = {number: (detail.group, detail.group_ranks, detail.group_size) for number, detail in details.items()}
    groups = {key: _group(*key, configured) for key in set(keys.values())}
    return CollectiveCalls(
        index=index,
        rows=rows,
        names=[
            details[number].collective or annotation or _declared(trace.names[name])
            for number, annotation, name in zip(numbers, _annotations(index, rows), spans.name[rows], strict=True)
        ],
        groups=[groups[keys[number]] for number in numbers],
        numbers=[int(match[1]) if (match := _NUMBER.fullmatch(details[number].call)) else None for number in numbers],
        several=len(configured) > 1,
    )


def collective_rows(trace: Trace) -> NDArray[np.intp]:
    """Rows of collective kernels, or of the host's annotations for them where no device ran any."""
    spans = trace.spans
    described = np.array([bool(detail.collective) for detail in trace.details])
    for kind, is_collective in ((Kind.KERNEL, _is_kernel), (Kind.ANNOTATION, _is_annotation)):
        rows = trace.rows(kind)
        rows = rows[_named(trace, rows, is_collective) | described[spans.detail[rows]]]
        if rows.size:
            break
    return np.asarray(rows)


def _named(trace: Trace, rows: NDArray[np.intp], wanted: Callable[[str], bool]) -> NDArray[np.bool_]:
    """Which of the rows have a wanted name."""
    names = trace.spans.name[rows]
    chosen = np.zeros(len(trace.names), dtype=bool)
    for name in distinct(names).tolist():
        chosen[name] = wanted(trace.names[name])
    return np.asarray(chosen[names])


def _is_kernel(name: str) -> bool:
    function = _function(name)
    if _LIBRARY_KERNEL.search(function):
        return True
    return bool(_MEETING.search(function)) and not _WITHIN_ONE_DEVICE.search(function)


def _is_annotation(name: str) -> bool:
    return bool(_ANNOTATION.match(name))


def _annotations(index: Index, rows: NDArray[np.intp]) -> list[str]:
    """The name of the annotation, such as `nccl:all_to_all`, in which each kernel was launched; empty for none."""
    trace, spans = index.trace, index.trace.spans
    names = [""] * rows.size
    if not rows.size or spans.kind[rows[0]] != Kind.KERNEL:
        return names
    annotated = trace.rows(Kind.ANNOTATION)
    annotations = nest(spans, annotated[_named(trace, annotated, _is_annotation)])
    if not annotations.rows.size:
        return names
    launch = index.launching_rows[np.searchsorted(index.device_rows, rows)]
    launched = np.flatnonzero(launch >= 0)
    at = annotations.locate(spans.thread[launch[launched]], spans.start_ns[launch[launched]])
    for place, position in zip(launched.tolist(), at.tolist(), strict=True):
        if position >= 0:
            names[place] = trace.names[spans.name[annotations.rows[position]]]
    return names


def _configured_groups(header: Mapping[str, Any]) -> list[Group]:
    """The groups that the header says this rank is in."""
    info = header.get("distributedInfo")
    configs = info.get("pg_config") if isinstance(info, dict) else None
    groups = []
    for config in configs if isinstance(configs, list) else ():
        if isinstance(config, dict):
            ranks, size = _ranks(str(config.get("ranks") or "")), config.get("pg_size")
            name = str(config.get("pg_name") or "")
            groups.append(Group(name, ranks, size if isinstance(size, int) else _count(ranks)))
    return groups


def _group(name: bytes, ranks: bytes, size: int, configured: Sequence[Group]) -> Group:
    own = Group(_text(name), _ranks(_text(ranks)), size)
    if not (own.name or own.ranks):
        return configured[0] if len(configured) == 1 else Group()
    known = next((group for group in configured if group.name == own.name), Group())
    listed = own.ranks or known.ranks
    return Group(own.name, listed, size or known.size or _count(listed))


def message_bytes(detail: Detail) -> int | None:
    """Bytes of the message that a rank puts in; None if the elements or their type are unknown."""
    element = element_bytes(detail.dtype.decode("utf-8", "replace").strip('"'))
    if detail.elements < 0 or (element is None and detail.elements):
        return None
    return detail.elements * (element or 0)


@lru_cache
def element_bytes(dtype: str) -> int | None:
    """Bytes of an element of a type as torch spells it: `Float8_e4m3fn`, `c10::BFloat16`, `torch.int64`; None: unknown.

    Elements of less than a byte, such as `Int4`, take one; types such as `Float4_e2m1fn_x2` pack several into it.
    """
    name = re.sub(r"\b(?:c10|at|std)::|^torch\.|\b(?:un)?signed |_t$", "", dtype.strip().lower()).removesuffix(" int")
    if sized := _SIZED.fullmatch(name):
        return -(-int(sized[1]) * int(sized[2] or 1) // 8)
    return _BYTES.get(name)


def _declared(kernel: str) -> str:
    """The name of a kernel's function, without return type, parameters and the number of the call."""
    name = kernel.replace("(anonymous namespace)::", "").partition("(")[0].strip()
    return _CALL_NUMBER.sub("", _RETURN_TYPE.sub("", name)) or kernel


def _function(kernel: str) -> str:
    """A kernel's function and its namespaces, without template arguments, which may name other functions."""
    name = kernel[:_MAX_NAME]
    while (shorter := _TEMPLATE.sub("", name)) != name:
        name = shorter
    return _declared(name)


def _text(raw: bytes) -> str:
    """A JSON value as text: strings without quotes."""
    try:
        return str(msgspec.json.decode(raw)) if raw else ""
    except (ValueError, RecursionError):
        return raw.decode("utf-8", "replace")


def _ranks(text: str) -> str:
    """Write a list of ranks in one way, so that it can be compared."""
    numbers = re.findall(r"\d+|\.\.\.", text)
    return f"[{', '.join(numbers)}]" if numbers else ""


def _count(ranks: str) -> int:
    return 0 if "..." in ranks else len(re.findall(r"\d+", ranks))
