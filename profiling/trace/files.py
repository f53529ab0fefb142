"""Which files of a folder are traces. Imports no numpy: the TensorBoard tab lists runs without it."""

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from profiling.errors import nearest
from profiling.storage import file_names, is_unicode, walk_folders
from profiling.trace.parse import MAX_HEADER_BYTES, TraceError, begins_like_a_trace
from profiling.trace.text import STDIN, Text, split_member, zip_members

TRACE_NAME = re.compile(r"\.pt\.trace\.json(\.gz|\.zst|\.zip)?$")
TEXT_NAME = re.compile(r"\.(json(\.gz|\.zst)?|zip)$")
_NUMBER = re.compile(r"(\d+)", re.ASCII)
_PACKED_NAME = re.compile(r"(\.json)?(\.gz|\.zst|\.zip)?$")
_EXAMINED_MEMBERS = 20
"""The tab must not wait for the unpacking of a zip file with thousands of other JSON files."""


def find_traces(path: str | Path) -> list[Path]:
    """List the traces at a path: the file itself, those in the folder, or else those of every folder below it.

    A zip file stands for the traces in it, if it has several: `traces.zip/rank0.json`. Standard input (`-`) and pipes
    are not looked into. Traces are sorted by folder, then by the time in the name, numbers by their value.

    Raises TraceError if there is none.
    """
    path = Path(path)
    if path == STDIN or split_member(path)[1]:
        return [path]
    if not path.exists():
        if path.is_symlink():
            raise TraceError(f"{path}: a link that leads to no file or folder")
        neighbors = [str(entry) for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise TraceError(f"{path}: no such file or folder{nearest(str(path), neighbors)}")
    if not path.is_dir():
        return _members(path) or [path]  # a pipe has no members, and is not opened
    try:
        files = traces_in(path) or [
            file
            for folder, names in sorted(walk_folders(path), key=lambda entry: natural_order(entry[0]))
            if any(TEXT_NAME.search(name) for name in names)
            for file in traces_in(folder)
        ]
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror or error}") from None
    if files:
        return [trace for file in files for trace in _members(file) or [file]]
    raise TraceError(f"{path}: no *.pt.trace.json, *.pt.trace.json.gz or other trace in this folder")


def window_name(file: str | Path) -> str:
    """How the name of a trace begins: `vm_7_train` of `vm_7_train.1732.pt.trace.json`."""
    return Path(file).name.partition(".")[0]


def traces_in(folder: Path) -> list[Path]:
    """List the traces in a folder: files named `*.pt.trace.json[.gz|.zst|.zip]`, else JSON that begins like a trace.

    Of files that differ only in how they are packed, the unpacked one is listed.

    Raises OSError if the folder cannot be listed.
    """
    return traces_among(trace_candidates(folder))


def trace_candidates(folder: Path) -> list[Path]:
    """List what may be the traces in a folder, from names alone: files named as traces, else all text files.

    A link to another one of them is left out. Raises OSError if the folder cannot be listed.
    """
    with os.scandir(folder) as entries:  # which, unlike paths, tell files and links apart without a further look each
        texts = [entry for entry in entries if TEXT_NAME.search(entry.name) and is_unicode(entry.name)]
    names = file_names(texts)
    files = [entry for entry in texts if entry.name in names]
    return _distinct(folder, [entry for entry in files if TRACE_NAME.search(entry.name)] or files)


def traces_among(candidates: Sequence[Path]) -> list[Path]:
    """Sort candidates of one folder by time; those that are not named as traces are read, and must begin like one."""
    return sorted((first for first, *_ in _alike(candidates)), key=_window_order)


def duplicates_in(folder: Path) -> dict[Path, list[str]]:
    """Map traces of a folder to the names of the files that `traces_in` leaves out in their favor."""
    try:
        candidates = trace_candidates(folder)
        return {first: [file.name for file in others] for first, *others in _alike(candidates) if others}
    except OSError:  # for example a zip file, the folder of its members
        return {}


def natural_order(path: Path | str) -> list[list[tuple[int, str]]]:
    """Sort paths by their parts, with numbers by their value: `iteration_9` before `iteration_10`."""
    parts = path.split("/") if isinstance(path, str) else path.parts
    return [[(int(text) if text.isdecimal() else -1, text) for text in _NUMBER.split(part)] for part in parts]


def _distinct(folder: Path, entries: Sequence[os.DirEntry[str]]) -> list[Path]:
    files = [folder / entry.name for entry in entries]
    links = {folder / entry.name for entry in entries if entry.is_symlink()}
    if not links:
        return files
    distinct = {file.resolve(): file for file in sorted(links, reverse=True)}
    distinct |= {file.resolve(): file for file in files if file not in links}
    return list(distinct.values())


def _alike(candidates: Sequence[Path]) -> list[list[Path]]:
    """The traces among the candidates, in groups that differ only in how they are packed; the unpacked one first."""
    groups: dict[str, list[Path]] = {}
    for file in sorted(candidates, key=lambda file: (file.suffix != ".json", file.name)):
        if TRACE_NAME.search(file.name) or _holds_events(file):
            groups.setdefault(_PACKED_NAME.sub("", file.name), []).append(file)
    return list(groups.values())


def _holds_events(path: Path) -> bool:
    stat = split_member(path)[0].stat()
    return _begins_like_a_trace(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)  # TensorBoard lists the same files at every reload
def _begins_like_a_trace(path: Path, size: int, mtime_ns: int) -> bool:
    if members := [path / name for name in zip_members(path)][:_EXAMINED_MEMBERS]:
        return any(TRACE_NAME.search(member.name) or _begins_like_a_trace(member, size, mtime_ns) for member in members)
    try:
        text = Text(path, limit_bytes=MAX_HEADER_BYTES)
    except OSError:  # for example without permission to read
        return False
    try:
        return begins_like_a_trace(text)
    finally:
        text.close()


def _members(file: Path) -> list[Path]:
    """List the traces in a zip file with several JSON files; empty for other files."""
    members = [file / name for name in zip_members(file)]
    if len(members) < 2:
        return []
    named = [member for member in members if TRACE_NAME.search(member.name)]
    found = named or filter(_holds_events, members)
    return sorted(found, key=lambda member: (natural_order(member.parent), _window_order(member)))


def _window_order(path: Path) -> tuple[object, ...]:
    """Sort the traces of a folder by the time in `<worker>.<time>.pt.trace.json`."""
    times = [int(number) for number in re.findall(r"\.(\d+)\.", path.name)]
    return times, natural_order(path.name)
