"""The text of a trace file, in blocks of UTF-8: whatever it is packed with, from a file, a pipe or standard input.

Packing and encoding are recognized by content, not by name. Everything is read once and in order, which a pipe needs,
and unpacked in blocks, as a small file may unpack to a huge text.
"""

import codecs
import errno
import importlib
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import IO, Any

from profiling.format import size
from profiling.storage import is_unicode

BLOCK_BYTES = 1 << 18
"""Small, so that decoded objects are still in the processor's cache when they are turned into columns."""
MAX_TEXT_BYTES = 16 << 30
STDIN = Path("-")
_MAX_LAYERS = 4
"""A download is at most a gzip file in a zip file; more layers are a bomb."""
_MAX_ZIP_LIST_BYTES = 1 << 20
"""Length of a zip file's list of members, of which one takes about a hundred bytes."""
_DEFLATE, _GZIP = -15, 31  # `wbits` of zlib


class Text:
    """The text of a file, of a member of a zip file (`traces.zip/rank0.json`) or of standard input (`-`).

    `fault`: why the text ends early, complete once `read` has returned b"". `left_out`: further JSON members of the
    zip file, where the path names none of them. `start` and `stop` are bytes of a plain file. No layer of packing
    yields more than about `limit_bytes`.

    Raises OSError if the file cannot be read.
    """

    def __init__(self, path: Path, start: int = 0, stop: int | None = None, limit_bytes: int = MAX_TEXT_BYTES) -> None:
        self.fault: str | None = None
        self.left_out: list[str] = []
        self.stop = stop
        self._limit_bytes = limit_bytes
        file, self._member = split_member(path)
        self._file: IO[bytes] = os.fdopen(os.dup(0), "rb") if file == STDIN else file.open("rb")
        if self._member:
            start_of_member = zip_members(file).get(self._member)
            if start_of_member is None:
                self._file.close()
                raise FileNotFoundError(errno.ENOENT, "the zip file has no such member", str(path))
            self._file.seek(start_of_member)
        elif start:
            self._file.seek(start)
        self._blocks = self._plain() if start else self._unpacked(_Stream(self._plain()))

    def read(self) -> bytes:
        """Return the next block, or b"" at the end."""
        return next(self._blocks, b"")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _plain(self) -> Iterator[bytes]:
        """Read up to `stop`, or to the end of the file once `stop` is None."""
        while True:
            remaining = BLOCK_BYTES if self.stop is None else self.stop - self._file.tell()
            yield self._file.read(min(remaining, BLOCK_BYTES))

    def _unpacked(self, stream: "_Stream") -> Iterator[bytes]:
        packings: tuple[tuple[bytes, Callable[[_Stream], Iterator[bytes]]], ...] = (
            (b"\x1f\x8b", self._gunzip),
            (b"PK\3\4", self._unzip),
            (b"\x28\xb5\x2f\xfd", self._unzstd),
        )
        for _ in range(_MAX_LAYERS + 1):
            head = stream.peek(4)
            unpack = next((unpack for magic, unpack in packings if head.startswith(magic)), None)
            if unpack is None:
                yield from _utf8(stream, json.detect_encoding(head))
                return
            stream = _Stream(self._limited(unpack(stream)))
        self.fault = f"it is packed more than {_MAX_LAYERS} times"

    def _limited(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        total = 0
        for block in blocks:
            if block:
                yield block
            total += len(block)
            if total > self._limit_bytes:
                self.fault = f"it unpacks to more than {size(self._limit_bytes)}"
                return

    def _gunzip(self, stream: "_Stream") -> Iterator[bytes]:
        unzip, packed, whole = zlib.decompressobj(wbits=_GZIP), b"", False
        while packed := packed or stream.read():
            try:
                text = unzip.decompress(packed, BLOCK_BYTES)
            except zlib.error as error:
                self.fault = f"the gzip data is damaged ({error})"
                return
            packed, whole = unzip.unconsumed_tail, unzip.eof
            if whole:  # another gzip member may follow
                packed, unzip = unzip.unused_data.lstrip(b"\0"), zlib.decompressobj(wbits=_GZIP)
            yield text
        yield unzip.flush()
        if not whole:
            self.fault = self.fault or "the gzip data is cut short"

    def _unzstd(self, stream: "_Stream") -> Iterator[bytes]:
        zstd = _zstd()
        if zstd is None:
            self.fault = (
                "zstandard data, which this Python cannot unpack: pip install backports.zstd, or unpack it with zstd -d"
            )
            return
        unpack = zstd.ZstdDecompressor()
        while packed := stream.read():
            try:
                yield unpack.decompress(packed, BLOCK_BYTES)
                while not (unpack.needs_input or unpack.eof):
                    yield unpack.decompress(b"", BLOCK_BYTES)
            except zstd.ZstdError as error:
                self.fault = f"the zstandard data is damaged ({error})"
                return
            if unpack.eof:  # another frame may follow
                stream.put_back(unpack.unused_data)
                if not stream.peek(1):
                    return
                unpack = zstd.ZstdDecompressor()
        self.fault = self.fault or "the zstandard data is cut short"

    def _unzip(self, stream: "_Stream") -> Iterator[bytes]:
        """Unpack the member that the path names, else the first JSON file. The headers before members suffice.

        Source: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3.7 to 4.3.9
        """
        names: list[str] = []
        found = False
        while (header := stream.take(30))[:4] == b"PK\3\4" and len(header) == 30:
            flags, method, packed_bytes, name_bytes, extra_bytes = struct.unpack("<6xHH8xI4xHH", header)
            name = stream.take(name_bytes).decode("utf-8", "replace")
            stream.take(extra_bytes)
            names = [*names, name][:8]
            if flags & 1:
                self.fault = f"the zip file's {name} is encrypted: unpack it first"
                return
            wanted = bool(self._member) or is_json(name)
            blocks = self._inflate(stream, name, flags, method, packed_bytes)
            if wanted and not found:
                found = True
                yield from blocks
                if self._member:
                    return
            else:
                self.left_out += [name] * wanted
                for _ in blocks:
                    pass
            if self.fault:
                return
        if not header.startswith((b"PK\1\2", b"PK\5\6")):
            self.fault = self.fault or "the zip file is cut short or damaged"
        elif not found:
            self.fault = (
                f"the zip file holds no {self._member or 'JSON file'}, only {', '.join(names[:8]) or 'nothing'}"
            )

    def _inflate(self, stream: "_Stream", name: str, flags: int, method: int, packed_bytes: int) -> Iterator[bytes]:
        """Unpack a member; then `stream` is at the next header."""
        size_is_behind = bool(flags & 8)
        if method == 8:
            unzip = zlib.decompressobj(wbits=_DEFLATE)
            packed = b""
            while not unzip.eof and (packed := packed or stream.read()):
                try:
                    yield unzip.decompress(packed, BLOCK_BYTES)
                except zlib.error as error:
                    self.fault = f"the zip file's {name} is damaged ({error})"
                    return
                packed = unzip.unconsumed_tail
            if not unzip.eof:
                self.fault = self.fault or "the zip file is cut short"
            stream.put_back(unzip.unused_data)
        elif method == 0 and packed_bytes < 0xFFFFFFFF and not (size_is_behind and not packed_bytes):
            while packed_bytes and (block := stream.take(min(packed_bytes, BLOCK_BYTES))):
                packed_bytes -= len(block)
                yield block
            if packed_bytes:
                self.fault = self.fault or "the zip file is cut short"
        else:
            self.fault = f"the zip file's {name} is packed by method {method}: unpack it first"
            return
        if size_is_behind:
            behind = stream.peek(28)
            ends = [at for magic in (b"PK\3\4", b"PK\1\2") if (at := behind.find(magic)) >= 0]
            stream.take(min(ends, default=len(behind)))


class _Stream:
    """Blocks, of which some bytes can be taken or looked at. The blocks may go on after an empty one."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = b""

    def read(self) -> bytes:
        """Return the next block, of any length; b"" at the end."""
        rest, self._rest = self._rest, b""
        return rest or next(self._blocks, b"")

    def peek(self, count: int) -> bytes:
        """Return the next bytes without taking them; fewer at the end."""
        while len(self._rest) < count and (block := next(self._blocks, b"")):
            self._rest += block
        return self._rest[:count]

    def take(self, count: int) -> bytes:
        """Take the next bytes; fewer at the end."""
        taken = self.peek(count)
        self._rest = self._rest[count:]
        return taken

    def put_back(self, data: bytes) -> None:
        """Put bytes before those that are left."""
        self._rest = data + self._rest


def _utf8(stream: _Stream, encoding: str) -> Iterator[bytes]:
    """Convert to UTF-8 without a byte order mark. Plain text goes on after an empty block, see `Text.stop`."""
    if encoding == "utf-8":
        while True:
            yield stream.read()
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    while block := stream.read():
        if text := decoder.decode(block):
            yield text.encode("utf-8", "replace")
    yield decoder.decode(b"", final=True).encode("utf-8", "replace")


def split_member(path: Path) -> tuple[Path, str | None]:
    """Split `traces.zip/rank0.json` into the file and the member's name; other paths name no member."""
    if path != STDIN and not path.exists():
        for file in path.parents:
            if file.is_file() and zip_members(file):
                return file, path.relative_to(file).as_posix()
    return path, None


def zip_members(file: Path) -> dict[str, int]:
    """Map the JSON members of a zip file to the bytes where they start.

    Empty for other files, and for zip files that are damaged or hold too many; these can only be read as a whole.
    """
    try:
        stat = file.stat()
        return _zip_members(file, stat.st_size, stat.st_mtime_ns) if S_ISREG(stat.st_mode) else {}
    except (OSError, ValueError):
        return {}


@lru_cache(maxsize=64)
def _zip_members(path: Path, size_bytes: int, mtime_ns: int) -> dict[str, int]:
    """List as `zip_members`. `mtime_ns` is part of the cache key. Raises OSError or ValueError."""
    import zipfile  # slow to import, and most traces are no zip files

    with path.open("rb") as file:
        if file.read(4) != b"PK\3\4":
            return {}
        file.seek(max(0, size_bytes - (1 << 16)))
        tail = file.read(1 << 16)
        end = tail.rfind(b"PK\5\6")
        if end < 0 or len(tail) < end + 22 or struct.unpack_from("<I", tail, end + 12)[0] > _MAX_ZIP_LIST_BYTES:
            return {}
        try:
            with zipfile.ZipFile(file) as packed:
                entries = {str(PurePosixPath(entry.filename)): entry.header_offset for entry in packed.infolist()}
        except (zipfile.BadZipFile, NotImplementedError):
            return {}
    return {name: start for name, start in entries.items() if is_json(name) and _is_inside(PurePosixPath(name))}


def _is_inside(member: PurePosixPath) -> bool:
    """Tell whether a member's name can be a path below the zip file, which names from elsewhere need not be."""
    return not member.is_absolute() and ".." not in member.parts and is_unicode(str(member))


def is_json(name: str) -> bool:
    """Tell whether a name is that of a JSON file, packed or not; hidden files and those that macOS adds are not."""
    base = name.rpartition("/")[2].lower()
    return base.endswith((".json", ".json.gz", ".json.zst")) and not base.startswith(".") and "__MACOSX/" not in name


def _zstd() -> Any:
    """The standard library's module, from Python 3.14 on, or its backport; None without."""
    for name in ("compression.zstd", "backports.zstd"):
        with suppress(ImportError):
            return importlib.import_module(name)
    return None
