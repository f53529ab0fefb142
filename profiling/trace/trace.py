"""Traces of torch.profiler as columns.

    trace = read_trace("run/host_1.123.pt.trace.json.gz")   # one file
    traces = read_traces("run")                              # every window of every rank in a folder

A `Trace` contains numpy columns, one row per event, with times as int64 nanoseconds since the trace's first event. The
format has microseconds with three decimals, so nanoseconds are exact and adjacent intervals do not overlap by rounding.
Names and threads are indices into `names` and `threads`. Nothing here imports torch.
"""

from array import array
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from profiling.trace.callers import caller_rows, callers_within
from profiling.trace.columns import Columns, Detail, Kind
from profiling.trace.files import duplicates_in, find_traces
from profiling.trace.groups import by_value
from profiling.trace.layouts import annotations_among_operators, one_spelling
from profiling.trace.merged import Events, parts, select
from profiling.trace.parallel_reader import Half, SecondHalf, second_half
from profiling.trace.parse import Damage, EventReader, TraceError
from profiling.trace.ranks import FolderNames, rank_of
from profiling.trace.times import durations, nanoseconds, resolution_ns, usable_times

_MAX_SUM = 2**62
"""Half of what int64 holds: the difference of two sums fits, too."""

Int64s = NDArray[np.int64]
Int32s = NDArray[np.int32]


class Intervals(Struct, frozen=True, eq=False):
    """Events with a duration; `name` is an index into `Trace.names`, `thread` into `Trace.threads`.

    `resolution_ns` is the distance of neighboring float64 times in the file, at least 1: 250 at 1.7e15 us.
    """

    resolution_ns: int
    start_ns: Int64s
    dur_ns: Int64s
    name: Int32s
    thread: Int32s


class Frames(Intervals, frozen=True, eq=False):
    """Calls of Python functions; empty unless stacks were recorded.

    `caller` is the row of the calling frame, NO_CALLER for an outermost one, UNKNOWN_CALLER where the ids do not tell.
    """

    caller: Int32s


class Spans(Intervals, frozen=True, eq=False):
    """All other events with a duration: operators, annotations, launching calls, kernels, copies and so on."""

    kind: NDArray[np.int8]
    external: Int64s  # id of the operator, on operators and on the device work they launched; 0: none
    correlation: Int64s  # the same number on a launching call and on its device work; 0: none
    copied: Int64s  # bytes of a device copy or fill
    flops: Int64s
    sequence: Int64s  # of operators: that of the node of autograd's graph which they run or may create; -1: none
    shapes: Int32s  # index into Trace.shapes; 0: none recorded
    detail: Int32s  # index into Trace.details; 0: none recorded


class Allocations(Struct, frozen=True, eq=False):
    """Memory events: `moved` bytes were allocated, or freed where negative."""

    start_ns: Int64s
    thread: Int32s
    moved: Int64s
    address: Int64s
    allocated: Int64s  # total on the device after the event, from its allocator; -1: not recorded
    reserved: Int64s  # total that the allocator holds, used or not; -1: not recorded
    device_type: Int64s  # 0: CPU, 1: CUDA, 6: HIP, 12: XPU, 20: private
    device_id: Int64s  # -1 on CPU


class Flows(Struct, frozen=True, eq=False):
    """Links from forward to backward operators, one row per end; the two ends of a link share `flow`."""

    start_ns: Int64s
    thread: Int32s
    flow: Int32s
    start: NDArray[np.int8]  # 1 on the forward end


class Thread(Struct, frozen=True):
    """A thread of the host, or a stream of a device."""

    pid: int | str
    tid: int | str
    label: str


class Trace(Struct, frozen=True, eq=False, dict=True):  # `dict`: for cached properties
    """One window of one rank.

    `rank`: the rank in the distributed job, 0 where neither the file nor its name tells it; `rank_note`: how it is
    known, None if the file simply says it. `left_out`: further members of its zip file; `duplicates`: the same trace,
    packed, in the same folder. `too_large`: number of sizes and counts that were changed, as they are negative or
    their sum would not fit into 64 bits.

    `counts`: events by the file's category; `ignored`: those that no analysis uses, see `Columns`. `cut`: why the
    events end early, None for a whole file. `unreadable`: number of places that were skipped; `damage`: the first.
    `timeless`: number of events without a usable time, which were left out; `distant`: number of events that are far
    from the rest, but too many to be left out, see `usable_times`. `mended`: number of events that were readable after
    a repair. `renamed`: number of operators that became annotations, see `annotations_among_operators`. `origin_ns`:
    the file's time at nanosecond 0.
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
    distant: int
    renamed: int
    origin_ns: int
    rank: int
    rank_note: str | None
    left_out: list[str]
    duplicates: list[str]
    too_large: int
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
        """Whether every event could be read, and there is anything to analyze."""
        return self.cut is None and not self.unreadable and not self.timeless and not self.blank

    @property
    def blank(self) -> bool:
        """Whether there is no operator, annotation, Python function, device work or memory event to analyze."""
        return not (self._work.size or self.frames.start_ns.size or self.allocations.start_ns.size)

    @property
    def rank_known(self) -> bool:
        """Whether the file or its name tells the rank."""
        info = self.header.get("distributedInfo")
        return self.rank_note is not None or (isinstance(info, dict) and "rank" in info)

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
    def device_names(self) -> list[str]:
        """The devices of the machine, as the header lists them."""
        devices = self.header.get("deviceProperties")
        if not isinstance(devices, list):
            return []
        return [str(device.get("name", "?")) for device in devices if isinstance(device, dict)]

    @cached_property
    def extent_ns(self) -> tuple[int, int]:
        """Start and end of all operators, annotations and device work; (0, 0) if the trace is `blank`.

        If there are none, those of Python functions; if there are none either, those of memory events.
        """
        spans, frames, work = self.spans, self.frames, self._work
        start, dur = (spans.start_ns[work], spans.dur_ns[work]) if work.size else (frames.start_ns, frames.dur_ns)
        if not start.size:
            start = self.allocations.start_ns
            dur = np.zeros_like(start)
        return (int(start.min()), int((start + dur).max())) if start.size else (0, 0)

    @cached_property
    def _work(self) -> NDArray[np.intp]:
        return self.rows(Kind.OPERATOR, Kind.ANNOTATION, Kind.KERNEL, Kind.COPY, Kind.SET)

    def rows(self, *kinds: Kind) -> NDArray[np.intp]:
        """Rows of `spans` that are of any of these kinds, in file order."""
        return np.flatnonzero(np.logical_or.reduce([self.spans.kind == kind for kind in kinds]))


def read_trace(path: str | Path, names: FolderNames | None = None, begun: SecondHalf | None = None) -> Trace:
    """Read one trace: a file, plain or packed, a member of a zip file, a pipe, or standard input (`-`).

    `names` is given where several files are read, so that their folder is listed only once for their ranks. `begun` is
    the process that already reads the second half of this or of another file.

    A file that is cut short or damaged is read as far as possible; `cut`, `unreadable` and `damage` then say so.

    Raises TraceError if it cannot be opened or contains no trace.
    """
    path = Path(path)
    columns = Columns()
    try:
        second = begun if begun is not None and begun.path == path else second_half(path)
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
    return _assemble(reader, columns, names or FolderNames())


def read_traces(path: str | Path, begun: SecondHalf | None = None) -> list[Trace]:
    """Read every trace at a path, see `find_traces` and `split_ranks`; for `begun`, see `read_trace`.

    Raises TraceError if there is none, or if one of them is unreadable.
    """
    return [part for trace in iterate_traces(path, begun) for part in split_ranks(trace)]


def iterate_traces(path: str | Path, begun: SecondHalf | None = None) -> Iterator[Trace]:
    """Read the files at a path one by one, without splitting merged ranks.

    Raises TraceError as `read_traces`.
    """
    files = find_traces(path)
    names = FolderNames()
    duplicates: dict[Path, list[str]] = {}
    if Path(path).is_dir():
        for folder in {file.parent for file in files}:
            duplicates |= duplicates_in(folder)
    for file in files:
        yield replace(read_trace(file, names, begun), duplicates=duplicates.get(file, []))


def split_ranks(trace: Trace) -> list[Trace]:
    """Split the trace of a file into which several ranks were merged, by rank; the trace alone if it has one rank.

    Raises TraceError if the events of the ranks cannot be told apart.
    """
    spans, pids = trace.spans, [str(thread.pid) for thread in trace.threads]
    events = Events(pids, spans.thread, spans.name, spans.kind, spans.start_ns, spans.correlation)
    try:
        ranks, of_thread = parts(events, trace.process_labels)
    except TraceError as error:
        raise TraceError(f"{trace.path}: {error}") from None
    if not ranks:
        return [trace]
    merged = {part.label: part.rank for part in ranks}
    frames = replace(trace.frames, caller=callers_within(trace.frames.caller, of_thread[trace.frames.thread]))
    others = (frames, trace.allocations, trace.flows)
    rows_of = [dict(by_value(of_thread[table.thread])) for table in others]
    none = np.empty(0, dtype=np.intp)
    traces = []
    for i, part in enumerate(ranks):
        own = [(table, rows.get(i, none)) for table, rows in zip(others, rows_of, strict=True)]
        (own_spans, frames, allocations, flows), threads = select([(spans, part.rows), *own])
        traces.append(
            replace(
                trace,
                rank=part.rank,
                rank_note=None,
                merged=merged,
                threads=[trace.threads[number] for number in threads],
                spans=own_spans,
                frames=frames,
                allocations=allocations,
                flows=flows,
            )
        )
    return traces


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
        for name in list(source):
            column = source.pop(name)  # so that its memory is free as soon as it is appended
            renumbered = numbers[name][_view(column)] if name in numbers else _view(column)
            target[name].frombytes(renumbered.view(np.uint8).data)  # without the copy that `tobytes` makes


def _view(column: "array[Any]") -> NDArray[Any]:
    """View an array's storage as a numpy column, of the same type and without a copy."""
    return np.frombuffer(column, dtype=column.typecode) if column else np.empty(0, dtype=column.typecode)


def _assemble(reader: EventReader, columns: Columns, names: FolderNames) -> Trace:
    """Build the trace: leave out events without a usable time, convert times to nanoseconds, mend old layouts."""
    tables = columns.tables()
    ts = [_view(table["ts"]) for table in tables]
    dur = [_view(table["dur"]) if "dur" in table else np.zeros(len(table["ts"])) for table in tables]
    usable = usable_times(np.concatenate(ts), np.concatenate(dur))
    keep = np.split(usable.keep, np.cumsum([times.size for times in ts])[:-1])
    starts = [times if mask.all() else times[mask] for times, mask in zip(ts[:3], keep, strict=False)]
    origin = int(min((start.min() for start in starts if start.size), default=0.0) // 1)
    threads, thread_numbers = one_spelling(list(columns.threads))

    def fill(table: dict[str, Any], mask: NDArray[np.bool_]) -> dict[str, Any]:
        whole = bool(mask.all())
        filled: dict[str, Any] = {
            name: _view(column) if whole else _view(column)[mask] for name, column in table.items()
        }
        if len(threads) < thread_numbers.size:
            filled["thread"] = thread_numbers[filled["thread"]]
        if "dur" in filled:
            filled["dur_ns"] = durations(filled.pop("dur"))
            filled["resolution_ns"] = resolution_ns(filled["ts"])
        filled["start_ns"] = nanoseconds(filled.pop("ts"), origin)
        return filled

    spans, frames, memory, flows = (fill(table, mask) for table, mask in zip(tables, keep, strict=True))
    frames["caller"] = caller_rows(frames["thread"], frames.pop("id"), frames["caller"])
    annotations = annotations_among_operators(columns, spans["name"], spans["kind"], spans["shapes"])
    spans["kind"][annotations] = Kind.ANNOTATION
    counts, levels = ((spans, "copied"), (spans, "flops")), ((memory, "allocated"), (memory, "reserved"))
    too_large = sum(_reduce(table, name, lowest=0) for table, name in counts)
    too_large += sum(_reduce(table, name, lowest=-_MAX_SUM) for table, name in ((memory, "moved"), *levels))
    rank, rank_note = rank_of(reader.header, reader.path, names)
    labels = {(str(pid), str(tid)): label for (pid, tid), label in columns.thread_labels.items()}
    return Trace(
        path=reader.path,
        header=reader.header,
        counts=dict(sorted(columns.counts.items())),
        ignored=+columns.ignored,
        cut=reader.cut,
        unreadable=reader.unreadable,
        damage=reader.damage,
        mended=reader.mended,
        timeless=usable.keep.size - int(np.count_nonzero(usable.keep)),
        distant=usable.distant,
        renamed=int(np.count_nonzero(annotations)),
        origin_ns=origin * 1000,
        rank=rank,
        rank_note=rank_note,
        left_out=reader.left_out,
        duplicates=[],
        too_large=too_large,
        process_labels=columns.process_labels,
        merged={},
        names=list(columns.names),
        threads=[Thread(pid, tid, labels.get((str(pid), str(tid)), f"{pid}/{tid}")) for pid, tid in threads],
        shapes=[_text(shape) for shape in columns.shapes],
        details=list(columns.details),
        spans=Spans(**spans),
        frames=Frames(**frames),
        allocations=Allocations(**memory),
        flows=Flows(**flows),
    )


def _reduce(table: dict[str, NDArray[Any]], name: str, lowest: int) -> int:
    """Limit the values of a column to `lowest`, and so that their sum is within `_MAX_SUM`; return how many changed."""
    column = table[name]
    if not column.size:
        return 0
    limit, least, most = _MAX_SUM, int(column.min()), int(column.max())
    if max(most, -least) * column.size > _MAX_SUM and np.abs(column.astype(np.float64)).sum() > _MAX_SUM:
        limit = _MAX_SUM // column.size
    lowest = max(-limit, lowest)
    if lowest <= least and most <= limit:
        return 0
    table[name] = column.clip(lowest, limit)
    return int(np.count_nonzero(table[name] != column))


def _text(shapes: bytes) -> str:
    """Format shapes as Python does, independent of spaces in the file; unchanged if they are not valid JSON."""
    try:
        return str(msgspec.json.decode(shapes)) if shapes else ""
    except (ValueError, RecursionError):
        return shapes.decode("utf-8", "replace")
