"""The folders of a logdir, also those that links within it lead to, each of them once.

Nothing outside the logdir is read: of a link that leads out, only the name is known.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from profiling.storage import file_names, walk_entries


@dataclass(frozen=True)
class Folder:
    """A folder inside the logdir: its path there without links, and the names of its files.

    `name` is relative to the logdir. It contains a link where nothing else leads to the folder: links may lead to
    hidden folders, which are not searched otherwise.
    """

    name: PurePosixPath
    path: Path
    files: set[str]


@dataclass(frozen=True)
class Link:
    """A link to a folder that is found without it, too, or to one outside the logdir: `target` is None."""

    name: PurePosixPath
    target: Path | None


def walk(root: Path) -> Iterator[Folder | Link]:
    """Walk the folders of a logdir, whose path is resolved: at first those that are no links, then what links lead to.

    Left out is what `walk_entries` leaves out, and links that lead nowhere or to a folder that they lie in.
    """
    known: set[Path] = set()
    pending = [Link(PurePosixPath(), root)]
    while pending:
        link = pending.pop(0)
        if link.target is None or link.target in known:
            yield link
            continue
        for path, entries in walk_entries(link.target):
            if path not in known:
                known.add(path)
                name = link.name / path.relative_to(link.target).as_posix()
                yield Folder(name, path, file_names(entries))
                pending += _links(root, name, path, entries)


def leads_out(root: Path, path: Path) -> bool:
    """Return whether a path is a link that leads out of the folder `root`, which is resolved, or nowhere."""
    try:
        return path.is_symlink() and not path.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # removed in the meantime, or links in a loop
        return True


def _links(root: Path, name: PurePosixPath, folder: Path, entries: list[os.DirEntry[str]]) -> Iterator[Link]:
    for entry in sorted(entries, key=lambda entry: entry.name):
        try:
            if not entry.is_symlink() or not entry.is_dir() or entry.name.startswith("."):
                continue
            target = Path(entry.path).resolve(strict=True)
        except (OSError, RuntimeError):  # a link in a loop, or to a folder that cannot be entered
            continue
        if not target.is_relative_to(root):
            yield Link(name / entry.name, None)
        elif not folder.is_relative_to(target):
            yield Link(name / entry.name, target)
