"""Consoles and tables that all commands share."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from profiling.format import visible

_NUMBER_WIDTH = 8
_FILE_WIDTH = 132


class PlainConsole(Console):
    """A console for text that comes from files: no markup, no emoji codes, and control characters are visible."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Turn a string that is printed, or the cell or title of a table, into text."""
        return super().render_str(visible(text), **options)


def wide_console() -> PlainConsole:
    """Return a console as wide as the terminal, or of 132 columns where the output is not a terminal."""
    return PlainConsole(soft_wrap=True, width=None if sys.stdout.isatty() else _FILE_WIDTH)


def new_table(title: str, text: Sequence[str], numbers: Sequence[str]) -> Table:
    """Return an empty table: columns of text, which shrink to the terminal's width, then columns of numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    text_width = (Console().width - (_NUMBER_WIDTH + 2) * len(numbers)) // len(text) - 2
    for column in text:
        table.add_column(column, overflow="ellipsis", no_wrap=True, max_width=max(text_width, 9))
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True, min_width=_NUMBER_WIDTH)
    return table


def title_with_count(name: str, rows: int, top: int) -> str:
    """Return the title of a table that shows the first `top` of its rows."""
    return name if rows <= top else f"{name} (the first {top} of {rows:,})"
