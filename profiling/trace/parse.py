"""Trace files as batches of typed events: reading in blocks, decoding, and recovery from damage.

The text is never in memory as a whole. A block is cut after the last event that seems to end in it, and is decoded in
one call of msgspec. If the cut is wrong, decoding fails; it cannot return wrong events. Such a block is decoded event
by event with the more tolerant parser of the standard library, which also reports where and why the text is damaged.
"""

import json
import re
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct, structs

from profiling.format import size
from profiling.trace.events import KNOWN_CATEGORIES, Args, Common, Event
from profiling.trace.foreign import describe_bytes, describe_list, describe_object
from profiling.trace.text import MAX_TEXT_BYTES, Text

MAX_EVENT_BYTES = 8 << 20
"""Events of torch.profiler are far shorter; longer text in which no event ends is not a trace."""
MAX_HEADER_BYTES = 16 << 20
MAX_EVENTS = 40_000_000
"""Reading stops after this many events, which limits the memory of the columns; `EventReader.cut` then says so."""

S = TypeVar("S", bound=Struct)


class TraceError(Exception):
    """A trace cannot be read or compared at all; the message is one line: what, where, why."""


class Damage(Struct, frozen=True):
    """Text that could not be read: its byte position in the uncompressed text, and why."""

    byte: int
    reason: str


_EVENT_KEYS = rb'"(?:ph|name|cat|pid|tid|ts|dur|args|id|s|bp)"'
_EVENT = re.compile(rb"\{\s*" + _EVENT_KEYS)
EDGE = re.compile(rb"\}(\s*),\s*\{\s*" + _EVENT_KEYS)
"""What seems to be the end of one event and the start of the next; the comma is at the end of group 1."""
_OPENING = re.compile(rb'"traceEvents"\s*:\s*\[')
_OVERLAP_BYTES = 256
"""Enough for what `_OPENING` matches, which may begin in one block and end in the next."""
_HEAD_BYTES = 512
"""Enough for what `describe_bytes` recognizes."""
_SPACE = re.compile(rb"\s*")
_SINGLE_VALUE = re.compile(rb'(?:"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null)\s*')
_BAD_ESCAPE = re.compile(rb'\\(?![\\"/bfnrt]|u[0-9a-fA-F]{4})')
_BARE_WORD = re.compile(rb"([:\[,]\s*)(?:N/A|n/a|-?nan(?:\(ind\))?|-?inf|None|undefined)(?=\s*[,\]}])")

_NO_EVENT = "not an event"

_BATCH_DECODERS: tuple[msgspec.json.Decoder[Any], ...] = (
    msgspec.json.Decoder(list[KNOWN_CATEGORIES]),
    msgspec.json.Decoder(list[Event]),
)
"""The first one takes less time, but only batches in which all categories are known."""
_decode_event = msgspec.json.Decoder(Event, strict=False).decode
_scanner = json.JSONDecoder(strict=False)
_UNREADABLE = (ValueError, RecursionError, msgspec.DecodeError)


class EventReader:
    """Iterate over the events of one file, in batches; the attributes are complete at the end of the iteration.

    `header`: the top-level keys other than `traceEvents`. `cut`: why the events end early, or None for a whole file.
    `unreadable`: the number of places where text had to be skipped; `damage`: the first of them. `mended`: events that
    were readable after repairing a bare word such as `N/A` or a stray backslash. `left_out`: see `Text`.

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
        self.left_out: list[str] = []
        self._offset = start  # position of the first byte that is not decoded yet
        self._stop = stop
        self._ended = False

    def __iter__(self) -> Iterator[list[Common]]:
        text = Text(self.path, self._offset, self._stop)
        try:
            yield from self._batches(text)
        finally:
            self.left_out = text.left_out
            text.close()

    def _batches(self, text: Text) -> Iterator[list[Common]]:
        is_first = not self._offset
        rest = self._open(text) if is_first else b""
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
            if is_first and batch and not events and not any(event.ph for event in batch):
                raise self._foreign("a list of objects, none of them an event")
            events += len(batch)
            bytes_without_event = 0 if batch else bytes_without_event + len(block)
            if batch:
                yield batch
            if self.stopped:
                return
            self._check_limits(events, bytes_without_event)
        if is_first and not events and self.damage and self.damage.reason == _NO_EVENT:
            raise self._foreign(f"none of its traceEvents is an event (the first is at byte {self.damage.byte})")
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
        buffer, block = b"", _head(text)
        while block:
            searched = max(len(buffer) - _OVERLAP_BYTES, 0)
            buffer += block
            start = _SPACE.match(buffer).end()  # type: ignore[union-attr]  # it matches everywhere
            first = buffer[start : start + 1]
            if first == b"[":
                if kind := describe_list(buffer[start : start + _OVERLAP_BYTES]):
                    raise self._foreign(kind)
                return self._start(buffer, start + 1)
            if first not in (b"{", b"") or (first == b"" and len(buffer) > MAX_EVENT_BYTES):
                head = buffer[start : start + _HEAD_BYTES]
                if _SINGLE_VALUE.fullmatch(buffer, start):
                    raise self._foreign("a single value")
                kind = describe_bytes(head)
                raise TraceError(f"{self.path}: not JSON (byte {start}: {head[:20]!r}){f': {kind}' if kind else ''}")
            if opening := _OPENING.search(buffer, searched):
                self._read_header(buffer[start : opening.start()].rstrip().rstrip(b",") + b"}")
                return self._start(buffer, opening.end())
            if len(buffer) > MAX_HEADER_BYTES:
                break
            block = text.read()
        if not buffer.strip():
            raise TraceError(f"{self.path}: {text.fault or 'the file is empty'}")
        reason = None
        try:
            _loads(buffer)
        except _UNREADABLE as error:
            reason = text.fault or f"the file ends before its events, or is no trace ({error})"
        if kind := describe_object(buffer, whole=reason is None):
            raise self._foreign(kind)
        raise TraceError(f"{self.path}: no traceEvents within {len(buffer)} bytes: {reason}")

    def _foreign(self, kind: str) -> TraceError:
        return TraceError(f"{self.path}: JSON, but no trace: {kind}")

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

    def _decode(self, rest: bytes, block: bytes) -> tuple[list[Common], bytes]:
        """Decode the complete events of the text; return them, and the text after them.

        The text is turned into a JSON list inside its own buffer, which saves a slow copy.
        """
        buffer = bytearray(b"[" + rest)
        buffer += block
        comma = _last_comma(buffer)
        if comma is not None:
            buffer[comma] = ord("]")
            for decoder in _BATCH_DECODERS:
                with suppress(*_UNREADABLE):
                    return decoder.decode(memoryview(buffer)[: comma + 1]), bytes(buffer[comma + 1 :])
            buffer[comma] = ord(",")
        text = bytes(buffer[1:])
        if comma is None and len(text) < MAX_EVENT_BYTES:
            return [], text
        return self._walk(text, final=False)

    def _walk(self, buffer: bytes, *, final: bool) -> tuple[list[Common], bytes]:
        """Decode event by event: much slower, but without guessing where events end, and it locates damage."""
        events: list[Common] = []
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

    def _read_one(self, buffer: bytes, text: str, at: int, events: list[Common], *, final: bool) -> int | None:
        """Decode the event at `at`; return where it ends, or None if its end is not in the buffer yet."""
        try:
            value, end = _scanner.raw_decode(text, at)
            if isinstance(value, dict):
                events.append(_typed(buffer[at:end]))
                return end
            position, reason = at, _NO_EVENT
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
        if resume is None and final and position >= len(buffer) - 8 and reason != _NO_EVENT:
            return None  # the file was cut inside this event
        try:
            events.append(_typed(_mend(buffer[at:end]).rstrip().rstrip(b",")))
            self.mended += 1
        except _UNREADABLE:
            self._note(self._offset + position, reason)
        return end


def begins_like_a_trace(text: Text) -> bool:
    """Tell whether a text has a list of events where `EventReader` looks for it, or is a list that begins with one."""
    block = _head(text)
    start = _SPACE.match(block).end()  # type: ignore[union-attr]  # it matches everywhere
    first = block[start : start + 1]
    if first == b"[":
        event = _EVENT.match(block, _SPACE.match(block, start + 1).end())  # type: ignore[union-attr]
        return event is not None and b'"ph"' in block
    tail, length = b"", 0
    while block and first in (b"{", b"") and length <= MAX_HEADER_BYTES:
        block = tail + block
        if _OPENING.search(block):
            return True
        length += len(block) - len(tail)
        tail, block = block[-_OVERLAP_BYTES:], text.read()
    return False


def _head(text: Text) -> bytes:
    """Return the beginning of a text, of `_OVERLAP_BYTES` at least unless it is shorter."""
    head = b""
    while len(head) < _OVERLAP_BYTES and (block := text.read()):
        head += block
    return head


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
        raise ValueError(_NO_EVENT)
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
