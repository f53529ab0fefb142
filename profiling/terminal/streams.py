"""Lines on standard error and standard output, and those to which nothing can be written."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from profiling.format import visible


def print_line(text: str, stream: TextIO | None = None) -> None:
    """Write one line to `stream`, by default standard error; where nobody can read that one, the line is dropped."""
    line = f"{visible(text)}\n"
    if stream is not None:
        stream.write(line)
        return
    try:
        sys.stderr.write(line)
    except OSError:
        drop_output(sys.stderr)


def drop_output(stream: TextIO | None = None) -> None:
    """Send what follows on `stream`, by default standard output, to the null device: Python's flush at exit succeeds.

    Source: https://docs.python.org/3/library/signal.html#note-on-sigpipe
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), (stream or sys.stdout).fileno())


def open_closed_streams() -> None:
    """Let standard streams that were closed (`>&-`) be files to which nothing can be written, rather than None.

    Their descriptors would be given to the next files that are opened, and what libraries print would get into those.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            missing = os.open(os.devnull, os.O_WRONLY if name == "stdin" else os.O_RDONLY)
            if missing != descriptor:
                os.dup2(missing, descriptor)
                os.close(missing)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(descriptor, mode, buffering=1, encoding="utf-8", closefd=False))


@contextmanager
def standard_output(fail: Callable[[str], None], done: str | None = None) -> Iterator[None]:
    """Surround what is printed to standard output; `done` says what is complete without it.

    Where it cannot be written, as on a full device or to a closed pipe, what is printed later is dropped, and `fail` is
    called with one line.
    """
    try:
        yield
        sys.stdout.flush()
    except (OSError, SystemExit) as error:
        cause = error.__context__ if isinstance(error, SystemExit) else error  # rich exits where a pipe is closed
        if not isinstance(cause, OSError):
            raise
        drop_output()
        fail("; ".join(filter(None, (f"standard output: {cause.strerror}", done))))
