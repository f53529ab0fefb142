"""Analyses, run as a user runs them: `python -m profiling ... --json` in a process of its own.

So the tab shows what the command line says; TensorBoard stays small and its other tabs are not held up; and a hostile
trace can spend a bounded time and memory, after which there is one line to show. What bounds a process:

- A watch ends it after LIMIT_S seconds, beyond `limit_bytes()` of resident memory, its children included, or beyond
  MAX_ANSWER_BYTES of answer. It holds on every system, and looks four times a second.
- On Linux the kernel also refuses more address space and processor time, at once and even when TensorBoard is gone.

At most AT_ONCE run at once; who asks for what is being computed waits for that one.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import IO

import psutil
from tensorboard.util import tb_logging

from profiling.tb_plugin import cache

COMMAND = ("-m", "profiling")
AT_ONCE = 2
LIMIT_S = 120.0
MAX_LIMIT_BYTES = 4 << 30
MAX_ANSWER_BYTES = 256 << 20
_ADDRESS_SPACE_BYTES = 2 << 30
"""Mapped but not resident: libraries, and what numpy's thread pool reserves."""
_LOOK_S = 0.25
_UNREADABLE = 1

logger = tb_logging.get_logger()


class AnalysisError(Exception):
    """There is no answer; the message is one line, `status` the HTTP status that says whose fault it is."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Analyses:
    """Answers, from the cache where it has them."""

    def __init__(self, kept: cache.Cache) -> None:
        self._cache = kept
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self._lock = threading.Lock()
        self._running: dict[str, Future[bytes]] = {}

    def answer(self, folder: Path, arguments: Sequence[str], files: Sequence[Path]) -> tuple[str, bytes]:
        """Run `python -m profiling` in `folder`, unless the cache knows the answer, which depends on `files`.

        Returns:
            The answer's key, and the answer, gzipped.

        Raises:
            AnalysisError: there is none.
            OSError: a file is gone.
        """
        asked = (str(folder), *arguments)
        key = cache.key(asked, files)
        if (kept := self._cache.get(key)) is not None:
            return key, kept
        with self._lock:
            ours = key not in self._running
            future = self._running.setdefault(key, Future())
        if ours:
            try:
                answer = self._run(folder, arguments)
                if cache.key(asked, files) == key:  # else a file changed meanwhile: which state is this of?
                    self._cache.put(key, answer)
                future.set_result(answer)
            except BaseException as error:
                future.set_exception(error)
            finally:
                with self._lock:
                    del self._running[key]
        return key, future.result()

    def _run(self, folder: Path, arguments: Sequence[str]) -> bytes:
        """Run the command, as soon as a slot is free; give what it wrote, gzipped."""
        if not self._slots.acquire(timeout=LIMIT_S):
            raise AnalysisError(
                HTTPStatus.SERVICE_UNAVAILABLE, f"{AT_ONCE} other analyses have been running for long; try again later"
            )
        try:
            with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
                with _started(folder, arguments, output, errors) as process:
                    status = _watched(process, output)
                if status:
                    raise _failure(arguments, status, errors)
                output.seek(0)
                return cache.packed(output)
        finally:
            self._slots.release()


def limit_bytes() -> int:
    """Return the memory that one analysis may take: half of the machine's, at most MAX_LIMIT_BYTES."""
    return min(MAX_LIMIT_BYTES, psutil.virtual_memory().total // 2)


@contextmanager
def _started(
    folder: Path, arguments: Sequence[str], output: IO[bytes], errors: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """Start the process; end it, and those that it started, if it still runs at the end."""
    environment = {
        **os.environ,
        # It runs inside the logdir, so that paths are short and tell nothing of the server; no module comes from there.
        "PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path if entry),
        "PYTHONSAFEPATH": "1",
        "PYTHONIOENCODING": "utf-8",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [sys.executable, *COMMAND, *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
    )
    try:
        _limit(process.pid)
        yield process
    finally:
        if process.poll() is None:  # once it is known to have ended, its number may be that of another
            for relative in _family(process.pid):
                with suppress(psutil.NoSuchProcess):
                    relative.kill()
            process.wait()


def _limit(pid: int) -> None:
    if sys.platform == "linux":
        from resource import RLIMIT_AS, RLIMIT_CPU, prlimit

        address_space = limit_bytes() + _ADDRESS_SPACE_BYTES
        seconds = int(LIMIT_S) + 5  # later than the watch, which says what happened
        with suppress(ProcessLookupError, PermissionError):  # it has ended, or a sandbox forbids: the watch holds
            prlimit(pid, RLIMIT_AS, (address_space, address_space))
            prlimit(pid, RLIMIT_CPU, (seconds, seconds))


def _watched(process: "subprocess.Popen[bytes]", output: IO[bytes]) -> int:
    """Wait for the end of the process; give its status.

    Raises AnalysisError if it takes too much of something.
    """
    start = time.monotonic()
    while True:
        try:
            return process.wait(timeout=_LOOK_S)
        except subprocess.TimeoutExpired:
            pass
        if time.monotonic() - start > LIMIT_S:
            raise _too_much(f"more than {LIMIT_S:g} s")
        if _resident_bytes(process.pid) > limit_bytes():
            raise _too_much(f"more than {limit_bytes() / (1 << 30):.1f} GiB of memory")
        if os.fstat(output.fileno()).st_size > MAX_ANSWER_BYTES:
            raise _too_much(f"an answer of more than {MAX_ANSWER_BYTES >> 20} MiB")


def _too_much(what: str) -> AnalysisError:
    return AnalysisError(HTTPStatus.UNPROCESSABLE_ENTITY, f"the analysis was stopped: it would take {what}")


def _failure(arguments: Sequence[str], status: int, errors: IO[bytes]) -> AnalysisError:
    """Say why there is no answer: a command that cannot read a file says so in one line."""
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 16384))
    said = errors.read().decode("utf-8", "replace").strip()
    last = said.rpartition("\n")[2]
    if status == _UNREADABLE and said and last == said:
        return AnalysisError(HTTPStatus.UNPROCESSABLE_ENTITY, last)
    shown = "".join(character if character.isprintable() or character == "\n" else "?" for character in said)
    logger.error("python -m profiling %r: status %d\n%s", list(arguments), status, shown)
    if status < 0:
        return _too_much("more processor time or memory than is allowed")
    return AnalysisError(HTTPStatus.INTERNAL_SERVER_ERROR, f"the analysis failed: {last or f'status {status}'}")


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _resident_bytes(pid: int) -> int:
    total = 0
    for relative in _family(pid):
        with suppress(psutil.NoSuchProcess):
            total += relative.memory_info().rss
    return total
