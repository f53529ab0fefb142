"""JSON on standard output."""

import json
import re
import struct
import sys

import msgspec


def write_json(value: object, *, compact: bool = False) -> None:
    """Write JSON in ASCII: nothing that a terminal may obey (`profiling.format.visible`) or its encoding may lack.

    It is indented for people; `compact`: in one line, for programs.
    """
    try:
        encoded = msgspec.json.encode(value)
        text = (encoded if compact else msgspec.json.format(encoded, indent=2)).decode()
    except UnicodeEncodeError:  # a file's name of bytes that are no text; Python reads its escapes back as they were
        text = json.dumps(msgspec.to_builtins(value), indent=2)
    sys.stdout.write(_NOT_PRINTABLE_ASCII.sub(_escape, text) + "\n")


def _escape(match: re.Match[str]) -> str:
    """Write characters as JSON does: in units of UTF-16."""
    return "".join(f"\\u{unit:04x}" for (unit,) in struct.iter_unpack(">H", match[0].encode("utf-16-be")))


_NOT_PRINTABLE_ASCII = re.compile("[^\n -~]+")
