"""The runs below a logdir, and names resolved to what lies inside it.

A *run* is a folder that directly holds traces; its name is its path relative to the logdir, "." for the logdir itself.
A *window* is one of its traces, `RUN/FILE`.

TensorBoard follows links, the tab does not: a folder that is a link is not searched, as it would lead out or show the
same runs twice, and a trace that is a link is a window only if it points inside the logdir.
"""

import threading
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePath

import msgspec
from msgspec import Struct

from profiling import run_record
from profiling.storage import MAX_RECORD_BYTES, walk_folders
from profiling.trace.files import traces_in
from profiling.vocabulary import COMPARED_ARMS

SCHEMA_VERSION = 1
COMPARISON_FILE = "comparison.json"


class NotFoundError(Exception):
    """A name that means nothing inside the logdir; the message is one line."""


class WindowInfo(Struct, frozen=True):
    """One trace file; `stage` is what the run's record says it is of."""

    file: str
    stage: str | None
    bytes: int
    mtime_s: float


class RunInfo(Struct, frozen=True):
    """One run. Without a record, `name` is the folder's; `comparison` is the folder of the A/B that it is an arm of."""

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
    """The answer of the route `runs`; `comparisons` is the number of A/Bs."""

    schema_version: int
    runs: list[RunInfo]
    comparisons: int


class Logdir:
    """A folder that may come and go; asked anew each time."""

    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None
        self._lock = threading.Lock()
        self._search: threading.Thread | None = None
        self._next_search_s = 0.0
        self._witness: Path | None = None

    @property
    def root(self) -> Path:
        """The folder itself. Raises NotFoundError if there is none."""
        try:
            if self._path is not None and self._path.is_dir():
                return self._path.resolve()
        except OSError:
            pass
        raise NotFoundError("TensorBoard was started without a logdir, or the folder is gone")

    def listing(self) -> Listing:
        """List every run, in alphabetical order."""
        root = self.root
        runs, comparisons = [], 0
        for folder, names in walk_folders(root):
            comparisons += COMPARISON_FILE in names
            if traces := _inside(root, folder):
                with suppress(OSError):  # a file is gone meanwhile: the next look sees what is there then
                    runs.append(_describe(root, folder, traces))
        return Listing(
            schema_version=SCHEMA_VERSION, runs=sorted(runs, key=lambda run: run.run), comparisons=comparisons
        )

    def holds_traces(self, wait_s: float = 0.2) -> bool:
        """Tell whether there is anything to show, from a search in the background that is waited for only briefly."""
        with self._lock:
            searching = self._search is not None and self._search.is_alive()
            known = self._witness is not None and self._witness.is_file()
            if not known and not searching and time.monotonic() >= self._next_search_s:
                self._search = threading.Thread(target=self._find_one, name="abtrace-search", daemon=True)
                self._search.start()
            search = self._search
        if not known and search is not None:
            search.join(wait_s)
        return self._witness is not None

    def _find_one(self) -> None:
        start = time.monotonic()
        witness = None
        try:
            root = self.root
            for folder, names in walk_folders(root):
                if traces := _inside(root, folder):
                    witness = traces[0]
                elif COMPARISON_FILE in names:
                    witness = folder / COMPARISON_FILE
                if witness is not None:
                    break
        except NotFoundError:
            pass
        self._witness = witness
        self._next_search_s = time.monotonic() + 10 * (time.monotonic() - start)

    def run(self, name: str) -> tuple[Path, list[Path]]:
        """Give what to read for `RUN` or `RUN/FILE`, and the traces that this means.

        Raises NotFoundError unless it is a run or a window of one.
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
        """Find the record of a run, or of the run that a window belongs to. Raises NotFoundError."""
        folder = name if inside(self.root, name).is_dir() else str(PurePath(name).parent)
        found = inside(self.root, f"{folder}/{run_record.FILE_NAME}")
        if not found.is_file():  # reading a pipe would wait for ever
            raise NotFoundError(f"{name!r} has no record")
        return found

    def comparisons(self) -> list[Path]:
        """Find every comparison."""
        root = self.root
        return [folder / COMPARISON_FILE for folder, names in walk_folders(root) if COMPARISON_FILE in names]


def inside(root: Path, name: str) -> Path:
    """Resolve a relative name below `root`, which is resolved itself.

    Raises NotFoundError unless it exists and lies inside: no `..`, no absolute path, no link that leads out.
    """
    try:
        if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise ValueError
        found = (root / name).resolve(strict=True)
        if not found.is_relative_to(root):
            raise ValueError
    except (OSError, ValueError, RuntimeError):  # also NUL, a name too long, links in a loop
        raise NotFoundError(f"there is no {name!r} here") from None
    return found


def _inside(root: Path, folder: Path) -> list[Path]:
    """List the traces of a folder that lie inside the logdir."""
    try:
        return [file for file in traces_in(folder) if not file.is_symlink() or file.resolve().is_relative_to(root)]
    except (OSError, RuntimeError):
        return []


def _describe(root: Path, folder: Path, traces: list[Path]) -> RunInfo:
    name = folder.relative_to(root).as_posix()
    known = error = None
    stages: dict[str, str] = {}
    if (file := folder / run_record.FILE_NAME).is_file() and file.resolve().is_relative_to(root):
        stat = file.stat()
        outcome = _brief(file, stat.st_size, stat.st_mtime_ns)
        if isinstance(outcome, str):
            error = outcome
        else:
            known = outcome
            stages = {stage.trace.path: title for title, stage in known.stages.items() if stage.trace}
    compared = folder.name in COMPARED_ARMS and folder != root and (folder.parent / COMPARISON_FILE).is_file()
    return RunInfo(
        run=name,
        name=known.name if known else folder.name,
        status=known.status if known else None,
        started=known.started if known else None,
        windows=[_window(file, stages.get(file.name)) for file in traces],
        record=known is not None,
        record_error=error,
        comparison=folder.parent.relative_to(root).as_posix() if compared else None,
        arm=folder.name if compared else None,
    )


def _window(file: Path, stage: str | None) -> WindowInfo:
    stat = file.stat()
    return WindowInfo(file=file.name, stage=stage, bytes=stat.st_size, mtime_s=stat.st_mtime)


class _BriefTrace(Struct):
    path: str


class _BriefStage(Struct):
    trace: _BriefTrace | None


class _Brief(Struct):
    """What the list of runs says of a record; the samples, nearly all of it, are skipped."""

    name: str
    status: str
    started: str
    stages: dict[str, _BriefStage]


@lru_cache(maxsize=4096)
def _brief(file: Path, size: int, mtime_ns: int) -> _Brief | str:
    """Read a record as it is at that size and time; the reason, in one line, if it cannot be read."""
    if size > MAX_RECORD_BYTES:
        return f"{file.name} is larger than {MAX_RECORD_BYTES >> 20} MiB"
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Brief)
    except (OSError, ValueError, RecursionError) as error:
        return f"{file.name} is no run record: {error}"
