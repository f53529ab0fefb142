"""The tree of nn.Module calls; it needs a trace with stacks."""

from collections.abc import Sequence

from profiling.analysis.modules import Module
from profiling.analysis.summary import Summary
from profiling.figures.blocks import Block, Column, chart, message, note, notes, number, panel, table
from profiling.figures.style import FASTER, LEVEL, Figure, label
from profiling.format import count, duration, percent, size

_LEVEL_HEIGHT = 24  # of the icicle, in pixels
_DEEPEST = 40  # levels that the icicle shows at once


def modules(summary: Summary) -> list[Block]:
    """Return the blocks of the view."""
    said = notes(summary.trace.notes)
    rows = summary.modules
    if not rows:
        if summary.events.get("python_function"):
            return [*said, message("empty", "This trace has stacks, but no nn.Module was called.")]
        hint = "With torch.profiler itself, pass `with_stack=True`."
        return [*said, message("empty", "This trace has no stacks: run with profiler=full.", hint)]
    number_of_windows = len(summary.trace.files)
    windows = f", all {number_of_windows} windows together" if number_of_windows > 1 else ""
    total = sum(row.total_us for row in rows if not row.depth)
    explained = (
        "As wide as the time in the module and what it calls, the bluer the more of it is the module's own. "
        "A click opens a part, a click on its top leads back."
    )
    text = "Icicle of modules by forward time; the table below has the same figures"
    drawn = chart(_icicle(rows, total), text, "modules")
    return [
        *said,
        panel(f"Forward time by module{windows}", note(explained), drawn),
        panel(f"Modules{windows}", _tree(rows, total)),
    ]


def _icicle(rows: Sequence[Module], total: float) -> Figure:
    trace = {
        "type": "icicle",
        "ids": [str(i) for i in range(len(rows))],  # two modules may have the same path
        "parents": ["" if row.parent < 0 else str(row.parent) for row in rows],
        "labels": [f"{label(row.name)}  {duration(row.total_us)}" for row in rows],
        "values": [row.self_us for row in rows],
        "branchvalues": "remainder",
        "sort": False,
        "maxdepth": _DEEPEST + 1,  # a click shows what is deeper
        "tiling": {"orientation": "v", "pad": 1},
        "pathbar": {"thickness": _LEVEL_HEIGHT},
        "textposition": "middle left",
        "hovertext": [
            f"{label(row.path)}<br>{duration(row.total_us)}, {percent(row.total_us / (total or 1))}; "
            f"own {duration(row.self_us)}; backward {duration(row.backward_us)}; {count(row.calls)} calls"
            for row in rows
        ],
        "hoverinfo": "text",
        "marker": {
            "colors": [row.self_us for row in rows],
            "colorscale": [[0, LEVEL], [1, FASTER]],
            "cmin": 0,
            "cmax": max(1e-3, *(row.self_us for row in rows)),
            "line": {"width": 0},
            "showscale": False,
        },
    }
    layout = {
        "height": _LEVEL_HEIGHT * (min(max(row.depth for row in rows), _DEEPEST) + 2) + 30,
        "margin": {"l": 0, "r": 0, "t": 4, "b": 4},
        "uniformtext": {"minsize": 11, "mode": "hide"},
    }
    return {"data": [trace], "layout": layout}


def _tree(rows: Sequence[Module], total: float) -> Block:
    columns = [
        Column("path"),
        number("calls", "calls", count),
        number("total_us", "total", duration, "forward time with the child modules"),
        number("share", "share", percent, "of the time in all modules", lambda row: row.total_us / (total or 1)),
        number("self_us", "own", duration, "forward time outside the child modules"),
        number("backward_us", "backward", duration, "backward operators of the module's own forward operators"),
        number("device_us", "device", duration, "launched by its own forward operators")
        if any(row.device_us for row in rows)
        else None,
        number("allocated_bytes", "allocated", size, "by its own forward operators")
        if any(row.allocated_bytes for row in rows)
        else None,
    ]
    listing = table(rows, columns, label="modules", name="modules")
    names = {"names": [row.name for row in rows], "depths": [row.depth for row in rows]}
    return {**listing, "kind": "tree", "title": "module", **names}
