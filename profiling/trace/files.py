"""Which files of a folder are traces. Imports no numpy: the TensorBoard tab lists runs without it."""

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from profiling.errors import nearest
from profiling.storage import is_unicode, walk_folders
from profiling.trace.parse import Text, TraceError

NAMED = (".pt.trace.json", ".pt.trace.json.gz")
JSON = (".json", ".json.gz")


def find_traces(path: str | Path) -> list[Path]:
    """List the traces at a path: the file itself, those in the folder, or else every `*.pt.trace.json[.gz]` below it.

    They are sorted by folder, then by the time in the name.

    Raises TraceError if there is none.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.exists():
        neighbors = [str(entry) for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise TraceError(f"{path}: no such file or folder{nearest(str(path), neighbors)}")
    try:
        below = (folder / name for folder, names in walk_folders(path) for name in names if name.endswith(NAMED))
        traces = traces_in(path) or sorted(below, key=_window_order)
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror or error}") from None
    if traces:
        return traces
    raise TraceError(f"{path}: no *.pt.trace.json, *.pt.trace.json.gz or other trace in this folder")


def traces_in(folder: Path) -> list[Path]:
    """List the traces in a folder: files named `*.pt.trace.json[.gz]`, else JSON files that begin like a trace.

    Raises OSError if the folder cannot be listed.
    """
    return traces_among(trace_candidates(folder))


def trace_candidates(folder: Path) -> list[Path]:
    """List what may be the traces in a folder, from names alone: files named as traces, else all JSON files.

    A link to another one of them is left out. Raises OSError if the folder cannot be listed.
    """
    files = [file for file in folder.iterdir() if file.name.endswith(JSON) and is_unicode(file.name) and file.is_file()]
    return _distinct([file for file in files if file.name.endswith(NAMED)] or files)


def traces_among(candidates: Sequence[Path]) -> list[Path]:
    """Sort candidates of one folder by time; those that are not named as traces are read, and must begin like one."""
    return sorted((f for f in candidates if f.name.endswith(NAMED) or _holds_events(f)), key=_window_order)


def _distinct(files: Sequence[Path]) -> list[Path]:
    links = {file for file in files if file.is_symlink()}
    if not links:
        return list(files)
    distinct = {file.resolve(): file for file in sorted(links, reverse=True)}
    distinct |= {file.resolve(): file for file in files if file not in links}
    return list(distinct.values())


def _holds_events(path: Path) -> bool:
    stat = path.stat()
    return _begins_like_a_trace(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)  # TensorBoard lists the same files at every reload
def _begins_like_a_trace(path: Path, size: int, mtime_ns: int) -> bool:
    try:
        text = Text(path)
    except OSError:  # for example without permission to read
        return False
    try:
        return b'"traceEvents"' in text.read()
    finally:
        text.close()


def _window_order(path: Path) -> tuple[str, Sequence[int], str]:
    """Sort by folder, then by the time in `<worker>.<time>.pt.trace.json`, as a number."""
    return str(path.parent), [int(number) for number in re.findall(r"\.(\d+)\.", path.name)], path.name
