"""The runs below a logdir, and the paths that their names stand for.

A *run* is a folder that directly holds traces; its name is its path relative to the logdir, "." for the logdir itself.
A *window* is one of its traces, `RUN/FILE`.

Links are followed inside the logdir. A run to which several paths lead is listed once, with its other names in `links`.
Nothing outside the logdir is read: `links_out` names what is missing for that reason. A record that is a link out of
the logdir is not read either, and `record_error` says so.
"""

import threading
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePath

import msgspec
from msgspec import Struct

from profiling import run_record
from profiling.storage import read_bounded, walk_folders
from profiling.tb_plugin.folders import Folder, Link, leads_out, walk
from profiling.trace.files import natural_order, trace_candidates, traces_among
from profiling.vocabulary import COMPARED_ARMS, COMPARISON_FILE

SCHEMA_VERSION = 1


class NotFoundError(Exception):
    """A name that matches nothing inside the logdir; the message is one line."""


class WindowInfo(Struct, frozen=True):
    """One trace file; `stage` comes from the run's record."""

    file: str
    stage: str | None
    bytes: int
    mtime_s: float


class RunInfo(Struct, frozen=True):
    """One run. Without a record, `name` is that of the folder. `comparison` is the folder of the arm's comparison.

    `links` are the run's other names, through links.
    """

    run: str
    name: str
    status: str | None
    started: str | None
    windows: list[WindowInfo]
    record: bool
    record_error: str | None
    comparison: str | None
    arm: str | None
    links: list[str]


class Listing(Struct, frozen=True):
    """The answer of the route `runs`; `comparisons` is the number of comparisons.

    `links_out` names the folders and traces that are left out because they are links that lead out of the logdir.
    """

    schema_version: int
    runs: list[RunInfo]
    comparisons: int
    links_out: list[str]


class Logdir:
    """The folder, read anew on each call: it may appear, change and disappear."""

    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None
        self._lock = threading.Lock()
        self._search: threading.Thread | None = None
        self._next_search_s = 0.0
        self._known: Path | None = None

    @property
    def root(self) -> Path:
        """The folder itself, resolved. Raises NotFoundError if there is none."""
        try:
            if self._path is not None and self._path.is_dir():
                return self._path.resolve()
        except OSError:
            pass
        raise NotFoundError("TensorBoard was started without a logdir, or the folder is gone")

    def listing(self) -> Listing:
        """List every run, in alphabetical order, with numbers by their value."""
        root = self.root
        found = list(walk(root))
        links = [link for link in found if isinstance(link, Link)]
        links_out = [str(link.name) for link in links if link.target is None]
        runs, comparisons = [], 0
        for folder in found:
            if isinstance(folder, Link):
                continue
            comparisons += _holds_comparison(root, folder)
            traces, out = _traces(root, folder.path)
            links_out += [str(folder.name / file.name) for file in out]
            if traces:
                with suppress(OSError):  # a file was removed during the listing
                    runs.append(_describe(root, folder, traces, links))
        return Listing(
            schema_version=SCHEMA_VERSION,
            runs=sorted(runs, key=lambda run: natural_order(run.run)),
            comparisons=comparisons,
            links_out=sorted(links_out),
        )

    def holds_traces(self, wait_s: float = 0.2) -> bool:
        """Return whether there is something to show or to say: a trace, a comparison, or one that a link keeps out.

        Wait at most `wait_s` for the search in the background.
        """
        with self._lock:
            searching = self._search is not None and self._search.is_alive()
            known = self._known is not None and self._known.exists()
            if not known and not searching and time.monotonic() >= self._next_search_s:
                self._search = threading.Thread(target=self._find_any, name="abtrace-search", daemon=True)
                self._search.start()
            search = self._search
        if not known and search is not None:
            search.join(wait_s)
        return self._known is not None

    def _find_any(self) -> None:
        start = time.monotonic()
        known = None
        try:
            root = self.root
            for found in walk(root):
                if isinstance(found, Link):
                    known = root / found.name if found.target is None else None
                elif files := [file for some in _traces(root, found.path) for file in some]:
                    known = files[0]
                elif COMPARISON_FILE in found.files:
                    known = found.path / COMPARISON_FILE
                if known is not None:
                    break
        except NotFoundError:
            pass
        self._known = known
        # The pause grows with the duration of a search, so searching takes at most a tenth of the time.
        self._next_search_s = time.monotonic() + 10 * (time.monotonic() - start)

    def run(self, name: str) -> tuple[Path, list[Path]]:
        """Return the path of `RUN` or `RUN/FILE`, and its traces.

        Raises NotFoundError if it is neither a run nor a window.
        """
        root = self.root
        if inside(root, name).is_dir():
            folder, file = inside(root, name), None
        else:
            folder = inside(root, str(PurePath(name).parent))
            file = folder / PurePath(name).name
        traces, out = _traces(root, folder)
        if file in traces:
            return file, [file]
        if file is not None or not traces:
            raise NotFoundError(f"{name!r} is no run and no trace in the logdir")
        if out:
            raise NotFoundError(f"{name!r} holds a link that leads out of the logdir; choose one of its windows")
        return folder, traces

    def records(self, name: str) -> list[Path]:
        """Return what else the views of a run or window depend on: its record, and that of the comparison it is in."""
        root = self.root
        folder = inside(root, name)
        if not folder.is_dir():
            folder = inside(root, str(PurePath(name).parent))
        found = [folder.parent / COMPARISON_FILE] if folder != root else []
        with suppress(NotFoundError):  # a link out of the logdir, which is not read
            found += [file] if (file := _record(root, folder)) else []
        return [file for file in found if file.is_file()]

    def comparisons(self) -> list[Path]:
        """List the `comparison.json` of every comparison."""
        root = self.root
        return [folder / COMPARISON_FILE for folder, names in walk_folders(root) if COMPARISON_FILE in names]


def inside(root: Path, name: str) -> Path:
    """Resolve a relative name below `root`, which is already resolved.

    Raises NotFoundError if it does not exist, is absolute, contains `..`, or is a link to a path outside `root`.
    """
    try:
        if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise ValueError
        path = (root / name).resolve(strict=True)
        if not path.is_relative_to(root):
            raise ValueError
    except (OSError, ValueError, RuntimeError):  # also for NUL, too long names, and links in a loop
        raise NotFoundError(f"there is no {name!r} here") from None
    return path


def _traces(root: Path, folder: Path) -> tuple[list[Path], list[Path]]:
    """List the traces of a folder, and the links among them that lead out of the logdir; these are not read."""
    try:
        candidates = trace_candidates(folder)
        out = [file for file in candidates if leads_out(root, file)]
        return traces_among([file for file in candidates if file not in out]), out
    except (OSError, RuntimeError):
        return [], []


def _record(root: Path, folder: Path) -> Path | None:
    """Return the path of a folder's record, if it has one. Raises NotFoundError if it is a link out of the logdir."""
    file = folder / run_record.FILE_NAME
    if not file.is_file():  # reading a named pipe would block
        return None
    if leads_out(root, file):
        raise NotFoundError(f"{file.name} is a link that leads out of the logdir")
    return file


def _holds_comparison(root: Path, folder: Folder) -> bool:
    """Return whether the analysis of the ladder finds a comparison here: it follows no links to folders."""
    return COMPARISON_FILE in folder.files and folder.path == root / folder.name


def _describe(root: Path, folder: Folder, traces: list[Path], links: list[Link]) -> RunInfo:
    record = error = None
    stages: dict[str, str] = {}
    try:
        if file := _record(root, folder.path):
            stat = file.stat()
            result = _read_brief(file, stat.st_size, stat.st_mtime_ns)
            if isinstance(result, str):
                error = result
            else:
                record = result
                stages = {stage.trace.path: title for title, stage in record.stages.items() if stage.trace}
    except NotFoundError as reason:
        error = str(reason)
    parent = folder.path.parent
    is_arm = (
        folder.path.name in COMPARED_ARMS
        and folder.path == root / folder.name != root
        and (parent / COMPARISON_FILE).is_file()
    )
    return RunInfo(
        run=str(folder.name),
        name=record.name if record else folder.path.name,
        status=record.status if record else None,
        started=record.started if record else None,
        windows=[_window(file, stages.get(file.name)) for file in traces],
        record=record is not None,
        record_error=error,
        comparison=parent.relative_to(root).as_posix() if is_arm else None,
        arm=folder.path.name if is_arm else None,
        links=[
            str(link.name / folder.path.relative_to(link.target))
            for link in links
            if link.target is not None and folder.path.is_relative_to(link.target)
        ],
    )


def _window(file: Path, stage: str | None) -> WindowInfo:
    stat = file.stat()
    return WindowInfo(file=file.name, stage=stage, bytes=stat.st_size, mtime_s=stat.st_mtime)


class _BriefTrace(Struct):
    path: str


class _BriefStage(Struct):
    trace: _BriefTrace | None


class _Brief(Struct):
    """The fields of a record that the listing shows; decoding skips the timings, most of the file."""

    name: str
    status: str
    started: str
    stages: dict[str, _BriefStage]


@lru_cache(maxsize=4096)
def _read_brief(file: Path, size_bytes: int, mtime_ns: int) -> _Brief | str:
    """Read what `_record` returned, or say in one line why it cannot be read; size and time are part of the key."""
    try:
        return msgspec.json.decode(read_bounded(file, within=None), type=_Brief)
    except (OSError, ValueError, RecursionError) as error:
        return f"{file.name} is no run record: {error}"
