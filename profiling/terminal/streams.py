"""Lines and JSON on standard error and standard output, and a standard output that nothing can be written to."""

import json
import os
import re
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import msgspec

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


def write_json(value: object) -> None:
    """Write JSON in ASCII: nothing that a terminal may obey (`profiling.format.visible`) or its encoding may lack."""
    try:
        text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    except UnicodeEncodeError:  # a file's name of bytes that are no text; Python reads its escapes back as they were
        text = json.dumps(msgspec.to_builtins(value), indent=2)
    sys.stdout.write(_NOT_PRINTABLE_ASCII.sub(_escape, text) + "\n")


def _escape(match: re.Match[str]) -> str:
    """Write characters as JSON does: in units of UTF-16."""
    return "".join(f"\\u{unit:04x}" for (unit,) in struct.iter_unpack(">H", match[0].encode("utf-16-be")))


_NOT_PRINTABLE_ASCII = re.compile("[^\n -~]+")
