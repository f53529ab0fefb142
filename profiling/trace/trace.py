"""Traces of torch.profiler as columns.

    trace = read_trace("run/host_1.123.pt.trace.json.gz")   # one file
    traces = read_traces("run")                              # every window of every rank that a folder holds

A `Trace` holds numpy columns, one row per event, with times as int64 nanoseconds since the trace's first event: the
format has microseconds with three decimals, so nanoseconds are exact and intervals that touch do not seem to overlap.
Names and threads are indices into `names` and `threads`. Nothing here imports torch.
"""

from array import array
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from profiling.trace.columns import MAX_TIME_US, NOT_A_CATEGORY, Columns, Detail, Kind, kind_of
from profiling.trace.files import find_traces
from profiling.trace.parallel_reader import Half, SecondHalf, second_half
from profiling.trace.parse import Damage, EventReader, TraceError

Int64s = NDArray[np.int64]
Int32s = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Frames:
    """Python functions, of traces recorded with stacks."""

    start_ns: Int64s
    dur_ns: Int64s
    name: Int32s
    thread: Int32s


@dataclass(frozen=True, eq=False)
class Spans(Frames):
    """Every other event that has a duration: operators, annotations, launches, kernels, copies and so on."""

    kind: NDArray[np.int8]
    external: Int64s  # the operator's id on operators and on what they launched; 0: none
    correlation: Int64s  # the same number on a launch and on the device work it started; 0: none
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
    allocated: Int64s  # total on the device afterwards, as its allocator says; -1: not recorded
    reserved: Int64s
    device_type: Int64s  # 0: CPU, 1: CUDA, 6: HIP, 12: XPU, 20: private
    device_id: Int64s  # -1 on CPU


@dataclass(frozen=True, eq=False)
class Flows:
    """The ends of arrows from forward to backward operators; the two ends of an arrow share `flow`."""

    start_ns: Int64s
    thread: Int32s
    flow: Int32s
    start: NDArray[np.int8]  # 1 on the forward end


@dataclass(frozen=True)
class Thread:
    """A row of the trace: a thread of the host, or a stream of a device."""

    pid: int | str
    tid: int | str
    label: str


@dataclass(frozen=True, eq=False)
class Trace:
    """One window of one rank.

    `counts` is the number of events by category, as the file calls them, and `ignored` how many of them have no
    duration though events of their category should. `cut` says why the events end early, None for a whole file;
    `unreadable` counts the places that had to be skipped, `damage` is the first; `timeless` counts events without a
    usable time; `mended` those that were readable after a repair. `origin_ns` is the file's time at nanosecond 0.
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
        """The rank in its job; 0 where the trace names none."""
        info = self.header.get("distributedInfo")
        rank = info.get("rank", 0) if isinstance(info, dict) else 0
        return rank if isinstance(rank, int) else 0

    @cached_property
    def backend(self) -> str:
        """What did the device work: `cuda`, `hip`, `xpu`, `privateuse1`, …, or `cpu` if there was none."""
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
        """Start and end of what was recorded, from operators, annotations and device work."""
        rows = self.rows(Kind.OPERATOR, Kind.ANNOTATION, Kind.KERNEL, Kind.COPY, Kind.SET)
        spans = self.spans if rows.size else self.frames
        start, dur = (spans.start_ns[rows], spans.dur_ns[rows]) if rows.size else (spans.start_ns, spans.dur_ns)
        return (int(start.min()), int((start + dur).max())) if start.size else (0, 0)

    def rows(self, *kinds: Kind) -> NDArray[np.intp]:
        """Rows of `spans` that are of any of these kinds, in file order."""
        return np.flatnonzero(np.isin(self.spans.kind, kinds))


def read_trace(path: str | Path) -> Trace:
    """Read one trace file, `.json` or `.json.gz`.

    Raises TraceError if it cannot be opened or holds no trace; a file that is cut short or damaged is read as far as
    possible, and the trace says so.
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
    """Read every trace at a path, see `find_traces`.

    Raises TraceError if there is none, or if one of them is unreadable.
    """
    return [read_trace(file) for file in find_traces(path)]


def _join(reader: EventReader, columns: Columns, second: SecondHalf) -> None:
    """Add what the second process read; read it here if it failed."""
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


def _append(columns: Columns, other: Columns) -> None:
    """Append the columns of the events that follow, with the numbers that names and the like have here."""
    columns.counts.update(other.counts)
    columns.ignored.update(other.ignored)
    columns.thread_labels |= other.thread_labels
    numberings = columns.numberings()
    numbers = {
        name: np.array([numberings[name][value] for value in values], dtype=np.int32)
        for name, values in other.numberings().items()
    }
    for mine, theirs in zip(columns.tables(), other.tables(), strict=True):
        for name, column in theirs.items():
            renumbered = numbers[name][_view(column)] if name in numbers else _view(column)
            mine[name].frombytes(renumbered.tobytes())


def _view(column: "array[Any]") -> NDArray[Any]:
    """View an array's storage as a numpy column, of the same type and without a copy."""
    return np.frombuffer(column, dtype=column.typecode) if column else np.empty(0, dtype=column.typecode)


def _assemble(reader: EventReader, columns: Columns) -> Trace:
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
    """Write shapes as Python does, whatever the file's spacing; as they stand if they are no sound JSON."""
    try:
        return str(msgspec.json.decode(shapes)) if shapes else ""
    except (ValueError, RecursionError):
        return shapes.decode("utf-8", "replace")


def _nanoseconds(ts: NDArray[np.float64], origin: int) -> Int64s:
    """Microseconds to nanoseconds since `origin`, exactly.

    A float64 near 4.4e12 is off by up to 0.49 ns; its fraction, taken first, still rounds to the right nanosecond.
    """
    whole = np.floor(ts)
    fraction = np.rint((ts - whole) * 1000).astype(np.int64)
    nanoseconds: Int64s = np.asarray((whole.astype(np.int64) - origin) * 1000 + fraction)
    return nanoseconds


def _durations(dur: NDArray[np.float64]) -> Int64s:
    """Microseconds to nanoseconds; what is negative, missing or longer than a century is 0."""
    usable = (dur > 0) & (dur < MAX_TIME_US)
    exact: Int64s = np.rint(np.where(usable, dur, 0.0) * 1000).astype(np.int64)
    return exact
