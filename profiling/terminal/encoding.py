"""Output whose encoding lacks a character, such as µ in ASCII: the character is replaced visibly, nothing fails."""

import codecs
import io
import sys

_NAME = "abtrace.replace"
_LIKENESSES = str.maketrans("µ×÷–…→←✓▁▂▃▄▅▆▇█", "ux/-~><v.:-=+*#@") | str.maketrans({"±": "+/-", "²": "^2"})
"""For the characters of our own tables and curves; as wide as the character where it stands in a column."""


def replace_what_cannot_be_encoded() -> None:
    """Let standard output and standard error replace what they cannot encode: by a likeness, else by an escape."""
    codecs.register_error(_NAME, _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_NAME)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return lacking.translate(_LIKENESSES).encode("ascii", "backslashreplace").decode(), error.end
