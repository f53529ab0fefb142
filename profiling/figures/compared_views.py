"""What the tab shows of two runs: what changed, and their memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from profiling.analysis.index import Index
from profiling.analysis.memory import memory
from profiling.analysis.notes import notes as trace_notes
from profiling.diff.diff import diff, load_windows
from profiling.diff.totals import StageWindow
from profiling.figures.blocks import Views, notes
from profiling.figures.compare import Sides, compare
from profiling.figures.comparison import ARMS, Side
from profiling.figures.memory import WindowMemory, memory_view
from profiling.figures.windows import read_record, window_names
from profiling.vocabulary import BASELINE, COMPARED_ARMS, COMPARISON_FILE, VARIANT


def compared_views(a: Path, b: Path) -> Views:
    """Return the views of two runs or windows: what changed, and their memory."""
    windows = load_windows(a), load_windows(b)
    difference = diff(*windows)
    sides, is_measured = _sides(a, b)
    legend = {
        "kind": "sides",
        "sides": [[side.title, side.look, _run(path)] for side, path in zip(sides, (a, b), strict=True)],
    }
    records = read_record(a)[0], read_record(b)[0]
    said = [note for of_side in windows for window in of_side for note in trace_notes(window.trace)]
    devices = [held for side, of_side in zip(sides, windows, strict=True) for held in _held(side, of_side)]
    return {
        "compare": [
            legend,
            *notes(difference.notes),
            *([{"kind": "measured"}] if is_measured else ()),
            *compare(difference, sides, records, is_measured),
        ],
        "memory": [legend, *notes(said), *memory_view(devices)],
    }


def _held(side: Side, windows: Sequence[StageWindow]) -> Iterator[WindowMemory]:
    files = [window.trace.path.name for window in windows]
    stages = {file: window.stage for file, window in zip(files, windows, strict=True) if window.stage}
    for number, name in enumerate(window_names(files, stages)):
        for device in memory(Index(windows[number].trace), number):
            yield WindowMemory(device, name, side.title, side.look)


def _sides(a: Path, b: Path) -> tuple[Sides, bool]:
    """Return the titles and styles of both sides, and whether they are the arms of one comparison."""
    folders = [path if path.is_dir() else path.parent for path in (a, b)]
    parents = {folder.parent for folder in folders}
    names = [folder.name for folder in folders]
    if len(parents) == 1 and (parents.pop() / COMPARISON_FILE).is_file() and sorted(names) == sorted(COMPARED_ARMS):
        return ARMS if names[0] == BASELINE else (ARMS[1], ARMS[0]), True
    return (Side("A", BASELINE), Side("B", VARIANT)), False


def _run(path: Path) -> str:
    return (path if path.is_dir() else path.parent).as_posix()
