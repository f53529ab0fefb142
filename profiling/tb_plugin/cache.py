"""A disk cache of gzipped answers in the user's cache folder: `ab...f0.answer`, one file for each key.

A key is a hash of everything that the answer depends on, so an entry can be old but never wrong. An entry begins with a
checksum. The folder may be deleted at any time. Entries are written atomically, so several TensorBoards may share it.
"""

import hashlib
import os
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

from platformdirs import user_cache_path
from tensorboard.util import tb_logging

from profiling.storage import atomic_write

VERSION = 2
MAX_BYTES = 512 << 20
_GZIP = 31  # `wbits` of zlib: gzip format, largest window

SUFFIX = ".answer"
_DIGEST_BYTES = 32

logger = tb_logging.get_logger()


class Cache:
    """The folder. If it cannot be written, answers are not cached, and one warning is logged."""

    def __init__(self, folder: Path | None = None, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder or user_cache_path("abtrace", appauthor=False) / "tensorboard"
        self._max_bytes = max_bytes
        self._warned = False

    def get(self, key: str) -> bytes | None:
        """Return the gzipped bytes of an entry and mark it as most recently used; None if there is none.

        An entry that is damaged is removed.
        """
        path = self._path(key)
        try:
            content = path.read_bytes()
            digest, packed = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
            if digest != _digest(key, packed):
                path.unlink()
                return None
            with suppress(OSError):
                os.utime(path)
        except OSError:
            return None
        return packed

    def put(self, key: str, packed: bytes) -> None:
        """Store gzipped bytes; remove the least recently used entries if the folder exceeds `max_bytes`."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with atomic_write(self._path(key)) as temporary:
                temporary.write_bytes(_digest(key, packed) + packed)
            self._evict()
        except OSError as error:
            if not self._warned:
                logger.warning("A/B Trace keeps no answers: %s cannot be written (%s)", self._folder, error.strerror)
                self._warned = True

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{SUFFIX}"

    def _evict(self) -> None:
        entries = []
        for path in self._folder.glob(f"*{SUFFIX}"):
            with suppress(OSError):  # another TensorBoard removed it
                stat = path.stat()
                entries.append((stat.st_mtime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self._max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size


def key(question: Iterable[str], files: Iterable[Path]) -> str:
    """Return a hash of a question, of this program, and of the path, size and time of each file behind the answer.

    Raises OSError if a file does not exist.
    """
    digest = hashlib.sha256()
    for part in (str(VERSION), *question):
        digest.update(f"{part}\0".encode())
    for file in (*files, *_sources()):
        stat = file.stat()
        digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def packed(content: IO[bytes]) -> bytes:
    """Return the gzipped content of a file, read in pieces; the fastest compression level."""
    packer = zlib.compressobj(1, wbits=_GZIP)
    pieces = [packer.compress(piece) for piece in iter(lambda: content.read(1 << 20), b"")]
    return b"".join([*pieces, packer.flush()])


def _sources() -> list[Path]:
    """List the source files that compute the answers: in a checkout they change without a new version number."""
    return sorted(Path(__file__).parents[1].rglob("*.py"))


def _digest(key: str, packed: bytes) -> bytes:
    """The checksum that an entry begins with; of its key, too, so that a renamed entry is not taken for another."""
    return hashlib.sha256(key.encode() + packed).digest()
