"""Ctrl-C, SIGTERM and SIGHUP while a command imports, runs and ends; to be imported before anything slow."""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

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

    handle(dict.fromkeys(ENDING, exit_with_line))


def raise_exceptions() -> None:
    """Let SIGINT raise KeyboardInterrupt, and the others of ENDING Terminated."""
    handle({**dict.fromkeys(ENDING, _terminate), signal.SIGINT: signal.default_int_handler})


def stop_of(number: int) -> KeyboardInterrupt | Terminated:
    """Return the exception that one of ENDING raises."""
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)


def exit_status(stop: BaseException) -> int:
    """Return the status after such an exception, by the convention of shells."""
    number = stop.args[0] if isinstance(stop, Terminated) else signal.SIGINT
    return 128 + int(number)


def handle(handlers: Mapping[signal.Signals, Any]) -> dict[signal.Signals, Any]:
    """Set the handlers of signals that are not ignored; return the ones they had."""
    before = {number: signal.getsignal(number) for number in handlers}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:  # an ignored one: that of a background job of a shell, or of `nohup`
        signal.signal(number, handlers[number])
    return before


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated(number)


def run_command(start: Callable[[], int]) -> NoReturn:
    """Exit with the status that `start` returns; it imports what the command needs, which is slow, then runs it."""
    open_closed_streams()
    exit_at_once(f"{BEFORE_THE_RUN}\n")
    status = start()
    exit_at_once()
    sys.exit(status)
