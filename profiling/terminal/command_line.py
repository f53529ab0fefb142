"""What the commands of `python -m profiling` share: errors of one line, and JSON on standard output."""

import argparse
import json
import re
import struct
import sys
from typing import NoReturn

import msgspec

from profiling.errors import nearest
from profiling.format import visible

USAGE, UNREADABLE = 2, 1
"""Exit statuses: a wrong command line; a file that cannot be read."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line: what was wrong, what is allowed, and the nearest match."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        allowed: list[str] = []
        wrong = ""
        if choice := re.search(r"invalid choice: '?(.*?)'? \(choose from (.*)\)", message):
            wrong, allowed = choice[1], re.findall(r"[\w-]+", choice[2])
        elif unknown := re.search(r"unrecognized arguments: (\S+)", message):
            wrong, allowed = unknown[1], list(self._option_string_actions)
        self.exit(USAGE, visible(f"{self.prog}: {message}{nearest(wrong, allowed)}") + "\n")


def complain(message: str) -> None:
    """Write an error, one line, to standard error."""
    sys.stderr.write(f"{visible(message)}\n")


def count(text: str) -> int:
    """Convert an argument that is a number from 1 upwards."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 upwards")
    return int(text)


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
