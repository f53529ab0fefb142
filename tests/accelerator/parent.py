"""Runs workers within a limit of time, and leaves none running, nor anything that they have started."""

import getpass
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.accelerator import results
from tests.accelerator.results import Result

PIECE_LIMIT_S = 200.0  # of one piece; the longest compile
START_LIMIT_S = 90.0  # of a worker, until its first piece
POLL_S = 0.5
ENVIRONMENT = {
    "PYTHONWARNINGS": "ignore",
    "KINETO_LOG_LEVEL": "99",
    # Where torch keeps it by itself; a worker's TMPDIR goes with the worker.
    "TORCHINDUCTOR_CACHE_DIR": str(Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}"),
}

Shown = Callable[[Result], None]


# torch asks for this once a process; of many pieces in one, some are deterministic.
DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


class Deadline:
    """The end of everything, `limit_s` after the start; `cut` brings it about now."""

    def __init__(self, limit_s: float) -> None:
        self._start = time.monotonic()
        self.limit_s = limit_s

    @property
    def used_s(self) -> float:
        return time.monotonic() - self._start

    def cut(self, *_: object) -> None:
        self.limit_s = 0.0

    @property
    def left_s(self) -> float:
        return self.limit_s - self.used_s


def run_group(group: str, device: str, out: Path, shares: int, deadline: Deadline, show: Shown) -> None:
    """Ask the pieces of a group in `shares` workers side by side; returns when they are done, or at the deadline."""
    threads = [
        threading.Thread(target=_run_share, args=(group, device, out, share, shares, deadline, show))
        for share in range(shares)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _run_share(group: str, device: str, out: Path, share: int, shares: int, deadline: Deadline, show: Shown) -> None:
    """Start workers until one gets through: a piece that ends its worker has failed, and the next worker goes on."""
    while deadline.left_s > 0:
        with tempfile.TemporaryDirectory(prefix="accelerator-") as scratch:
            piece, status = _Worker(group, device, out, share, shares, Path(scratch)).run(deadline, show)
        if piece is None and status == 0:
            return
        cut = deadline.left_s <= 0
        name = piece or f"{group}/start-{share}"
        error = "no time was left" if cut else f"its process ended with status {status}" if status else "took too long"
        result = Result(name, results.CUT if cut else results.FAILED, 0.0, {}, error)
        results.write(out, result)
        show(result)
        if piece is None:
            return


class _Worker:
    """One process of tests.accelerator.worker, in a session of its own."""

    def __init__(self, group: str, device: str, out: Path, share: int, shares: int, scratch: Path) -> None:
        command = [sys.executable, "-m", "tests.accelerator.worker", group, device, str(out), str(share), str(shares)]
        of_group = DETERMINISTIC if group == "correctness" else {}
        self._out = out
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**ENVIRONMENT, **of_group, **os.environ, "TMPDIR": str(scratch)},
            text=True,
            start_new_session=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def run(self, deadline: Deadline, show: Shown) -> tuple[str | None, int | None]:
        """Follow it to its end; return the piece that it did not finish, and its exit status, None if it was killed."""
        piece: str | None = None
        limit_s, since = START_LIMIT_S, time.monotonic()
        try:
            while deadline.left_s > 0 and time.monotonic() - since < limit_s:
                try:
                    line = self._lines.get(timeout=POLL_S)
                except queue.Empty:
                    continue
                if piece is not None and (result := results.read(self._out, piece)) is not None:
                    show(result)
                    piece = None
                if line is None:
                    return piece, self._process.wait()
                piece, limit_s, since = line.split(maxsplit=1)[1].strip(), PIECE_LIMIT_S, time.monotonic()
            return piece, None
        finally:
            self._end()

    def _end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def report(out: Path, seconds: float) -> None:
    """Draw the ladder, if there are comparisons."""
    comparisons, picture = out / "ladder", out / "ladder.svg"
    if not comparisons.is_dir():
        return
    command = [sys.executable, "-m", "profiling", "report", str(comparisons), "-o", str(picture)]
    subprocess.run(command, timeout=seconds, check=False, capture_output=True)
