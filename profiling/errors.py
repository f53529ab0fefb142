"""Errors that are told in one line, without a traceback, and the nearest match to what was typed."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something that the user can correct; the message is one line: what, where, what is allowed, the nearest match."""


class NotApplicableError(Exception):
    """An experiment that cannot act here; the message names what is missing. Not a failure: the exit status is 0."""


class Terminated(BaseException):
    """SIGTERM or SIGHUP, its argument. Like KeyboardInterrupt no Exception: no `except Exception` stops it."""


def match(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice that is nearest to `word`; None if none is near."""
    return next(iter(difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)), None)


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return `; did you mean 'width'?`, or nothing if no choice is near."""
    near = match(word, choices)
    return f"; did you mean {near!r}?" if near else ""


def nearest_or_all(word: str, choices: Iterable[str]) -> str:
    """Return the nearest match, or all choices if none is near."""
    choices = list(choices)
    return nearest(word, choices) or f" (there are: {', '.join(choices)})"
