"""The runs below a logdir, and the paths that their names stand for.

A *run* is a folder that directly holds traces; its name is its path relative to the logdir, "." for the logdir itself.
A *window* is one of its traces, `RUN/FILE`.

TensorBoard follows symbolic links, the tab does not. A folder that is a link is not searched: it would lead outside the
logdir or show the same runs twice. A trace that is a link is a window only if it points inside the logdir.
"""

import threading
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePath

import msgspec
from msgspec import Struct

from profiling import run_record
from profiling.format import size
from profiling.storage import MAX_RECORD_BYTES, walk_folders
from profiling.trace.files import natural_order, traces_in
from profiling.vocabulary import COMPARED_ARMS

SCHEMA_VERSION = 1
COMPARISON_FILE = "comparison.json"


class NotFoundError(Exception):
    """A name that matches nothing inside the logdir; the message is one line."""


class WindowInfo(Struct, frozen=True):
    """One trace file; `stage` comes from the run's record."""

    file: str
    stage: str | None
    bytes: int
    mtime_s: float


class RunInfo(Struct, frozen=True):
    """One run. Without a record, `name` is that of the folder. `comparison` is the folder of the arm's comparison."""

    run: str
    name: str
    status: str | None
    started: str | None
    windows: list[WindowInfo]
    record: bool
    record_error: str | None
    comparison: str | None
    arm: str | None


class Listing(Struct, frozen=True):
    """The answer of the route `runs`; `comparisons` is the number of comparisons."""

    schema_version: int
    runs: list[RunInfo]
    comparisons: int


class Logdir:
    """The folder, read anew on each call: it may appear, change and disappear."""

    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None
        self._lock = threading.Lock()
        self._search: threading.Thread | None = None
        self._next_search_s = 0.0
        self._known_file: Path | None = None

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
        runs, comparisons = [], 0
        for folder, names in walk_folders(root):
            comparisons += COMPARISON_FILE in names
            if traces := _inside(root, folder):
                with suppress(OSError):  # a file was removed during the listing
                    runs.append(_describe(root, folder, traces))
        return Listing(
            schema_version=SCHEMA_VERSION,
            runs=sorted(runs, key=lambda run: natural_order(run.run)),
            comparisons=comparisons,
        )

    def holds_traces(self, wait_s: float = 0.2) -> bool:
        """Return whether the logdir has a trace or a comparison; wait at most `wait_s` for the background search."""
        with self._lock:
            searching = self._search is not None and self._search.is_alive()
            known = self._known_file is not None and self._known_file.is_file()
            if not known and not searching and time.monotonic() >= self._next_search_s:
                self._search = threading.Thread(target=self._find_any, name="abtrace-search", daemon=True)
                self._search.start()
            search = self._search
        if not known and search is not None:
            search.join(wait_s)
        return self._known_file is not None

    def _find_any(self) -> None:
        start = time.monotonic()
        known_file = None
        try:
            root = self.root
            for folder, names in walk_folders(root):
                if traces := _inside(root, folder):
                    known_file = traces[0]
                elif COMPARISON_FILE in names:
                    known_file = folder / COMPARISON_FILE
                if known_file is not None:
                    break
        except NotFoundError:
            pass
        self._known_file = known_file
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
        traces = _inside(root, folder)
        if file in traces:
            return file, [file]
        if file is not None or not traces:
            raise NotFoundError(f"{name!r} is no run and no trace in the logdir")
        if len(traces) < len(traces_in(folder)):
            raise NotFoundError(f"{name!r} holds a link that leads out of the logdir; choose one of its windows")
        return folder, traces

    def record(self, name: str) -> Path:
        """Return the path of a run's record; a window stands for its run. Raises NotFoundError if there is none."""
        folder = name if inside(self.root, name).is_dir() else str(PurePath(name).parent)
        file = inside(self.root, f"{folder}/{run_record.FILE_NAME}")
        if not file.is_file():  # reading a named pipe would block
            raise NotFoundError(f"{name!r} has no record")
        return file

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


def _inside(root: Path, folder: Path) -> list[Path]:
    """List the traces of a folder that lie inside the logdir."""
    try:
        return [file for file in traces_in(folder) if not file.is_symlink() or file.resolve().is_relative_to(root)]
    except (OSError, RuntimeError):
        return []


def _describe(root: Path, folder: Path, traces: list[Path]) -> RunInfo:
    name = folder.relative_to(root).as_posix()
    record = error = None
    stages: dict[str, str] = {}
    if (file := folder / run_record.FILE_NAME).is_file() and file.resolve().is_relative_to(root):
        stat = file.stat()
        result = _read_brief(file, stat.st_size, stat.st_mtime_ns)
        if isinstance(result, str):
            error = result
        else:
            record = result
            stages = {stage.trace.path: title for title, stage in record.stages.items() if stage.trace}
    is_arm = folder.name in COMPARED_ARMS and folder != root and (folder.parent / COMPARISON_FILE).is_file()
    return RunInfo(
        run=name,
        name=record.name if record else folder.name,
        status=record.status if record else None,
        started=record.started if record else None,
        windows=[_window(file, stages.get(file.name)) for file in traces],
        record=record is not None,
        record_error=error,
        comparison=folder.parent.relative_to(root).as_posix() if is_arm else None,
        arm=folder.name if is_arm else None,
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
    """Read a record, or return in one line why it cannot be read. `size` and `mtime_ns` are part of the cache key."""
    if size_bytes > MAX_RECORD_BYTES:
        return f"{file.name} is larger than {size(MAX_RECORD_BYTES)}"
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Brief)
    except (OSError, ValueError, RecursionError) as error:
        return f"{file.name} is no run record: {error}"
