"""One case of fuzzing: what a kind of input is, and what is wrong with any program, whatever it does."""

import contextlib
import io
import random
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec
import psutil

LIMIT_S = 5.0
"""Processor time of a case."""
WAITING_LIMIT_S = 30.0
"""Time of a case, which may wait for other processes of a busy machine."""
LIMIT_BYTES = 1 << 30
CONTROL = frozenset(map(chr, [*range(9), *range(11, 32), *range(127, 160)]))
"""Characters that a terminal may obey; lines end in a newline alone."""


class Case(msgspec.Struct, frozen=True):
    """An input: `steps` tells what to do, in words of its kind, with `files`, by their names in an empty folder.

    A seed and a number make the same input each time; a file with it holds after the program or this package changed.
    """

    kind: str
    seed: int
    number: int
    steps: Any
    files: dict[str, bytes]


class FaultError(AssertionError):
    """What the program did wrong; the first line says what, others where."""


class Hang(BaseException):
    """More than a limit of time; no Exception, so that no `except Exception` of the program stops it."""


class Kind(Protocol):
    """A kind of input. Its constructor prepares what all cases share, in an empty folder of its own.

    One that starts processes has a `waiting_limit_s`, in place of WAITING_LIMIT_S.
    """

    def __init__(self, folder: Path) -> None: ...

    def make(self, source: random.Random) -> tuple[Any, dict[str, bytes]]:
        """`steps` and `files` of a case."""

    def run(self, steps: Any, folder: Path) -> None:
        """Give the case to the program; `folder` has its files and is the working directory. Raises FaultError."""


def run(kind: Kind, case: Case, folder: Path) -> str | None:
    """Run a case in an empty folder, which becomes the working directory; return its fault, None if there is none."""
    for name, content in case.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    waiting_s = getattr(kind, "waiting_limit_s", WAITING_LIMIT_S)
    try:
        with contextlib.chdir(folder), limited(waiting_s), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            kind.run(case.steps, folder)
        expect(not warned, "; ".join(f"warning: {w.category.__name__}: {w.message}" for w in warned))
        left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*tmp-*"))
        expect(not left, f"left behind: {left}")
    except FaultError as fault:
        return str(fault)
    except Hang:
        return f"hang: more than {LIMIT_S:g} s of work, or {waiting_s:g} s of waiting\n{traceback.format_exc()}"
    except MemoryError:
        return f"more than {LIMIT_BYTES >> 30} GiB\n{traceback.format_exc()}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
    return None


def expect(holds: object, message: str) -> None:
    """Raise FaultError if something does not hold."""
    if not holds:
        raise FaultError(message)


@contextlib.contextmanager
def limited(waiting_s: float) -> Iterator[None]:
    """Bound the time of the block, and the memory that it adds to the process."""

    def stop(*_: object) -> None:
        raise Hang

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = {number: signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)}
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + LIMIT_BYTES, hard))
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    signal.setitimer(signal.ITIMER_REAL, waiting_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        for number, handler in before.items():
            signal.signal(number, handler)


def command(main: Callable[[], int], *, finds: bool = False) -> tuple[int, str, str]:
    """Run a command in this process; return its status and what it wrote to standard output and standard error.

    Raises FaultError unless it succeeds in silence, or fails with status 1 or 2 and one line that says why. The status
    of a command that `finds` may be 1 for what it writes to standard output.
    """
    output, errors = _stream(), _stream()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            status = main()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
    written, said = _text(output), _text(errors)
    seen = CONTROL.intersection(written + said)
    expect(not seen, f"control characters in the output: {seen}")
    expect("more memory than there is" not in said, f"more than {LIMIT_BYTES >> 30} GiB: {said}")
    if status and not (finds and written):
        expect(status in (1, 2), f"status {status}: {said}")
        expect(said.count("\n") == 1 and said.strip() and "Traceback" not in said, f"not one line: {said}")
    else:
        expect(not said, f"written to standard error: {said}")
    return status, written, said


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()


def printed(text: str) -> None:
    """Write a line of this package, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
