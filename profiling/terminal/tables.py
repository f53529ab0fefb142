"""Consoles and tables that all commands share."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, JustifyMethod, OverflowMethod, RenderResult
from rich.table import Table
from rich.text import Text

from profiling.format import visible

_READABLE_WIDTH = 20
_GAP_WIDTH = 2
_FILE_WIDTH = 132


class PlainConsole(Console):
    """A console for text that comes from files: no markup, no emoji codes, and control characters are visible."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Turn a string that is printed, or the cell or title of a table, into text."""
        return super().render_str(visible(text), **options)


def wide_console() -> PlainConsole:
    """Return a console as wide as the terminal or `COLUMNS`, else, where the output is no terminal, of 132 columns."""
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return PlainConsole(soft_wrap=True, width=None if known else _FILE_WIDTH)


class FittedTable:
    """A table as wide as the console at most: columns of text, then columns of numbers, which are never shortened.

    Where the width does not suffice, long text is cut to _READABLE_WIDTH at least; then whole columns are left out, and
    the title names them; at last, text is cut further.

    Args:
        title: printed above the table.
        text: headings of the columns of text.
        numbers: headings of the columns of numbers.
        leave_out: headings in the order in which their columns are left out, also some that this table has not; the
            numbers that are not among them follow, from the right. The last of all stays.
        wrapped: headings of text that goes on in the next line instead of being cut, because it holds figures.
        caption: printed below the table.
    """

    def __init__(
        self,
        title: str,
        text: Sequence[str],
        numbers: Sequence[str],
        leave_out: Sequence[str] = (),
        wrapped: Sequence[str] = (),
        caption: str = "",
    ) -> None:
        self.title = title
        self._text = list(text)
        self._headings = [*text, *numbers]
        known = [heading for heading in leave_out if heading in self._headings]
        self._leave_out = [*known, *(heading for heading in reversed(numbers) if heading not in known)][:-1]
        self._wrapped = wrapped
        self._caption = caption
        self._rows: list[tuple[list[Text], str]] = []

    def add_row(self, *cells: str | Text, style: str = "") -> None:
        """Add a row, one cell for each heading; a cell may have several lines."""
        self._rows.append(([Text(visible(cell)) if isinstance(cell, str) else cell for cell in cells], style))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the title, the table and the caption; titles wrap even where the console does not."""
        natural = self._natural_widths()
        left_out: list[str] = []
        shown = self._headings
        for heading in self._leave_out:
            if self._least_width(natural, shown) <= options.max_width:
                break
            left_out.append(heading)
            shown = [other for other in shown if other != heading]
        title = Text(visible(self.title), style="bold", no_wrap=False, overflow="fold")
        if left_out:
            columns = ", ".join(heading for heading in self._headings if heading in left_out)
            title.append(f" (in a wider terminal also: {columns})", style="not bold dim")
        yield title
        yield self._table(shown, self._widths(natural, shown, options.max_width))
        if self._caption:
            yield Text(visible(self._caption), style="dim italic", no_wrap=False, overflow="fold")

    def _natural_widths(self) -> dict[str, int]:
        """Return the width of the widest cell of each column, the heading included."""
        columns = zip(*(cells for cells, _ in self._rows), strict=True) if self._rows else ([] for _ in self._headings)
        return {
            heading: max(Text(heading).cell_len, *(_cell_width(cell) for cell in cells), 0)
            for heading, cells in zip(self._headings, columns, strict=True)
        }

    def _least_width(self, natural: Mapping[str, int], shown: Sequence[str]) -> int:
        """Return the width of the table with numbers whole and text readable."""
        widths = (min(natural[h], _READABLE_WIDTH) if h in self._text else natural[h] for h in shown)
        return sum(widths) + _GAP_WIDTH * (len(shown) - 1)

    def _widths(self, natural: Mapping[str, int], shown: Sequence[str], width: int) -> dict[str, int]:
        """Return the width of each column: what the numbers leave is shared by the text, short columns first."""
        widths = {heading: natural[heading] for heading in shown}
        texts = sorted((heading for heading in shown if heading in self._text), key=lambda heading: natural[heading])
        rest = width - _GAP_WIDTH * (len(shown) - 1) - sum(natural[h] for h in shown if h not in self._text)
        for i, heading in enumerate(texts):
            widths[heading] = max(min(natural[heading], rest // (len(texts) - i)), 1)
            rest -= widths[heading]
        return widths

    def _table(self, shown: Sequence[str], widths: Mapping[str, int]) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading in shown:
            justify: JustifyMethod = "left" if heading in self._text else "right"
            is_cut = heading in self._text and heading not in self._wrapped
            overflow: OverflowMethod = "ellipsis" if is_cut else "fold"
            table.add_column(
                Text(heading), justify=justify, overflow=overflow, no_wrap=is_cut, max_width=widths[heading]
            )
        places = [self._headings.index(heading) for heading in shown]
        for cells, style in self._rows:
            table.add_row(*(cells[place] for place in places), style=style)
        return table


def _cell_width(cell: Text) -> int:
    return max(line.cell_len for line in cell.split(allow_blank=True)) if cell else 0


def title_with_count(name: str, rows: int, top: int) -> str:
    """Return the title of a table that shows the first `top` of its rows."""
    return name if rows <= top else f"{name} (the first {top} of {rows:,})"
