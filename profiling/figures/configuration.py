"""The lines of a configuration, as text."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec


class Setting(NamedTuple):
    """A line of a configuration; `baseline` is the value on the other side, where it differs."""

    key: str
    value: str
    baseline: str | None


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return dotted key -> text of all values of nested mappings."""
    lines: dict[str, str] = {}
    for key, inner in value.items():
        below = flat(inner, f"{prefix}{key}.") if isinstance(inner, Mapping) else {prefix + key: as_text(inner)}
        lines |= below
    return lines


def as_text(value: object) -> str:
    """Write a value of a configuration: text as it is, other values as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
