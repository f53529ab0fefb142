"""Ctrl-C and SIGTERM while a command imports what it needs, runs and ends; to be imported before anything slow."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from profiling.errors import Terminated

BEFORE_THE_RUN = "interrupted before the run began"


def exit_at_once(line: str = "") -> None:
    """Let SIGINT and SIGTERM end this process with `line` and the status of shells' convention, 130 or 143.

    An exception would not do: in the middle of an import it may be caught, or leave a traceback.
    """

    def exit_with_line(number: int, frame: FrameType | None) -> None:
        os.write(2, line.encode())
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as for a background job of a shell
            signal.signal(number, exit_with_line)


def raise_exceptions() -> None:
    """Let SIGINT raise KeyboardInterrupt, and SIGTERM Terminated."""
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def run_command(start: Callable[[], int]) -> NoReturn:
    """Exit with the status that `start` returns; it imports what the command needs, which is slow, then runs it."""
    exit_at_once(f"{BEFORE_THE_RUN}\n")
    status = start()
    exit_at_once()
    sys.exit(status)
