"""The arguments of a command; what is wrong with them is one line."""

import argparse
import re
from typing import NoReturn

from profiling.errors import nearest
from profiling.format import visible

USAGE, UNREADABLE = 2, 1
"""Exit statuses: a wrong command line; a file that cannot be read."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line: what was wrong, what is allowed, and the nearest match."""

    def error(self, message: str) -> NoReturn:
        """Exit with status USAGE."""
        allowed: list[str] = []
        wrong = ""
        if choice := re.search(r"invalid choice: '?(.*?)'? \(choose from (.*)\)", message):
            wrong, allowed = choice[1], re.findall(r"[\w-]+", choice[2])
        elif unknown := re.search(r"unrecognized arguments: (\S+)", message):
            wrong, allowed = unknown[1], list(self._option_string_actions)
        self.exit(USAGE, visible(f"{self.prog}: {message}{nearest(wrong, allowed)}") + "\n")


def count(text: str) -> int:
    """Convert an argument that is a number from 1 upwards."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 upwards")
    return int(text)
