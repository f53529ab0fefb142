"""The parts of a view as data: the tab draws them and knows nothing of what they say.

A block is a dictionary; tb_plugin/static/blocks.js has a function for each `kind`. Text is plain text, never HTML; what
stands in backticks in messages and notes is shown as code.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from profiling.figures.style import VERDICT_CLASSES, Figure
from profiling.vocabulary import OUTCOME_MARKS, VERDICT_SHAPES, Outcome, Verdict

Block = dict[str, Any]

Views = dict[str, list[Block]]
"""The name of a view -> its blocks."""

Content = str | Block | Sequence[Any]
"""Text, a `mark`, or several of them."""


def mark(text: str, look: str = "", tag: str = "span", **more: Any) -> Block:
    """Return a piece of text with a style; `look` is a CSS class."""
    return {"tag": tag, "look": look, "text": text, **more}


def verdict_mark(verdict: Verdict, text: str) -> Block:
    """Return the shape and the words of a verdict, so that color is not needed."""
    is_open = verdict in (Verdict.no_effect, Verdict.inconclusive, Verdict.failed)
    return mark(text, f"verdict {VERDICT_CLASSES[verdict]}", shape=VERDICT_SHAPES[verdict], open=is_open)


def outcome_mark(outcome: Outcome, verdict: Verdict, text: str) -> Content:
    """Return the outcome of a hypothesis, `text` in words; empty where the experiment is not applicable."""
    if verdict is Verdict.not_applicable:
        return ""
    return mark(f"{OUTCOME_MARKS[outcome]} {text}", f"outcome {outcome.name}")


def message(kind: str, text: str, hint: str = "") -> Block:
    """Return what is missing (`empty`), or `partial`, in one sentence; `hint` says what to do."""
    return {"kind": "message", "look": kind, "text": text, "hint": hint}


def notes(lines: Iterable[str]) -> list[Block]:
    """Return a message for each line."""
    return [message("partial", line) for line in lines]


def listed(lines: Sequence[str], *above: Block) -> Block:
    """Return a box with a list of lines."""
    return {"kind": "list", "blocks": above, "lines": lines}


def note(text: str, look: str = "note") -> Block:
    """Return a paragraph: of explanation, or in another style, a CSS class."""
    return {"kind": "note", "look": look, "text": text}


def panel(title: str, *blocks: Block) -> Block:
    """Return a part of a view with a title."""
    return {"kind": "panel", "title": title, "blocks": blocks}


def group(look: str, *blocks: Block) -> Block:
    """Return blocks in a container whose CSS class arranges them, such as `columns`."""
    return {"kind": "group", "look": look, "blocks": blocks}


def more(text: str, blocks: Sequence[Block]) -> Block:
    """Return a button that is replaced by `blocks`."""
    return {"kind": "more", "text": text, "blocks": blocks}


def card(name: str, value: str, *details: str) -> Block:
    """Return one result in large letters, with lines below it."""
    return {"kind": "card", "name": name, "value": value, "details": [detail for detail in details if detail]}


def facts(*pairs: tuple[str, Content] | tuple[str, Content, str]) -> Block:
    """Return figures side by side: each a name, its content, and its meaning where that needs words."""
    return {"kind": "facts", "pairs": pairs}


def definitions(*pairs: tuple[str, str | Sequence[str]], title: str = "") -> Block:
    """Return lines, each with a name and a text, or several texts below each other."""
    return {"kind": "definitions", "title": title, "pairs": pairs}


def choice(name: str, key: str, options: Mapping[str, str]) -> Block:
    """Return a select that writes one of `options` (value -> text) into the address, at `key`."""
    return {"kind": "choice", "name": name, "key": key, "options": list(options.items())}


def chart(figure: Figure, text: str, name: str) -> Block:
    """Return a chart; `text` says what it shows, for screen readers, and `name` is that of its picture's file."""
    return {"kind": "chart", **figure, "label": text, "name": name}


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        key: names the column in the CSV file, and the attribute of a row that it shows.
        title: above the column; without one it is not shown, only searched and exported.
        help: its meaning.
        value: what is sorted, searched and exported, if not the attribute `key`.
        write: turns a value into the text of its cell; columns of numbers have one.
        content: turns a row into the content of its cell, where that is more than a value.
        look: `number`, `text` (cut after one line), `wraps`, or `brief` (never cut).
        missing: stands in the cell of a row without a value.
    """

    key: str
    title: str = ""
    help: str = ""
    value: Callable[[Any], object] | None = None
    write: Callable[[Any], str] | None = None
    content: Callable[[Any], Content] | None = None
    look: str = "text"
    missing: str = ""


def number(
    key: str,
    title: str,
    write: Callable[[Any], str],
    help: str = "",
    value: Callable[[Any], object] | None = None,
    missing: str = "",
) -> Column:
    """Return a column of numbers."""
    return Column(key, title, help, value, write, look="number", missing=missing)


def table(
    rows: Sequence[Any],
    columns: Iterable[Column | None],
    *,
    label: str,
    name: str,
    sort: str = "",
    search: str = "",
    only: tuple[str, str] | None = None,
    opens: Sequence[Mapping[str, str] | None] | None = None,
) -> Block:
    """Return a table, whose rows can be sorted and exported.

    Args:
        rows: in the order in which they are shown.
        columns: None is left out.
        label: what it holds, for screen readers.
        name: that of its CSV file.
        sort: the key of the column that is marked as sorted, largest first with a `-` before it.
        search: the key of the address that has the text of its search box; without one there is no box.
        only: a key of the address, and the column whose value it chooses: other rows are not shown.
        opens: for each row the keys of the address that it leads to.
    """
    return {
        "kind": "table",
        "label": label,
        "name": name,
        "rows": len(rows),
        "sort": sort,
        "search": search,
        "only": only,
        "columns": [_filled(column, rows) for column in columns if column is not None],
        **({"opens": opens} if opens else {}),
    }


def _filled(column: Column, rows: Sequence[Any]) -> Block:
    """Return a column with its values; `texts` only where the tab would not write the value as it is."""
    read = column.value
    values = [getattr(row, column.key) for row in rows] if read is None else [read(row) for row in rows]
    filled: Block = {"key": column.key, "title": column.title, "help": column.help, "look": column.look}
    if column.content is not None:
        filled["texts"] = [column.content(row) for row in rows]
    elif column.write is not None:
        write, missing = column.write, column.missing
        filled["texts"] = [missing if value is None else write(value) for value in values]
    return {**filled, "values": values}
