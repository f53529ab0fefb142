"""Which files of a folder are traces. Needs no numpy: the TensorBoard tab lists runs by the same rule."""

import os
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from profiling.parse import Text, TraceError

NAMED = (".pt.trace.json", ".pt.trace.json.gz")
JSON = (".json", ".json.gz")


def find_traces(path: str | Path) -> list[Path]:
    """List the traces at a path: the file itself, those in a folder, or else every `*.pt.trace.json[.gz]` below it.

    Windows come in the order of their times.

    Raises TraceError if there is none.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.exists():
        near = _nearest(path)
        raise TraceError(f"{path}: no such file or folder" + (f"; did you mean {near}?" if near else ""))
    try:
        below = (folder / name for folder, names in folders(path) for name in names if name.endswith(NAMED))
        found = traces_in(path) or sorted(below, key=_window_order)
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror or error}") from None
    if found:
        return found
    raise TraceError(f"{path}: no *.pt.trace.json, *.pt.trace.json.gz or other trace in this folder")


def traces_in(folder: Path) -> list[Path]:
    """List the traces directly in a folder: files that are named like one, else other JSON files that begin like one.

    Raises OSError if the folder cannot be listed.
    """
    files = [file for file in folder.iterdir() if file.name.endswith(JSON) and _is_text(file.name) and file.is_file()]
    named = [file for file in files if file.name.endswith(NAMED)]
    return sorted(named or filter(_holds_events, files), key=_window_order)


def folders(root: Path) -> Iterator[tuple[Path, set[str]]]:
    """Walk a folder and those below it, each with the names of its files.

    Left out are folders that are hidden, such as `.git` and `.venv`, that are links, or that cannot be read. It is a
    loop, as folders may be nested deeper than calls.
    """
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as entries:
                found = [entry for entry in entries if _is_text(entry.name)]
            yield folder, {entry.name for entry in found if _is_file(entry)}
            pending += [
                folder / entry.name
                for entry in found
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
            ]
        except OSError:  # gone meanwhile, not ours to read, or nested deeper than a path can name
            continue


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself, or into a folder that is not ours to enter
        return False


def _is_text(name: str) -> bool:
    """Whether a name can stand in JSON and in an address: on Linux a name may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _holds_events(path: Path) -> bool:
    stat = path.stat()
    return _begins_like_a_trace(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)  # TensorBoard asks again and again
def _begins_like_a_trace(path: Path, size: int, mtime_ns: int) -> bool:
    try:
        text = Text(path)
    except OSError:  # not ours to read
        return False
    try:
        return b'"traceEvents"' in text.read()
    finally:
        text.close()


def _window_order(path: Path) -> tuple[str, Sequence[int], str]:
    """Sort by folder, then by the time in `<worker>.<time>.pt.trace.json`, as a number."""
    return str(path.parent), [int(number) for number in re.findall(r"\.(\d+)\.", path.name)], path.name


def _nearest(path: Path) -> Path | None:
    from difflib import get_close_matches

    if not path.parent.is_dir():
        return None
    near = get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    return path.with_name(near[0]) if near else None
