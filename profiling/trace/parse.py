"""Trace files as batches of typed events: chunked reading, decoding, and what can be saved from broken files.

The text is never held whole. A block is cut after the last event that seems to end in it and is decoded in one call of
msgspec; text that decodes as a list *is* a list, so a wrong guess about where events end fails rather than misleads.
Such a block is then walked event by event with the forgiving parser of the standard library, which also finds the byte
position and the reason of whatever is broken.

Measured on the 96 MB of 259 thousand events: blocks of 256 KiB decode in 0.15 s, blocks of 16 MiB in 0.25 s, since
the objects of a small block are still in the cache when they are turned into columns.
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

BLOCK_BYTES = 1 << 18
MAX_EVENT_BYTES = 8 << 20
"""No torch.profiler event comes near 8 MiB; text that goes on longer without one is not a trace."""
MAX_HEADER_BYTES = 16 << 20
MAX_TEXT_BYTES = 16 << 30
MAX_EVENTS = 40_000_000
"""Reading stops here, and says so: about 15 GB of trace, 3 GB of columns."""


S = TypeVar("S", bound=Struct)


class TraceError(Exception):
    """A file that holds no readable trace at all; the message is one line: what, where, why."""


class Args(Struct, gc=False):
    """The fields of an event's `args` that some analysis reads; 0, -1 or empty where the event has none."""

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
    elements: int = field(name="In msg nelems", default=0)
    dtype: Raw = Raw(b"")
    label: Raw = field(name="name", default=Raw(b""))


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
    """What could not be read: the byte of the (unpacked) text, and why."""

    byte: int
    reason: str


_EVENT_KEYS = rb'"(?:ph|name|cat|pid|tid|ts|dur|args|id|s|bp)"'
_EVENT = re.compile(rb"\{\s*" + _EVENT_KEYS)
EDGE = re.compile(rb"\}(\s*),\s*\{\s*" + _EVENT_KEYS)
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
        """Give the next block, or b"" at the end; `fault` then says if it came too early."""
        return next(self._blocks, b"")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _plain(self) -> Iterator[bytes]:
        """Read up to `stop`, which may be lifted meanwhile."""
        while True:
            left = BLOCK_BYTES if self.stop is None else self.stop - self._file.tell()
            yield self._file.read(min(left, BLOCK_BYTES))

    def _unpacked(self) -> Iterator[bytes]:
        unzip, packed, whole = zlib.decompressobj(wbits=31), b"", False
        while packed := packed or self._file.read(BLOCK_BYTES):
            try:
                text = unzip.decompress(packed, BLOCK_BYTES)  # bounded: a gzip bomb unfolds block by block
            except zlib.error as error:
                self.fault = f"the gzip data is damaged ({error})"
                return
            packed, whole = unzip.unconsumed_tail, unzip.eof
            if whole:  # another member may follow
                packed, unzip = unzip.unused_data.lstrip(b"\0"), zlib.decompressobj(wbits=31)
            if text:
                yield text
        if tail := unzip.flush():
            yield tail
        if not whole:
            self.fault = "the gzip data is cut short"


class EventReader:
    """Iterate over the events of one file, in batches; afterwards the attributes tell how it went.

    `header`: the top-level keys other than `traceEvents`. `cut`: why the events end early, or None for a whole file.
    `unreadable`: the number of places where text had to be skipped; `damage`: the first of them. `mended`: events that
    were readable once a bare `N/A` or a stray backslash was put right.

    `start` is the byte of an event's first character, 0 for the whole file. `stop` is where another reader starts:
    `stopped` then says that an event ended there; if none does, reading goes on to the end of the file.

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
        self._offset = start  # of the first byte that is not decoded
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
        events = barren = 0
        while not self._ended and self.cut is None:
            block = text.read()
            batch, left = self._decode(rest, block)
            if not block and len(left) == len(rest):
                batch, left = self._walk(rest, final=text.stop is None)
                if len(left) == len(rest) and text.stop is None:
                    break
                if not left:
                    self.stopped = text.stop is not None
                text.stop = None
            self._offset += len(rest) + len(block) - len(left)
            rest = left
            events += len(batch)
            barren = 0 if batch else barren + len(block)
            if batch:
                yield batch
            if self.stopped:
                return
            self._check_limits(events, barren)
        if self._ended:
            self._close(rest, text)
        elif self.cut is None:
            self.cut = f"cut short at byte {self._offset}: {text.fault or 'the list of events is not closed'}"

    def _check_limits(self, events: int, barren: int) -> None:
        if barren > MAX_EVENT_BYTES:
            self.cut = f"reading stopped at byte {self._offset}: no event ends within {MAX_EVENT_BYTES >> 20} MiB"
        elif events > MAX_EVENTS or self._offset > MAX_TEXT_BYTES:
            self.cut = (
                f"reading stopped at byte {self._offset}: the limit is {MAX_EVENTS:,} events "
                f"or {MAX_TEXT_BYTES >> 30} GiB of text"
            )

    def _open(self, text: Text) -> bytes:
        """Read up to the first event; keep what the header says."""
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
        found = ", ".join(" ".join(key.split())[:40] for key in keys[:8])
        wrong = "its traceEvents are no list" if "traceEvents" in keys else f"no traceEvents, only {found}"
        raise TraceError(f"{self.path}: not a torch.profiler trace: {wrong}")

    def _start(self, buffer: bytes, start: int) -> bytes:
        self._offset = start
        return buffer[start:]

    def _close(self, buffer: bytes, text: Text) -> None:
        """Read what stands behind the events: on-demand traces put `distributedInfo` there."""
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
        """Decode what is complete in the text; give the events, and the text behind them.

        The text becomes a list in its own buffer, as every further copy of it would cost a tenth of the decoding.
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
        """Read event by event: slower by a factor of ten, but sure about layout and damage."""
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
        """Read the event at a position; give where it ends, or None if its end is not in the buffer yet."""
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
    """Where the comma stands that seems to end the last event which another one follows."""
    for reach in (1 << 13, len(buffer)):
        if edges := deque(EDGE.finditer(buffer, max(0, len(buffer) - reach)), maxlen=1):
            return edges[0].end(1)
    return None


def _mend(text: bytes) -> bytes:
    """Put right what writers are known to get wrong: Windows paths, and bare words where a value should stand."""
    return _BARE_WORD.sub(rb"\1null", _BAD_ESCAPE.sub(rb"\\\\", text))


def _typed(text: bytes) -> Event:
    """Decode one event, leaving out fields of an unexpected type rather than the event.

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
    """Parse with the standard library, which takes half a surrogate pair for a character; then no file can hold it."""
    value = json.loads(text.decode("utf-8", "replace"), strict=False)
    clean = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    return json.loads(clean)


def _lenient(target: S, values: dict[str, Any]) -> S:
    """Set the fields whose values have, or can be given, the right type."""
    for info in structs.fields(target):
        if info.encode_name in values:
            with suppress(msgspec.ValidationError):
                value = values[info.encode_name]
                if info.type is Raw:
                    value = Raw(msgspec.json.encode(value))
                setattr(target, info.name, msgspec.convert(value, info.type, strict=False))
    return target
