"""Trace files as batches of typed events: reading in blocks, decoding, and recovery from damage.

The text is never in memory as a whole. A block is cut after the last event that seems to end in it, and is decoded in
one call of msgspec. If the cut is wrong, decoding fails; it cannot return wrong events. Such a block is decoded event
by event with the more tolerant parser of the standard library, which also reports where and why the text is damaged.
"""

import json
import math
import re
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct, field, structs

from profiling.format import size

BLOCK_BYTES = 1 << 18
"""Small, so that decoded objects are still in the processor's cache when they are turned into columns."""
MAX_EVENT_BYTES = 8 << 20
"""Events of torch.profiler are far shorter; longer text in which no event ends is not a trace."""
MAX_HEADER_BYTES = 16 << 20
MAX_TEXT_BYTES = 16 << 30
MAX_EVENTS = 40_000_000
"""Reading stops after this many events, which limits the memory of the columns; `EventReader.cut` then says so."""

S = TypeVar("S", bound=Struct)


class TraceError(Exception):
    """A trace cannot be read or compared at all; the message is one line: what, where, why."""


class Args(Struct, gc=False):
    """The fields of an event's `args` that an analysis uses; 0, -1 or empty where the event has none."""

    external: int = field(name="External id", default=0)
    shapes: Raw = field(name="Input Dims", default=Raw(b""))
    reserved: int = field(name="Total Reserved", default=-1)
    allocated: int = field(name="Total Allocated", default=-1)
    moved: int = field(name="Bytes", default=0)
    device_id: int = field(name="Device Id", default=-1)
    device_type: int = field(name="Device Type", default=0)
    address: int = field(name="Addr", default=0)
    correlation: int = 0
    copied: int = field(name="bytes", default=0)
    flops: int = 0
    grid: Raw = Raw(b"")
    block: Raw = Raw(b"")
    registers: float = field(name="registers per thread", default=-1.0)
    blocks_per_sm: float = field(name="blocks per SM", default=-1.0)
    occupancy: float = field(name="est. achieved occupancy %", default=-1.0)
    collective: str = field(name="Collective name", default="")
    group: Raw = field(name="Process Group Name", default=Raw(b""))
    group_size: int = field(name="Group size", default=0)
    group_ranks: Raw = field(name="Process Group Ranks", default=Raw(b""))
    call: Raw = field(name="Seq", default=Raw(b""))
    elements: int = field(name="In msg nelems", default=-1)
    dtype: Raw = Raw(b"")
    label: Raw = field(name="name", default=Raw(b""))
    labels: Raw = Raw(b"")


class Event(Struct, gc=False):
    """One entry of `traceEvents`; `ts` and `dur` in microseconds, NaN and 0 where the entry has none."""

    ph: str = ""
    cat: str | None = None
    name: str = ""
    pid: int | str = 0
    tid: int | str = 0
    ts: float = math.nan
    dur: float = 0.0
    args: Args | None = None
    id: int | str | None = None


class Damage(Struct, frozen=True):
    """Text that could not be read: its byte position in the uncompressed text, and why."""

    byte: int
    reason: str


_EVENT_KEYS = rb'"(?:ph|name|cat|pid|tid|ts|dur|args|id|s|bp)"'
_EVENT = re.compile(rb"\{\s*" + _EVENT_KEYS)
EDGE = re.compile(rb"\}(\s*),\s*\{\s*" + _EVENT_KEYS)
"""What seems to be the end of one event and the start of the next; the comma is at the end of group 1."""
_OPENING = re.compile(rb'"traceEvents"\s*:\s*\[')
_SPACE = re.compile(rb"\s*")
_BAD_ESCAPE = re.compile(rb'\\(?![\\"/bfnrt]|u[0-9a-fA-F]{4})')
_BARE_WORD = re.compile(rb"([:\[,]\s*)(?:N/A|n/a|-?nan(?:\(ind\))?|-?inf|None|undefined)(?=\s*[,\]}])")

_decode_batch = msgspec.json.Decoder(list[Event]).decode
_decode_event = msgspec.json.Decoder(Event, strict=False).decode
_scanner = json.JSONDecoder(strict=False)
_UNREADABLE = (ValueError, RecursionError, msgspec.DecodeError)


class Text:
    """The unpacked bytes of a trace file, in blocks; gzip is recognized by its content, not by its name."""

    def __init__(self, path: Path, start: int = 0, stop: int | None = None) -> None:
        self.fault: str | None = None
        self.stop = stop
        self._file = path.open("rb")
        self._file.seek(start)
        packed = start == 0 and self._file.peek(2)[:2] == b"\x1f\x8b"
        self._blocks = self._unpacked() if packed else self._plain()

    def read(self) -> bytes:
        """Return the next block, or b"" at the end; `fault` then says why the text ends early, None if it is whole."""
        return next(self._blocks, b"")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _plain(self) -> Iterator[bytes]:
        """Read up to `stop`, or to the end of the file once `stop` is None."""
        while True:
            remaining = BLOCK_BYTES if self.stop is None else self.stop - self._file.tell()
            yield self._file.read(min(remaining, BLOCK_BYTES))

    def _unpacked(self) -> Iterator[bytes]:
        unzip, packed, whole = zlib.decompressobj(wbits=31), b"", False
        while packed := packed or self._file.read(BLOCK_BYTES):
            try:
                text = unzip.decompress(packed, BLOCK_BYTES)  # bounded, as a small file may unpack to a huge text
            except zlib.error as error:
                self.fault = f"the gzip data is damaged ({error})"
                return
            packed, whole = unzip.unconsumed_tail, unzip.eof
            if whole:  # another gzip member may follow
                packed, unzip = unzip.unused_data.lstrip(b"\0"), zlib.decompressobj(wbits=31)
            if text:
                yield text
        if tail := unzip.flush():
            yield tail
        if not whole:
            self.fault = "the gzip data is cut short"


class EventReader:
    """Iterate over the events of one file, in batches; the attributes are complete at the end of the iteration.

    `header`: the top-level keys other than `traceEvents`. `cut`: why the events end early, or None for a whole file.
    `unreadable`: the number of places where text had to be skipped; `damage`: the first of them. `mended`: events that
    were readable after repairing a bare word such as `N/A` or a stray backslash.

    `start` is the byte of an event's first character, 0 for the whole file. `stop` is the byte at which another reader
    starts. `stopped` is True if an event ended just before it; otherwise reading goes on to the end of the file.

    Raises TraceError, on iteration, if the file is not a trace.
    """

    def __init__(self, path: Path, start: int = 0, stop: int | None = None) -> None:
        self.path = path
        self.stopped = False
        self.header: dict[str, Any] = {}
        self.cut: str | None = None
        self.unreadable = 0
        self.mended = 0
        self.damage: Damage | None = None
        self._offset = start  # position of the first byte that is not decoded yet
        self._stop = stop
        self._ended = False

    def __iter__(self) -> Iterator[list[Event]]:
        text = Text(self.path, self._offset, self._stop)
        try:
            yield from self._batches(text)
        finally:
            text.close()

    def _batches(self, text: Text) -> Iterator[list[Event]]:
        rest = b"" if self._offset else self._open(text)
        events = bytes_without_event = 0
        while not self._ended and self.cut is None:
            block = text.read()
            batch, undecoded = self._decode(rest, block)
            if not block and len(undecoded) == len(rest):  # the end, or `stop`: the last event has no EDGE after it
                batch, undecoded = self._walk(rest, final=text.stop is None)
                if len(undecoded) == len(rest) and text.stop is None:
                    break
                if not undecoded:
                    self.stopped = text.stop is not None
                text.stop = None
            self._offset += len(rest) + len(block) - len(undecoded)
            rest = undecoded
            events += len(batch)
            bytes_without_event = 0 if batch else bytes_without_event + len(block)
            if batch:
                yield batch
            if self.stopped:
                return
            self._check_limits(events, bytes_without_event)
        if self._ended:
            self._close(rest, text)
        elif self.cut is None:
            self.cut = f"cut short at byte {self._offset}: {text.fault or 'the list of events is not closed'}"

    def _check_limits(self, events: int, bytes_without_event: int) -> None:
        if bytes_without_event > MAX_EVENT_BYTES:
            self.cut = f"reading stopped at byte {self._offset}: no event ends within {size(MAX_EVENT_BYTES)}"
        elif events > MAX_EVENTS or self._offset > MAX_TEXT_BYTES:
            self.cut = (
                f"reading stopped at byte {self._offset}: the limit is {MAX_EVENTS:,} events "
                f"or {size(MAX_TEXT_BYTES)} of text"
            )

    def _open(self, text: Text) -> bytes:
        """Read the header; return the text from the first event on."""
        buffer = b""
        while block := text.read():
            buffer += block
            start = _SPACE.match(buffer).end()  # type: ignore[union-attr]  # it matches everywhere
            first = buffer[start : start + 1]
            if first == b"[":
                return self._start(buffer, start + 1)
            if first not in (b"{", b"") or (first == b"" and len(buffer) > MAX_EVENT_BYTES):
                raise TraceError(f"{self.path}: not JSON (byte {start}: {buffer[start : start + 20]!r})")
            if opening := _OPENING.search(buffer):
                self._read_header(buffer[start : opening.start()].rstrip().rstrip(b",") + b"}")
                return self._start(buffer, opening.end())
            if len(buffer) > MAX_HEADER_BYTES:
                break
        if not buffer.strip():
            raise TraceError(f"{self.path}: {text.fault or 'the file is empty'}")
        try:
            keys = list(_loads(buffer))
        except _UNREADABLE as error:
            reason = text.fault or f"the file ends before its events, or is no trace ({error})"
            raise TraceError(f"{self.path}: no traceEvents within {len(buffer)} bytes: {reason}") from None
        names = ", ".join(" ".join(key.split())[:40] for key in keys[:8])
        wrong = "its traceEvents are no list" if "traceEvents" in keys else f"no traceEvents, only {names}"
        raise TraceError(f"{self.path}: not a torch.profiler trace: {wrong}")

    def _start(self, buffer: bytes, start: int) -> bytes:
        self._offset = start
        return buffer[start:]

    def _close(self, buffer: bytes, text: Text) -> None:
        """Read the keys after the events: on-demand traces have `distributedInfo` there."""
        while len(buffer) < MAX_HEADER_BYTES and (block := text.read()):
            buffer += block
        rest = buffer.strip().lstrip(b",")
        if rest and rest != b"}":
            self._read_header(b"{" + rest)

    def _read_header(self, text: bytes) -> None:
        for attempt in (text, _mend(text)):
            try:
                self.header |= _loads(attempt)
            except (*_UNREADABLE, TypeError):
                continue
            return
        self._note(self._offset, "the keys around traceEvents cannot be read")

    def _note(self, byte: int, reason: str) -> None:
        self.unreadable += 1
        if self.damage is None:
            self.damage = Damage(byte, reason)

    def _decode(self, rest: bytes, block: bytes) -> tuple[list[Event], bytes]:
        """Decode the complete events of the text; return them, and the text after them.

        The text is turned into a JSON list inside its own buffer, which saves a slow copy.
        """
        buffer = bytearray(b"[" + rest)
        buffer += block
        comma = _last_comma(buffer)
        if comma is not None:
            buffer[comma] = ord("]")
            try:
                return _decode_batch(memoryview(buffer)[: comma + 1]), bytes(buffer[comma + 1 :])
            except _UNREADABLE:
                buffer[comma] = ord(",")
        text = bytes(buffer[1:])
        if comma is None and len(text) < MAX_EVENT_BYTES:
            return [], text
        return self._walk(text, final=False)

    def _walk(self, buffer: bytes, *, final: bool) -> tuple[list[Event], bytes]:
        """Decode event by event: much slower, but without guessing where events end, and it locates damage."""
        events: list[Event] = []
        text = buffer.decode("latin-1")  # one character per byte, so that positions are byte positions
        at = 0
        while True:
            at = _SPACE.match(buffer, at).end()  # type: ignore[union-attr]
            mark = text[at : at + 1]
            if mark == ",":
                at += 1
            elif mark == "]":
                self._ended = True
                return events, buffer[at + 1 :]
            elif mark == "":
                return events, b""
            else:
                end = self._read_one(buffer, text, at, events, final=final)
                if end is None:
                    return events, buffer[at:]
                at = end

    def _read_one(self, buffer: bytes, text: str, at: int, events: list[Event], *, final: bool) -> int | None:
        """Decode the event at `at`; return where it ends, or None if its end is not in the buffer yet."""
        try:
            value, end = _scanner.raw_decode(text, at)
            if isinstance(value, dict):
                events.append(_typed(buffer[at:end]))
                return end
            position, reason = at, "not an event"
        except json.JSONDecodeError as error:
            position, reason = error.pos, error.msg
        except _UNREADABLE as error:
            position, reason = at, str(error) or type(error).__name__
        resume = _EVENT.search(buffer, at + 1)
        # These errors may only mean that the event goes on in the next block.
        unfinished = position >= len(buffer) - 8 or reason.startswith("Unterminated string") or resume is None
        if unfinished and not final and len(buffer) - at < MAX_EVENT_BYTES // 8:
            return None
        end = resume.start() if resume else len(buffer)
        if resume is None and final and position >= len(buffer) - 8:
            return None  # the file was cut inside this event
        try:
            events.append(_typed(_mend(buffer[at:end]).rstrip().rstrip(b",")))
            self.mended += 1
        except _UNREADABLE:
            self._note(self._offset + position, reason)
        return end


def _last_comma(buffer: bytearray) -> int | None:
    """Position of the last comma that seems to separate two events, None if there is none."""
    for reach in (1 << 13, len(buffer)):  # usually it is near the end
        if edges := deque(EDGE.finditer(buffer, max(0, len(buffer) - reach)), maxlen=1):
            return edges[0].end(1)
    return None


def _mend(text: bytes) -> bytes:
    """Repair two known errors of writers: single backslashes in Windows paths, and bare words instead of values."""
    return _BARE_WORD.sub(rb"\1null", _BAD_ESCAPE.sub(rb"\\\\", text))


def _typed(text: bytes) -> Event:
    """Decode one event; fields of an unexpected type are left out.

    Raises ValueError or msgspec.DecodeError if the text is not an object.
    """
    try:
        return _decode_event(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        loose = _loads(text)
    if not isinstance(loose, dict):
        raise ValueError("not an event")
    args = loose.pop("args", None)
    event = Event()
    event.args = _lenient(Args(), args) if isinstance(args, dict) else None
    return _lenient(event, loose)


def _loads(text: bytes) -> Any:
    """Parse with the standard library; lone surrogates, which it accepts but UTF-8 cannot encode, become `?`."""
    value = json.loads(text.decode("utf-8", "replace"), strict=False)
    clean = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    return json.loads(clean)


def _lenient(target: S, values: dict[str, Any]) -> S:
    """Set the fields of `target` whose values have the right type or can be converted to it."""
    for info in structs.fields(target):
        if info.encode_name in values:
            with suppress(msgspec.ValidationError):
                value = values[info.encode_name]
                if info.type is Raw:
                    value = Raw(msgspec.json.encode(value))
                setattr(target, info.name, msgspec.convert(value, info.type, strict=False))
    return target
