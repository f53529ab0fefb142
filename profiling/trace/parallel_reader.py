"""A second process for the second half of a large trace.

Decoding holds the interpreter lock, so a second core needs a second process. It is a fresh interpreter rather than a
fork: readers with threads, such as TensorBoard, may not fork. It starts within 80 ms, as neither this module nor those
it imports need numpy. Measured with two cores: reading 480 MB of 1.3 million events takes 1.0 s instead of 1.6 s.

Where events end in the middle of a file can only be guessed. The guess is safe: unless the first half ends exactly
there, the reader goes on beyond it and what the second process found is thrown away.
"""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from profiling.trace.columns import Columns
from profiling.trace.parse import EDGE, Damage, EventReader

SMALLEST_BYTES = 24 << 20
"""Below this, a second process costs more than it saves."""
_REACH = 1 << 20


class Half(NamedTuple):
    """What the second process found; the fields are those of EventReader."""

    columns: Columns
    header: dict[str, object]
    cut: str | None
    unreadable: int
    damage: Damage | None
    mended: int


class SecondHalf:
    """The process that reads a file from byte `start` on."""

    def __init__(self, path: Path, start: int) -> None:
        self.start = start
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        # -S: the paths are known already, and looking for them takes a third of the start-up.
        command = [
            sys.executable,
            "-S",
            "-c",
            "from profiling.trace.parallel_reader import send; send()",
            str(path),
            str(start),
        ]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, pipesize=1 << 20
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout

    def result(self) -> Half | None:
        """Wait for the process; None if it failed."""
        try:
            half: Half = pickle.load(self._pipe)
        except (EOFError, pickle.UnpicklingError):
            return None
        return half

    def close(self) -> None:
        """End the process, which may have ended already."""
        self._pipe.close()
        self._process.kill()
        self._process.wait()


def second_half(path: Path) -> SecondHalf | None:
    """Start a second process where that helps: for a large plain file, on a machine with a core to spare."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    size = path.stat().st_size
    if cores < 2 or not sys.executable or size < SMALLEST_BYTES:
        return None
    with path.open("rb") as file:
        if file.read(2) == b"\x1f\x8b":
            return None
        file.seek(size // 2)
        edge = EDGE.search(file.read(_REACH))
    return SecondHalf(path, size // 2 + edge.end(1) + 1) if edge else None


def send() -> None:
    """Read the half that the command line names, and send it to the first process."""
    path, start = sys.argv[1:]
    reader, columns = EventReader(Path(path), start=int(start)), Columns()
    for batch in reader:
        columns.add(batch)
    half = Half(columns, reader.header, reader.cut, reader.unreadable, reader.damage, reader.mended)
    pickle.dump(half, sys.stdout.buffer, protocol=5)
