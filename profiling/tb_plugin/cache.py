"""Answers kept on disk, gzipped, in the user's cache folder: `ab...f0.gz`, one file for each key.

A key says everything that the answer depends on, so an entry is never wrong, only old; the folder may be deleted at
any time. Entries are written whole or not at all, so several TensorBoards may share the folder.
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

VERSION = 1
MAX_BYTES = 512 << 20
_GZIP = 31  # zlib's name for its largest window in the format of gzip

logger = tb_logging.get_logger()


class Cache:
    """The folder; if it cannot be written, nothing is kept, and that is said once."""

    def __init__(self, folder: Path | None = None, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder or user_cache_path("abtrace", appauthor=False) / "tensorboard"
        self._max_bytes = max_bytes
        self._complained = False

    def get(self, key: str) -> bytes | None:
        """Give the gzipped bytes of an entry, which becomes the youngest; None if there is none."""
        path = self._path(key)
        try:
            packed = path.read_bytes()
            with suppress(OSError):
                os.utime(path)
        except OSError:
            return None
        return packed

    def put(self, key: str, packed: bytes) -> None:
        """Keep gzipped bytes, and remove the oldest entries beyond the folder's bound."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with atomic_write(self._path(key)) as temporary:
                temporary.write_bytes(packed)
            self._evict()
        except OSError as error:
            if not self._complained:
                logger.warning("A/B Trace keeps no answers: %s cannot be written (%s)", self._folder, error.strerror)
                self._complained = True

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.gz"

    def _evict(self) -> None:
        entries = []
        for path in self._folder.glob("*.gz"):
            with suppress(OSError):  # another TensorBoard removed it
                stat = path.stat()
                entries.append((stat.st_mtime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self._max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size


def key(asked: Iterable[str], files: Iterable[Path]) -> str:
    """Name an answer by what was asked, by the files it depends on, their sizes and times, and by this program.

    Raises OSError if a file is gone.
    """
    digest = hashlib.sha256()
    for part in (str(VERSION), *asked):
        digest.update(f"{part}\0".encode())
    for file in (*files, *_sources()):
        stat = file.stat()
        digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def packed(content: IO[bytes]) -> bytes:
    """Gzip what a file holds, piece by piece, and quickly rather than tightly."""
    packer = zlib.compressobj(1, wbits=_GZIP)
    pieces = [packer.compress(piece) for piece in iter(lambda: content.read(1 << 20), b"")]
    return b"".join([*pieces, packer.flush()])


def _sources() -> list[Path]:
    """List the files that compute the answers: in a checkout they change without a new version of the program."""
    return sorted(Path(__file__).parents[1].rglob("*.py"))
