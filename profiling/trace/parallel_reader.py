"""A second process that decodes the second half of a large trace.

Decoding holds the interpreter lock, so a second core needs a second process. It is a new interpreter, not a fork:
forking a program with threads, such as TensorBoard, is unsafe. It starts fast because it does not import numpy.

Where an event starts in the middle of a file can only be guessed. A wrong guess is harmless: if no event of the first
half ends exactly there, the first reader goes on to the end of the file and the second result is discarded.
"""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from profiling.parent_process import end_with_parent, search_path
from profiling.trace.columns import Columns
from profiling.trace.files import find_traces
from profiling.trace.parse import EDGE, Damage, EventReader

SMALLEST_BYTES = 24 << 20
"""For smaller files, starting a second process takes longer than it saves."""
_SHARE = 0.44
"""Of the file, for this process: torch writes operators first, which take longer to read than the rest."""
_AHEAD_BYTES = 4 << 20
"""How much more this process reads, half of what it does while the second one starts."""
_EARLY_BYTES = 8 << 20
"""How much less it reads where it imports numpy and the analysis meanwhile."""
_SEARCH_BYTES = 1 << 20
"""Length of the text, from there on, that is searched for the start of an event."""
_PROGRAM = """
import sys
sys.modules["typing_extensions"] = None  # msgspec does without; it takes as long to import as all of msgspec
from profiling.trace.parallel_reader import send
send()
"""


class Half(NamedTuple):
    """The result of the second process; the fields are those of EventReader."""

    columns: Columns
    header: dict[str, object]
    cut: str | None
    unreadable: int
    damage: Damage | None
    mended: int


class SecondHalf:
    """The process that reads the file `path` from byte `start` on."""

    def __init__(self, path: Path, start: int) -> None:
        self.path = path
        self.start = start
        environment = os.environ | {"PYTHONPATH": search_path()}
        # -S skips the slow search for packages: PYTHONPATH already has every path. -P: none of the current folder.
        command = [
            sys.executable,
            "-S",
            "-P",
            "-c",
            _PROGRAM,
            str(path),
            str(start),
        ]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            pipesize=1 << 20,
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout

    def result(self) -> Half | None:
        """Wait for the result; None if the process failed."""
        try:
            half: Half = pickle.load(self._pipe)
            rows: list[int] = pickle.load(self._pipe)
            for table, count in zip(half.columns.tables(), rows, strict=True):
                for column in table.values():
                    column.fromfile(self._pipe, count)
        except (EOFError, pickle.UnpicklingError):
            return None
        return half

    def close(self) -> None:
        """Kill the process if it is still running."""
        self._process.kill()
        with self._process:  # closes the pipes
            pass


def begin_reading(path: Path) -> SecondHalf | None:
    """As `second_half`, of the first trace at a path, before this process imports numpy and the analysis.

    Raises TraceError as `find_traces`.
    """
    return second_half(find_traces(path)[0], early=True)


def second_half(path: Path, *, early: bool = False) -> SecondHalf | None:
    """Start a second process for a large uncompressed file if there are two cores; None otherwise.

    `early`: this process imports numpy and the analysis before it reads.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < 2 or not sys.executable or not path.is_file() or (size := path.stat().st_size) < SMALLEST_BYTES:
        return None  # reading from a pipe here would take its text from the reader
    with path.open("rb") as file:
        if file.read(1) not in (b"{", b"[", b" ", b"\n", b"\r", b"\t"):  # packed, or with a byte order mark
            return None
        begin = int(_SHARE * size) + (-min(_EARLY_BYTES, size // 8) if early else min(_AHEAD_BYTES, size // 8))
        file.seek(begin)
        edge = EDGE.search(file.read(_SEARCH_BYTES))
    return SecondHalf(path, begin + edge.end(1) + 1) if edge else None


def send() -> None:
    """Run in the second process: read the half that the command line names, write it to standard output (pickle)."""
    end_with_parent()
    path, start = sys.argv[1:]
    reader, columns = EventReader(Path(path), start=int(start)), Columns()
    for batch in reader:
        columns.add(batch)
    tables, output = columns.empty_tables(), sys.stdout.buffer
    half = Half(columns, reader.header, reader.cut, reader.unreadable, reader.damage, reader.mended)
    pickle.dump(half, output, protocol=5)
    pickle.dump([len(table["ts"]) for table in tables], output, protocol=5)
    for table in tables:
        for column in table.values():
            column.tofile(output)  # one after the other: both ends of a pickle keep a copy of each until its end
