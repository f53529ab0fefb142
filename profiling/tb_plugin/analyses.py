"""Analyses, each as `python -m profiling ... --json` in a separate process.

The tab therefore shows the same results as the command line, TensorBoard's process neither grows nor waits, and a
hostile trace can use only limited time and memory. Two mechanisms enforce the limits:

- On every system, TensorBoard polls the process and kills it after LIMIT_S seconds, above `limit_bytes()` of resident
  memory including child processes, or above MAX_ANSWER_BYTES of output.
- On Linux, resource limits also bound address space and processor time.

An analysis ends with TensorBoard, also if that is killed.

At most MAX_PROCESSES run at the same time. Identical requests share one process.
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

from profiling.format import size
from profiling.parent_process import STDIN_VARIABLE, search_path
from profiling.storage import WITHIN_VARIABLE
from profiling.tb_plugin import cache

COMMAND = ("-m", "profiling")
MAX_PROCESSES = 2
LIMIT_S = 120.0
MAX_LIMIT_BYTES = 4 << 30
MAX_ANSWER_BYTES = 256 << 20
_ADDRESS_SPACE_BYTES = 2 << 30
"""Allowance for mapped memory that is not resident: libraries, and the reservation of numpy's thread pool."""
_POLL_S = 0.25
_EXIT_UNREADABLE = 1
"""Exit status of `python -m profiling` for a file that it cannot read."""

logger = tb_logging.get_logger()


class AnalysisError(Exception):
    """An analysis failed. The message is one line; `status` is the HTTP status of the response."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Analyses:
    """Runs analyses; answers come from the cache where it has them."""

    def __init__(self, answers: cache.Cache) -> None:
        self._cache = answers
        self._slots = threading.BoundedSemaphore(MAX_PROCESSES)
        self._lock = threading.Lock()
        self._running: dict[str, Future[bytes]] = {}

    def answer(self, folder: Path, arguments: Sequence[str], files: Sequence[Path]) -> tuple[str, bytes]:
        """Run `python -m profiling` in `folder`, unless the cache has the answer, which depends on `files`.

        Returns:
            The cache key, and the gzipped answer.

        Raises:
            AnalysisError: the analysis failed.
            OSError: a file does not exist.
        """
        question = (str(folder), *arguments)
        key = cache.key(question, files)
        if (cached := self._cache.get(key)) is not None:
            return key, cached
        with self._lock:
            first = key not in self._running
            future = self._running.setdefault(key, Future())
        if first:
            try:
                answer = self._run(folder, arguments)
                if cache.key(question, files) == key:  # else a file changed while the analysis ran
                    self._cache.put(key, answer)
                future.set_result(answer)
            except BaseException as error:
                future.set_exception(error)
            finally:
                with self._lock:
                    del self._running[key]
        return key, future.result()

    def _run(self, folder: Path, arguments: Sequence[str]) -> bytes:
        """Run the command as soon as a slot is free; return its gzipped output."""
        if not self._slots.acquire(timeout=LIMIT_S):
            message = f"{MAX_PROCESSES} other analyses have been running for long; try again later"
            raise AnalysisError(HTTPStatus.SERVICE_UNAVAILABLE, message)
        try:
            with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
                with _start(folder, arguments, output, errors) as process:
                    status = _wait(process, output)
                if status:
                    raise _failure(arguments, status, errors)
                output.seek(0)
                return cache.packed(output)
        finally:
            self._slots.release()


def limit_bytes() -> int:
    """Return the memory limit of one analysis: half of the machine's memory, at most MAX_LIMIT_BYTES."""
    return min(MAX_LIMIT_BYTES, psutil.virtual_memory().total // 2)


@contextmanager
def _start(
    folder: Path, arguments: Sequence[str], output: IO[bytes], errors: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """Start the process. On exit from the block, kill it and its children if it still runs."""
    environment = {
        **os.environ,
        # The process runs in the logdir, so paths in answers are relative. PYTHONSAFEPATH: no imports from the logdir.
        "PYTHONPATH": search_path(),
        "PYTHONSAFEPATH": "1",
        "PYTHONIOENCODING": "utf-8",
        WITHIN_VARIABLE: str(folder),
        STDIN_VARIABLE: "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [sys.executable, *COMMAND, *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=errors,
    )
    try:
        _limit(process.pid)
        yield process
    finally:
        if process.poll() is None:  # the system may reuse the id of a process that has ended
            for member in _process_tree(process.pid):
                with suppress(psutil.NoSuchProcess):
                    member.kill()
        with process:  # waits, and closes the pipe
            pass


def _limit(pid: int) -> None:
    if sys.platform == "linux":
        from resource import RLIMIT_AS, RLIMIT_CPU, prlimit

        address_space = limit_bytes() + _ADDRESS_SPACE_BYTES
        seconds = int(LIMIT_S) + 5  # later than the polling, whose error names the limit
        with suppress(ProcessLookupError, PermissionError):  # the process ended, or a sandbox forbids it
            prlimit(pid, RLIMIT_AS, (address_space, address_space))
            prlimit(pid, RLIMIT_CPU, (seconds, seconds))


def _wait(process: "subprocess.Popen[bytes]", output: IO[bytes]) -> int:
    """Wait until the process ends; return its exit status.

    Raises:
        AnalysisError: it exceeds a limit.
    """
    start = time.monotonic()
    while True:
        try:
            return process.wait(timeout=_POLL_S)
        except subprocess.TimeoutExpired:
            pass
        if time.monotonic() - start > LIMIT_S:
            raise _over_limit(f"more than {LIMIT_S:g} s")
        if _resident_bytes(process.pid) > limit_bytes():
            raise _over_limit(f"more than {limit_bytes() / (1 << 30):.1f} GiB of memory")
        if os.fstat(output.fileno()).st_size > MAX_ANSWER_BYTES:
            raise _over_limit(f"an answer of more than {size(MAX_ANSWER_BYTES)}")


def _over_limit(what: str) -> AnalysisError:
    return AnalysisError(HTTPStatus.UNPROCESSABLE_ENTITY, f"the analysis was stopped: it would take {what}")


def _failure(arguments: Sequence[str], status: int, errors: IO[bytes]) -> AnalysisError:
    """Return the error of a failed process. If it could not read a file, its only line of output is the message."""
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 16384))
    output = errors.read().decode("utf-8", "replace").strip()
    last = output.rpartition("\n")[2]
    if status == _EXIT_UNREADABLE and output and last == output:
        return AnalysisError(HTTPStatus.UNPROCESSABLE_ENTITY, last)
    printable = "".join(character if character.isprintable() or character == "\n" else "?" for character in output)
    logger.error("python -m profiling %r: status %d\n%s", list(arguments), status, printable)
    if status < 0:
        return _over_limit("more processor time or memory than is allowed")
    return AnalysisError(HTTPStatus.INTERNAL_SERVER_ERROR, f"the analysis failed: {last or f'status {status}'}")


def _process_tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _resident_bytes(pid: int) -> int:
    total = 0
    for member in _process_tree(pid):
        with suppress(psutil.NoSuchProcess):
            total += member.memory_info().rss
    return total
