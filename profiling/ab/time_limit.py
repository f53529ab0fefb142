"""A bound on the time of a comparison that holds whatever it waits for."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class TimeUpError(BaseException):
    """The time limit is over. Like KeyboardInterrupt no Exception: no `except Exception` stops it."""


@contextmanager
def time_limit() -> Iterator[Callable[[float], object]]:
    """Yield a function: so many seconds after its call, TimeUpError is raised in this thread, as Ctrl-C would be.

    Python handles signals in the main thread only; in any other, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda seconds: None
        return
    before = signal.signal(signal.SIGALRM, _time_up)
    try:
        yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _time_up(number: int, frame: FrameType | None) -> NoReturn:
    raise TimeUpError
