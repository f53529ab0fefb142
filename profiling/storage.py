"""Files that are written whole or not at all, and JSON with a schema version."""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

MAX_RECORD_BYTES = 16 << 20
"""Readers of files that others made refuse larger records: decoded JSON takes about twenty times its size in memory."""

WITHIN_VARIABLE = "ABTRACE_WITHIN"
"""Environment variable with the resolved path of a folder: records outside of it, where links lead, are not read."""

S = TypeVar("S", bound=msgspec.Struct)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, remove it otherwise.

    Readers see the old file or the complete new one, also when the process is killed or the disk is full.

    Raises:
        OSError: with `path` as its `filename`, also where the error itself names no file.
    """
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")  # keeps the suffix: torch compresses by it
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.strerror and error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(record: msgspec.Struct, path: Path) -> Path:
    """Write `record` to `path` as indented JSON, atomically.

    Raises:
        ValueError: it could not be read back, for example because a number is not finite; nothing is written.
    """
    content = msgspec.json.encode(record)
    try:
        msgspec.json.decode(content, type=type(record))
    except msgspec.ValidationError as error:
        raise ValueError(f"{path}: this record could not be read back: {error}") from error
    with atomic_write(path) as temporary:
        temporary.write_bytes(msgspec.json.format(content, indent=1))
    return path


def read_json(path: Path, kinds: Mapping[int, type[S]], description: str) -> S:
    """Read a file that `write_json` wrote.

    Raises:
        FileNotFoundError: there is none.
        ValueError: as `decode_json`, or as `read_bounded` within WITHIN_VARIABLE; the message begins with `path`.
    """
    try:
        return decode_json(read_bounded(path, os.environ.get(WITHIN_VARIABLE)), kinds, description)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_bounded(path: Path, within: str | Path | None) -> bytes:
    """Read a file that others may have made, on whose content the caller can wait and have memory for.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no file, larger than MAX_RECORD_BYTES, or outside of the folder `within`, which is resolved.
    """
    try:
        found = path.stat()
    except OSError as error:
        if os.path.lexists(path):  # a link to itself, or to nothing
            raise ValueError("not a file") from error
        raise
    if not stat.S_ISREG(found.st_mode):  # reading a named pipe would block
        raise ValueError("not a file")
    if within is not None and not path.resolve().is_relative_to(within):
        raise ValueError("a link that leads out of the logdir")
    if found.st_size > MAX_RECORD_BYTES:
        raise ValueError(f"larger than {MAX_RECORD_BYTES >> 20} MiB")
    return path.read_bytes()


def decode_json(content: bytes, kinds: Mapping[int, type[S]], description: str) -> S:
    """Decode JSON as the kind of its `schema_version`; content that names no version is taken to be of the newest.

    Raises:
        ValueError: it is not `description` ("a run record"), or of another version; the message is one line.
    """
    try:
        version = msgspec.json.decode(content, type=_Version).schema_version
        kind = kinds.get(max(kinds) if version is None else version)
        if kind is not None:
            return msgspec.json.decode(content, type=kind)
    except (ValueError, RecursionError) as error:  # also bytes that are not text, and brackets nested too deep
        raise ValueError(f"not {description}: {error}") from error
    raise ValueError(f"schema version {version}, this program reads {' and '.join(map(str, sorted(kinds)))}")


def walk_folders(root: Path) -> Iterator[tuple[Path, set[str]]]:
    """Walk a folder and those below it, each with the names of its files; what is left out says `walk_entries`."""
    return ((folder, file_names(entries)) for folder, entries in walk_entries(root))


def walk_entries(root: Path) -> Iterator[tuple[Path, list[os.DirEntry[str]]]]:
    """Walk a folder and those below it, each with all that it contains.

    Left out are folders that are hidden, such as `.git` and `.venv`, that are links, or that cannot be read. It is a
    loop because folders may be nested deeper than Python's recursion limit.
    """
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as entries:
                readable = [entry for entry in entries if is_unicode(entry.name)]
            yield folder, readable
            pending += [
                folder / entry.name
                for entry in readable
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
            ]
        except OSError:  # removed meanwhile, not readable, or nested deeper than a path can name
            continue


def file_names(entries: Iterable[os.DirEntry[str]]) -> set[str]:
    """Return the names of those that are files, or links to files."""
    return {entry.name for entry in entries if _is_file(entry)}


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself, or into a folder that cannot be entered
        return False


def is_unicode(name: str) -> bool:
    """Tell whether a file's name can be written in JSON and in a URL: on Linux it may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Version(msgspec.Struct, frozen=True):
    """Read first: in another version, the other fields may have other names."""

    schema_version: int | None = None
