"""Lines on standard error and standard output, and a standard output that nothing can be written to."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from profiling.format import visible


def print_line(text: str, stream: TextIO | None = None) -> None:
    """Write one line to `stream`, by default standard error."""
    (stream or sys.stderr).write(f"{visible(text)}\n")


def drop_output() -> None:
    """Send further standard output to the null device, so that Python's flush at exit cannot fail, too.

    Source: https://docs.python.org/3/library/signal.html#note-on-sigpipe
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def standard_output(fail: Callable[[str], None], done: str | None = None) -> Iterator[None]:
    """Surround what is printed to standard output; `done` says what is complete without it.

    Where it cannot be written, as on a full device or to a closed pipe, what is printed later is dropped, and `fail` is
    called with one line.
    """
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, SystemExit) as error:
        cause = error.__context__ if isinstance(error, SystemExit) else error  # rich exits where a pipe is closed
        if not isinstance(cause, OSError):
            raise
        drop_output()
        fail("; ".join(filter(None, (f"standard output: {cause.strerror}", done))))
