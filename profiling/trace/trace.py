"""Traces of torch.profiler as columns.

    trace = read_trace("run/host_1.123.pt.trace.json.gz")   # one file
    traces = read_traces("run")                              # every window of every rank in a folder

A `Trace` contains numpy columns, one row per event, with times as int64 nanoseconds since the trace's first event. The
format has microseconds with three decimals, so nanoseconds are exact and adjacent intervals do not overlap by rounding.
Names and threads are indices into `names` and `threads`. Nothing here imports torch.
"""

from array import array
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from profiling.trace.columns import MAX_TIME_US, NOT_A_CATEGORY, Columns, Detail, Kind, kind_of
from profiling.trace.files import find_traces
from profiling.trace.merged import Events, parts, select
from profiling.trace.parallel_reader import Half, SecondHalf, second_half
from profiling.trace.parse import Damage, EventReader, TraceError

Int64s = NDArray[np.int64]
Int32s = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Intervals:
    """Events with a duration; `name` is an index into `Trace.names`, `thread` into `Trace.threads`."""

    start_ns: Int64s
    dur_ns: Int64s
    name: Int32s
    thread: Int32s


@dataclass(frozen=True, eq=False)
class Frames(Intervals):
    """Calls of Python functions; empty unless stacks were recorded."""


@dataclass(frozen=True, eq=False)
class Spans(Intervals):
    """All other events with a duration: operators, annotations, launching calls, kernels, copies and so on."""

    kind: NDArray[np.int8]
    external: Int64s  # id of the operator, on operators and on the device work they launched; 0: none
    correlation: Int64s  # the same number on a launching call and on its device work; 0: none
    copied: Int64s  # bytes of a device copy or fill
    flops: Int64s
    shapes: Int32s  # index into Trace.shapes; 0: none recorded
    detail: Int32s  # index into Trace.details; 0: none recorded


@dataclass(frozen=True, eq=False)
class Allocations:
    """Memory events: `moved` bytes were allocated, or freed where negative."""

    start_ns: Int64s
    thread: Int32s
    moved: Int64s
    address: Int64s
    allocated: Int64s  # total on the device after the event, from its allocator; -1: not recorded
    reserved: Int64s  # total that the allocator holds, used or not; -1: not recorded
    device_type: Int64s  # 0: CPU, 1: CUDA, 6: HIP, 12: XPU, 20: private
    device_id: Int64s  # -1 on CPU


@dataclass(frozen=True, eq=False)
class Flows:
    """Links from forward to backward operators, one row per end; the two ends of a link share `flow`."""

    start_ns: Int64s
    thread: Int32s
    flow: Int32s
    start: NDArray[np.int8]  # 1 on the forward end


@dataclass(frozen=True)
class Thread:
    """A thread of the host, or a stream of a device."""

    pid: int | str
    tid: int | str
    label: str


@dataclass(frozen=True, eq=False)
class Trace:
    """One window of one rank.

    `counts`: events by the file's category; `ignored`: those without a duration, in categories that should have one.
    `cut`: why the events end early, None for a whole file. `unreadable`: number of places that were skipped; `damage`:
    the first of them. `timeless`: number of events without a usable time; `mended`: number of events that were readable
    after a repair. `origin_ns`: the file's time at nanosecond 0.
    """

    path: Path
    header: dict[str, Any]
    counts: dict[str, int]
    ignored: dict[str, int]
    cut: str | None
    unreadable: int
    damage: Damage | None
    mended: int
    timeless: int
    origin_ns: int
    process_labels: dict[str, list[str]]
    merged: dict[str, int]
    names: list[str]
    threads: list[Thread]
    shapes: list[str]
    details: list[Detail]
    spans: Spans
    frames: Frames
    allocations: Allocations
    flows: Flows

    @property
    def whole(self) -> bool:
        """Whether every event could be read."""
        return self.cut is None and not self.unreadable and not self.timeless

    @property
    def rank(self) -> int:
        """The rank in the distributed job; 0 where the trace has none."""
        info = self.header.get("distributedInfo")
        rank = info.get("rank", 0) if isinstance(info, dict) else 0
        return rank if isinstance(rank, int) else 0

    @cached_property
    def backend(self) -> str:
        """The type of device that ran kernels and copies: `cuda`, `hip`, `xpu`, …; `cpu` if there are none."""
        kind = self.spans.kind
        if not np.isin(kind, (Kind.KERNEL, Kind.COPY, Kind.SET)).any():
            return "cpu"
        launches = set(self.spans.name[kind == Kind.LAUNCH].tolist())
        if any(self.names[name].startswith("hip") for name in launches):
            return "hip"
        prefixes = [
            category.partition("_")[0] for category in self.counts if category.endswith(("_runtime", "_driver"))
        ]
        return prefixes[0] if prefixes else "cuda"

    @property
    def unknown(self) -> list[str]:
        """Categories that this reader does not know; their events are in `spans` as `Kind.OTHER`."""
        return [
            category for category in self.counts if kind_of(category) is Kind.OTHER and category not in NOT_A_CATEGORY
        ]

    @property
    def device_names(self) -> list[str]:
        """The devices of the machine, as the header lists them."""
        devices = self.header.get("deviceProperties")
        if not isinstance(devices, list):
            return []
        return [str(device.get("name", "?")) for device in devices if isinstance(device, dict)]

    @cached_property
    def extent_ns(self) -> tuple[int, int]:
        """Start and end of all operators, annotations and device work, else of Python functions; (0, 0) if empty."""
        rows = self.rows(Kind.OPERATOR, Kind.ANNOTATION, Kind.KERNEL, Kind.COPY, Kind.SET)
        spans = self.spans if rows.size else self.frames
        start, dur = (spans.start_ns[rows], spans.dur_ns[rows]) if rows.size else (spans.start_ns, spans.dur_ns)
        return (int(start.min()), int((start + dur).max())) if start.size else (0, 0)

    def rows(self, *kinds: Kind) -> NDArray[np.intp]:
        """Rows of `spans` that are of any of these kinds, in file order."""
        return np.flatnonzero(np.isin(self.spans.kind, kinds))


def read_trace(path: str | Path) -> Trace:
    """Read one trace file, `.json` or `.json.gz`.

    A file that is cut short or damaged is read as far as possible; `cut`, `unreadable` and `damage` then say so.

    Raises TraceError if it cannot be opened or contains no trace.
    """
    path = Path(path)
    columns = Columns()
    try:
        second = second_half(path)
        reader = EventReader(path, stop=second.start if second else None)
        try:
            for batch in reader:
                columns.add(batch)
            if second is not None and reader.stopped:
                _join(reader, columns, second)
        finally:
            if second is not None:
                second.close()
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror or error}") from None
    return _assemble(reader, columns)


def read_traces(path: str | Path) -> list[Trace]:
    """Read every trace at a path, see `find_traces` and `split_ranks`.

    Raises TraceError if there is none, or if one of them is unreadable.
    """
    return [trace for file in find_traces(path) for trace in split_ranks(read_trace(file))]


def split_ranks(trace: Trace) -> list[Trace]:
    """Split the trace of a file into which several ranks were merged, by rank; the trace alone if it has one rank.

    Raises TraceError if the events of the ranks cannot be told apart.
    """
    spans, pids = trace.spans, [str(thread.pid) for thread in trace.threads]
    events = Events(pids, spans.thread, spans.name, spans.kind, spans.start_ns, spans.correlation)
    try:
        ranks = parts(events, trace.process_labels)
    except TraceError as error:
        raise TraceError(f"{trace.path}: {error}") from None
    merged = {part.label: part.rank for part in ranks}
    info = trace.header.get("distributedInfo")
    traces = []
    for part in ranks:
        of_rank = np.array([pid in part.pids for pid in pids], dtype=bool)
        others = (trace.frames, trace.allocations, trace.flows)
        (own_spans, frames, allocations, flows), threads = select(
            [(spans, part.owns), *((table, of_rank[table.thread]) for table in others)]
        )
        header = trace.header | {"distributedInfo": (info if isinstance(info, dict) else {}) | {"rank": part.rank}}
        traces.append(
            replace(
                trace,
                header=header,
                merged=merged,
                threads=[trace.threads[number] for number in threads],
                spans=own_spans,
                frames=frames,
                allocations=allocations,
                flows=flows,
            )
        )
    return traces or [trace]


def _join(reader: EventReader, columns: Columns, second: SecondHalf) -> None:
    """Append what the second process read; read it in this process if that one failed."""
    half = second.result()
    if half is None:
        rest = EventReader(reader.path, start=second.start)
        for batch in rest:
            columns.add(batch)
        half = Half(Columns(), rest.header, rest.cut, rest.unreadable, rest.damage, rest.mended)
    _append(columns, half.columns)
    reader.header |= half.header
    reader.cut = half.cut
    reader.unreadable += half.unreadable
    reader.damage = reader.damage or half.damage
    reader.mended += half.mended


def _append(columns: Columns, later: Columns) -> None:
    """Append the columns of later events; their indices are replaced by those of `columns`."""
    columns.counts.update(later.counts)
    columns.ignored.update(later.ignored)
    columns.thread_labels |= later.thread_labels
    for pid, labels in later.process_labels.items():
        columns.process_labels.setdefault(pid, []).extend(labels)
    numberings = columns.numberings()
    numbers = {
        name: np.array([numberings[name][value] for value in values], dtype=np.int32)
        for name, values in later.numberings().items()
    }
    for target, source in zip(columns.tables(), later.tables(), strict=True):
        for name, column in source.items():
            renumbered = numbers[name][_view(column)] if name in numbers else _view(column)
            target[name].frombytes(renumbered.tobytes())


def _view(column: "array[Any]") -> NDArray[Any]:
    """View an array's storage as a numpy column, of the same type and without a copy."""
    return np.frombuffer(column, dtype=column.typecode) if column else np.empty(0, dtype=column.typecode)


def _assemble(reader: EventReader, columns: Columns) -> Trace:
    """Build the trace: drop events without a usable time, and convert times to nanoseconds."""
    tables = columns.tables()
    keep = [np.abs(_view(table["ts"])) < MAX_TIME_US for table in tables]
    starts = [_view(table["ts"])[mask] for table, mask in zip(tables[:3], keep, strict=False)]
    origin = int(min((start.min() for start in starts if start.size), default=0.0) // 1)

    def fill(table: dict[str, Any], mask: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        whole = bool(mask.all())
        filled = {name: _view(column) if whole else _view(column)[mask] for name, column in table.items()}
        filled["start_ns"] = _nanoseconds(filled.pop("ts"), origin)
        if "dur" in filled:
            filled["dur_ns"] = _durations(filled.pop("dur"))
        return filled

    spans, frames, memory, flows = (fill(table, mask) for table, mask in zip(tables, keep, strict=True))
    labels = columns.thread_labels
    return Trace(
        path=reader.path,
        header=reader.header,
        counts=dict(sorted(columns.counts.items())),
        ignored=+columns.ignored,
        cut=reader.cut,
        unreadable=reader.unreadable,
        damage=reader.damage,
        mended=reader.mended,
        timeless=sum(int(mask.size - np.count_nonzero(mask)) for mask in keep),
        origin_ns=origin * 1000,
        process_labels=columns.process_labels,
        merged={},
        names=list(columns.names),
        threads=[Thread(pid, tid, labels.get((pid, tid), f"{pid}/{tid}")) for pid, tid in columns.threads],
        shapes=[_text(shape) for shape in columns.shapes],
        details=list(columns.details),
        spans=Spans(**spans),
        frames=Frames(**frames),
        allocations=Allocations(**memory),
        flows=Flows(**flows),
    )


def _text(shapes: bytes) -> str:
    """Format shapes as Python does, independent of spaces in the file; unchanged if they are not valid JSON."""
    try:
        return str(msgspec.json.decode(shapes)) if shapes else ""
    except (ValueError, RecursionError):
        return shapes.decode("utf-8", "replace")


def _nanoseconds(ts: NDArray[np.float64], origin: int) -> Int64s:
    """Convert microseconds to nanoseconds since `origin` (in microseconds), exactly.

    Near 4.4e12 us the error of a float64 is up to 0.49 ns, so its fractional part still rounds to the right nanosecond.
    """
    whole = np.floor(ts)
    fraction = np.rint((ts - whole) * 1000).astype(np.int64)
    nanoseconds: Int64s = np.asarray((whole.astype(np.int64) - origin) * 1000 + fraction)
    return nanoseconds


def _durations(dur: NDArray[np.float64]) -> Int64s:
    """Convert microseconds to nanoseconds; durations that are negative, missing or from MAX_TIME_US on become 0."""
    usable = (dur > 0) & (dur < MAX_TIME_US)
    exact: Int64s = np.rint(np.where(usable, dur, 0.0) * 1000).astype(np.int64)
    return exact
