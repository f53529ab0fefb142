"""Ctrl-C, SIGTERM and SIGHUP while a run trains: they take effect after a step, where its state can be saved."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Self

from profiling.errors import Terminated
from profiling.terminal.early_signals import ENDING, handle, stop_of
from train.ranks.workers import kill_workers

PATIENCE_S = 3.0
"""A step that takes longer is given up: whoever sends SIGTERM sends SIGKILL some seconds later."""


class StopRequest:
    """What asks this process to end; a context manager that handles ENDING.

    Only the first signal counts: torchrun repeats a Ctrl-C. Later ones are ignored also after the block, so that the
    record is written.

    Args:
        ends_at_once: whether the code in a frame may be left where it is.

    Attributes:
        number: of the signal; None while none has come.
        is_late: whether the step was given up.
    """

    def __init__(self, ends_at_once: Callable[[FrameType | None], bool]) -> None:
        self._ends_at_once = ends_at_once
        self.number: int | None = None
        self.is_late = False

    def __enter__(self) -> Self:
        self._before = handle(dict.fromkeys(ENDING, self._note))
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self.number is None:
            handle(self._before)
        else:
            kill_workers()

    def stop(self) -> KeyboardInterrupt | Terminated:
        """The exception that ends the run now; the time for it no longer counts."""
        assert self.number is not None
        signal.setitimer(signal.ITIMER_REAL, 0)
        return stop_of(self.number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            return
        self.number = number
        if self._ends_at_once(frame):
            raise self.stop()
        signal.signal(signal.SIGALRM, self._give_up)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)

    def _give_up(self, number: int, frame: FrameType | None) -> None:
        self.is_late = True
        raise self.stop()


def is_inside(function: Callable[..., object], frame: FrameType | None) -> bool:
    """Whether `frame` is of a call of `function`, or of what that called."""
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return frame is not None
