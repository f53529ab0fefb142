"""Ctrl-C, SIGTERM and SIGHUP while a command imports, runs and ends; to be imported before anything slow."""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from profiling.errors import Terminated
from profiling.terminal.streams import open_closed_streams

BEFORE_THE_RUN = "interrupted before the run began"
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a command: Ctrl-C, `kill`, and a terminal or connection that closes."""


def exit_at_once(line: str = "") -> None:
    """Let ENDING end this process with `line` and the status of shells' convention: 128 and the signal's number.

    An exception would not do: in the middle of an import it may be caught, or leave a traceback.
    """

    def exit_with_line(number: int, frame: FrameType | None) -> None:
        with suppress(OSError):  # the terminal is gone
            os.write(2, line.encode())
        os._exit(128 + number)

    _handle(dict.fromkeys(ENDING, exit_with_line))


def raise_exceptions() -> None:
    """Let SIGINT raise KeyboardInterrupt, and the others of ENDING Terminated."""
    _handle({**dict.fromkeys(ENDING, _terminate), signal.SIGINT: signal.default_int_handler})


def exit_status(stop: BaseException) -> int:
    """Return the status after such an exception, by the convention of shells."""
    number = stop.args[0] if isinstance(stop, Terminated) else signal.SIGINT
    return 128 + int(number)


def _handle(handlers: Mapping[signal.Signals, Callable[[int, FrameType | None], object]]) -> None:
    for number, handler in handlers.items():
        if signal.getsignal(number) is not signal.SIG_IGN:  # a background job of a shell, or `nohup`
            signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated(number)


def run_command(start: Callable[[], int]) -> NoReturn:
    """Exit with the status that `start` returns; it imports what the command needs, which is slow, then runs it."""
    open_closed_streams()
    exit_at_once(f"{BEFORE_THE_RUN}\n")
    status = start()
    exit_at_once()
    sys.exit(status)
