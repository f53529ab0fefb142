"""Mistakes that are the user's to mend: one line, no traceback."""

import difflib
import threading
from collections.abc import Iterable


class UserError(Exception):
    """Its message is one line: what is wrong, where, what is allowed, and the nearest match."""


class NotApplicableError(Exception):
    """An experiment that cannot act here; its message names what is missing. Not a failure: the exit status is 0."""


def match(word: str, choices: Iterable[str]) -> str | None:
    """The choice that is nearest to `word`, if one is near."""
    return next(iter(difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)), None)


def nearest(word: str, choices: Iterable[str]) -> str:
    """`; did you mean 'width'?`, or nothing where no choice is near."""
    found = match(word, choices)
    return f"; did you mean {found!r}?" if found else ""


def nearest_or_all(word: str, choices: Iterable[str]) -> str:
    """The nearest match, or all choices where none is near."""
    choices = list(choices)
    return nearest(word, choices) or f" (there are: {', '.join(choices)})"


def hush_event_writers() -> None:
    """Let no thread of TensorBoard's print a traceback.

    What it met, such as a full disk, is raised once more by the next write, flush or close of its event file
    (tensorboard.summary.writer.event_file_writer), and is said there, in one line.
    """
    threading.excepthook = _hushed


def _hushed(failure: threading.ExceptHookArgs) -> None:
    if not type(failure.thread).__module__.startswith("tensorboard."):
        threading.__excepthook__(failure)
