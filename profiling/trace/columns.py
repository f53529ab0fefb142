"""Batches of events as columns: the data that a trace stores of each event, with names, threads and shapes interned.

Columns are `array.array`s, whose storage numpy can view without a copy. numpy itself is not imported here, so that the
second process of `profiling.trace.parallel_reader` starts faster. Columns are filled from list comprehensions: they are
faster than `numpy.fromiter` over `attrgetter`. Kineto writes events in order of kind: a batch has few categories.
"""

from __future__ import annotations  # array[Any] cannot be written at run time before Python 3.12

from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from msgspec import Raw

from profiling.trace.events import (
    Args,
    Common,
    Event,
    FlowEvent,
    FrameEvent,
    MemoryEvent,
    OperatorArgs,
    OperatorEvent,
)

MAX_NAME_CHARACTERS = 256 << 20
"""Distinct names beyond this much text are replaced by FOLDED_NAME, which limits the memory that names can take."""
MAX_TIME_US = 2.0**52
"""Times from here on, about 140 years, are invalid."""
FOLDED_NAME = "(further names)"
METADATA, UNCATEGORIZED = ("metadata", "no category")
"""Events without a category are counted under these names: metadata such as thread names, and all others."""
LEGACY_PROCESS = "CPU functions"
"""The process of operators in traces of the legacy profiler, which writes no categories."""


class Kind(IntEnum):
    """What an event is; the names of categories differ between PyTorch versions and devices, kinds do not."""

    OTHER = 0
    OPERATOR = 1
    ANNOTATION = 2
    FRAME = 3
    LAUNCH = 4
    KERNEL = 5
    COPY = 6
    SET = 7
    DEVICE_ANNOTATION = 8
    SYNC = 9
    OVERHEAD = 10
    WINDOW = 11
    FORWARD_BACKWARD = 12
    FLOW = 13
    INSTANT = 14


_KINDS = {
    "cpu_op": Kind.OPERATOR,
    "operator": Kind.OPERATOR,
    "user_annotation": Kind.ANNOTATION,
    "python_function": Kind.FRAME,
    "kernel": Kind.KERNEL,
    "mtia_ccp_events": Kind.KERNEL,
    "gpu_memcpy": Kind.COPY,
    "memcpy": Kind.COPY,
    "gpu_memset": Kind.SET,
    "memset": Kind.SET,
    "gpu_user_annotation": Kind.DEVICE_ANNOTATION,
    "cuda_sync": Kind.SYNC,
    "xpu_sync": Kind.SYNC,
    "overhead": Kind.OVERHEAD,
    "trace": Kind.WINDOW,
    "fwdbwd": Kind.FORWARD_BACKWARD,
    "forward_backward": Kind.FORWARD_BACKWARD,
    "ac2g": Kind.FLOW,
    "async_gpu": Kind.FLOW,
    "async_cpu_to_gpu": Kind.FLOW,
    "async": Kind.FLOW,
    "cpu_instant_event": Kind.INSTANT,
}


def kind_of(category: str) -> Kind:
    """Map a category to its kind; names ending in `runtime` or `driver` (cuda, hip, xpu, …) are launching calls."""
    category = category.lower()
    return Kind.LAUNCH if category.endswith(("runtime", "driver")) else _KINDS.get(category, Kind.OTHER)


class Detail(NamedTuple):
    """Launch configuration of a kernel, message and call of a collective, or what a synchronization waits for.

    Events of equal values share one. -1 and empty are unknown.
    """

    grid: bytes = b""
    block: bytes = b""
    registers: float = -1.0
    blocks_per_sm: float = -1.0
    occupancy_percent: float = -1.0
    wait_on_stream: int = -1
    collective: str = ""
    group: bytes = b""
    group_size: int = 0
    elements: int = -1
    dtype: bytes = b""
    group_ranks: bytes = b""
    call: bytes = b""


class Numbering(dict[Any, int]):
    """Numbers values in the order in which they first appear."""

    def __missing__(self, value: Any) -> int:
        self[value] = number = len(self)
        return number


class Names(Numbering):
    """A numbering of strings whose total length is bounded."""

    characters = 0

    def __missing__(self, value: Any) -> int:
        self.characters += len(value)
        if self.characters <= MAX_NAME_CHARACTERS:
            return super().__missing__(value)
        return self.setdefault(FOLDED_NAME, len(self))


class Columns:
    """Columns while a file is read.

    `ignored`: events that no analysis uses, by category: timed ones of an unknown category or of none, and events
    without a duration in categories that should have one.
    `ts` and `dur` are float64 microseconds, as in the file; the columns that `numberings` lists contain indices.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()
        self.names = Names()
        self.threads = Numbering()
        self.thread_labels: dict[tuple[int | str, int | str], str] = {}
        self.process_labels: dict[str, list[str]] = {}
        self.shapes = Numbering({b"": 0})
        self.details = Numbering({Detail(): 0})
        self.flow_ids = Numbering()
        self._clear()

    def _clear(self) -> None:
        """Begin with tables without rows."""
        self.spans = _table(
            ts="d", dur="d", name="i", thread="i", kind="b", external="q", correlation="q", copied="q", flops="q",
            sequence="q", shapes="i", detail="i",
        )  # fmt: skip
        self.frames = _table(ts="d", dur="d", name="i", thread="i", id="i", caller="i")
        self.memory = _table(
            ts="d", thread="i", moved="q", address="q", allocated="q", reserved="q", device_type="q", device_id="q"
        )
        self.flows = _table(ts="d", thread="i", flow="i", start="b")

    def add(self, batch: list[Common]) -> None:
        """Append a batch."""
        for category, events in _by_category(batch).items():
            if not category:
                self._add_uncategorized(events)
                continue
            self.counts[category] += len(events)
            kind = kind_of(category)
            if kind is Kind.INSTANT:
                self._add_memory([event for event in events if event.name == "[memory]"])
            elif kind is Kind.FORWARD_BACKWARD:
                self._add_flows(events)
            elif kind is Kind.FLOW:
                self.ignored[category] += sum(event.ph in _TIMED for event in events)
            else:
                complete = [event for event in events if event.ph == "X"]
                if kind is Kind.OTHER or len(complete) < len(events):
                    skipped = ("X", *_ENDS_AND_FLOWS) if kind is not Kind.OTHER else _ENDS_AND_FLOWS
                    self.ignored[category] += sum(event.ph not in skipped for event in events)
                if kind is Kind.FRAME:
                    self._add_frames(complete)
                elif kind is Kind.OPERATOR:
                    self._add_operators(complete)
                else:
                    self._add_spans(complete, kind)

    def tables(self) -> tuple[dict[str, array[Any]], ...]:
        """All tables: name of the column -> column."""
        return self.spans, self.frames, self.memory, self.flows

    def empty_tables(self) -> tuple[dict[str, array[Any]], ...]:
        """Return all tables and begin again with tables without rows; what they were numbered by stays."""
        tables = self.tables()
        self._clear()
        return tables

    def numberings(self) -> dict[str, Numbering]:
        """Name of a column of indices -> the values that its indices stand for."""
        return {
            "name": self.names,
            "thread": self.threads,
            "shapes": self.shapes,
            "detail": self.details,
            "flow": self.flow_ids,
        }

    def _common(self, events: Sequence[Common]) -> dict[str, array[Any]]:
        pids, tids = [event.pid for event in events], [event.tid for event in events]
        threads = self.threads
        if len(set(pids)) == 1 and len(set(tids)) == 1:  # the usual case: one look-up for all events
            thread = array("i", [threads[pids[0], tids[0]]]) * len(events)
        else:
            thread = array("i", [threads[key] for key in zip(pids, tids, strict=True)])
        return {"ts": array("d", [event.ts for event in events]), "thread": thread}

    def _timed(self, events: Sequence[Common]) -> dict[str, array[Any]]:
        names = self.names
        return self._common(events) | {
            "dur": array("d", [event.dur for event in events]),
            "name": array("i", [names[event.name] for event in events]),
        }

    def _add_frames(self, events: Sequence[FrameEvent]) -> None:
        args = [event.args or _NO_ARGS for event in events]
        columns = self._timed(events) | {
            "id": _frame_ids([arg.frame for arg in args]),
            "caller": _frame_ids([arg.caller for arg in args]),
        }
        _extend(self.frames, columns)

    def _add_operators(self, events: Sequence[OperatorEvent]) -> None:
        args = [event.args or _NO_ARGS for event in events]
        shapes = self.shapes
        self._extend_spans(
            self._timed(events),
            Kind.OPERATOR,
            external=_identifiers([arg.external for arg in args]),
            flops=_integers([arg.flops for arg in args]),
            sequence=_integers([arg.sequence for arg in args]),
            shapes=array("i", [shapes[bytes(arg.shapes)] for arg in args]),
            detail=array("i", [self._message(arg) if arg.collective else 0 for arg in args]),
        )

    def _add_spans(self, events: Sequence[Any], kind: Kind) -> None:
        """Append timed events other than operators and Python functions; their `args` have all fields."""
        args: list[Args] = [event.args or _NO_ARGS for event in events]
        has_detail = kind in (Kind.KERNEL, Kind.SYNC)
        self._extend_spans(
            self._timed(events),
            kind,
            external=_identifiers([arg.external for arg in args]),
            correlation=_identifiers([arg.correlation for arg in args]),
            copied=_integers([arg.copied for arg in args]),
            detail=array("i", [self._detail(arg) if has_detail else 0 for arg in args]),
        )

    def _extend_spans(self, timed: dict[str, array[Any]], kind: Kind, **columns: array[Any]) -> None:
        """Append rows to `spans`; columns that are not given are 0."""
        count = len(timed["ts"])
        columns |= timed | {"kind": array("b", [kind]) * count}
        for name, column in self.spans.items():
            if name in columns:
                column.extend(columns[name])
            else:
                column.frombytes(bytes(column.itemsize * count))

    def _message(self, args: OperatorArgs) -> int:
        """Number of the detail of a collective's operator."""
        return self.details[Detail(**_message(args))]

    def _detail(self, args: Args) -> int:
        """Number of the detail of a kernel or synchronization."""
        return self.details[
            Detail(
                grid=bytes(args.grid),
                block=bytes(args.block),
                registers=args.registers,
                blocks_per_sm=args.blocks_per_sm,
                occupancy_percent=args.occupancy,
                wait_on_stream=args.wait_on_stream,
                **_message(args),
            )
        ]

    def _add_memory(self, events: Sequence[MemoryEvent]) -> None:
        args = [event.args or _NO_ARGS for event in events]
        columns = self._common(events) | {
            "moved": _integers([arg.moved for arg in args]),
            "address": _identifiers([arg.address for arg in args]),
            "allocated": _integers([arg.allocated for arg in args]),
            "reserved": _integers([arg.reserved for arg in args]),
            "device_type": _integers([arg.device_type for arg in args]),
            "device_id": _integers([arg.device_id for arg in args]),
        }
        _extend(self.memory, columns)

    def _add_flows(self, events: Sequence[FlowEvent]) -> None:
        ids = self.flow_ids
        columns = self._common(events) | {
            "flow": array("i", [ids[event.id] for event in events]),
            "start": array("b", [event.ph == "s" for event in events]),
        }
        _extend(self.flows, columns)

    def _add_uncategorized(self, events: Sequence[Event]) -> None:
        """Collect thread names, memory events of old releases and operators of the legacy profiler; count the rest."""
        operators: list[Any] = []
        memory: list[Any] = []
        for event in events:
            self.counts[METADATA if event.ph == "M" else UNCATEGORIZED] += 1
            if event.ph == "M":
                self._add_label(event)
            elif event.name == "[memory]" and event.args is not None:
                memory.append(event)
            elif event.ph == "X" and _is_operator(event):
                operators.append(event)
            elif event.ph in _TIMED:
                self.ignored[UNCATEGORIZED] += 1
        if operators:
            self._add_operators(operators)
        if memory:
            self._add_memory(memory)

    def _add_label(self, event: Event) -> None:
        """Collect the names of threads and processes."""
        if event.args is None:
            return
        label = bytes(event.args.label or event.args.labels).decode("utf-8", "replace").strip('"')
        if event.name == "thread_name":
            self.thread_labels[event.pid, event.tid] = label
        elif event.name in ("process_name", "process_labels"):
            self.process_labels.setdefault(str(event.pid), []).append(label)


def _is_operator(event: Event) -> bool:
    """Whether a complete event without a category is an operator, by its process or its name.

    The legacy profiler's `CUDA functions` repeat the operators' names, but are no kernels: each spans all that the
    device did between start and end of an operator, callers included.
    """
    return event.pid == LEGACY_PROCESS or (
        event.name.startswith("aten::") and not str(event.pid).endswith(" functions")
    )


def _by_category(batch: list[Any]) -> dict[str | None, list[Any]]:
    categories = {event.cat for event in batch}
    if len(categories) == 1:
        return {categories.pop(): batch}
    groups = defaultdict(list)
    for event in batch:
        groups[event.cat].append(event)
    return groups


def _message(args: OperatorArgs) -> dict[str, Any]:
    """The fields of a `Detail` about the message of a collective."""
    return {
        "collective": args.collective,
        "group": bytes(args.group),
        "group_size": args.group_size,
        "elements": args.elements,
        "dtype": bytes(args.dtype),
        "group_ranks": bytes(args.group_ranks),
        "call": bytes(args.call),
    }


def _table(**types: str) -> dict[str, array[Any]]:
    return {name: array(code) for name, code in types.items()}


def _extend(table: dict[str, array[Any]], columns: dict[str, array[Any]]) -> None:
    for name, column in table.items():
        column.extend(columns[name])


def _integers(values: list[int]) -> array[int]:
    """Convert to int64; values that do not fit are clamped."""
    try:
        return array("q", values)
    except OverflowError:
        return array("q", [max(-(2**63), min(value, 2**63 - 1)) for value in values])


def _frame_ids(values: list[Any]) -> array[int]:
    """Convert the ids of Python frames to int32; None becomes -1, and an id that does not fit -2."""
    try:
        return array("i", values)
    except (TypeError, OverflowError):
        return array("i", [-1 if value is None else value if -1 <= value < 2**31 else -2 for value in values])


def _identifiers(values: list[int]) -> array[int]:
    """Convert to int64; of larger values the lowest 64 bits are kept, which keeps addresses distinct."""
    try:
        return array("q", values)
    except OverflowError:
        return array("q", [(value + 2**63) % 2**64 - 2**63 for value in values])


_NO_ARGS = Args(shapes=Raw(b""))
_TIMED = ("X", "B", "b")
"""Phases of events with a duration: complete ones, and the begin of those whose end is an event of its own."""
_ENDS_AND_FLOWS = ("E", "e", "s", "t", "f")
"""Phases that are not counted: ends count at their begin, and flows only link other events."""
