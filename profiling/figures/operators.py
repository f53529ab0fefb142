"""The operators of a run: calls, times, input shapes, call stacks, device time and allocated memory."""

import re
from collections.abc import Sequence

from profiling.analysis.operators import Operator
from profiling.analysis.summary import Summary
from profiling.figures.blocks import Block, Column, chart, choice, message, note, number, panel, table
from profiling.figures.style import LEGEND, PARTS, label, part, rows, shorten
from profiling.format import axis_unit, count, duration, flops, percent, size

_GROUPS = {"": "operator", "shape": "input shapes", "stack": "call stack"}
_LACKING = {
    "shape": ("input shapes", "Record them with `record_shapes=True`; `python -m train` does."),
    "stack": ("stacks", "Record them with `python -m train profiler=full`, or with `with_stack=True`."),
}
_NO_FLOPS = "FLOPs are not in this trace: torch 2.14 leaves them out of the file, also with `with_flops=True`."
_SHOWN = 20  # bars of the chart
_MAX_LABEL = 68  # characters of a label beside a bar


def operators(summary: Summary, by: str) -> list[Block]:
    """Return the blocks of the view; `by`: what sets the rows apart beside the name, `shape`, `stack` or nothing."""
    found = summary.operators
    grouping = choice("Group by", "by", _GROUPS)
    if not found:
        hint = "Record the CPU too: `activities=[ProfilerActivity.CPU, …]`."
        return [grouping, message("empty", "This trace has no operators.", hint)]
    lacks = by != "" and not any(row.shapes or row.stack for row in found)
    problem = [message("empty", f"This trace has no {_LACKING[by][0]}.", _LACKING[by][1])] if lacks else []
    total = sum(row.self_us for row in found)
    listing = panel("Operators", *_missing(summary), _table(summary, total, "" if lacks else by))
    return [grouping, *problem, _chart(found, total), listing]


def _chart(found: Sequence[Operator], total: float) -> Block:
    shown = found[:_SHOWN]  # sorted by self time, largest first
    host = [row.self_us for row in shown]
    device = [0.0 if row.self_us else row.device_us for row in shown]  # work that no operator launched
    most = max(map(max, zip(host, device, strict=True)))
    unit, unit_us = axis_unit(most)
    hover = [
        "<br>".join(label(shorten(text, 120)) for text in (row.name, row.shapes, row.stack) if text) for row in shown
    ]
    more = {"textposition": "outside", "cliponaxis": False, "hovertext": hover}
    on_host = [f"{duration(us)}, {percent(us / total)}" if us else "" for us in host]
    on_device = [duration(us) if us else "" for us in device]
    title = f"Self time: the first {_SHOWN} of {len(found):,}" if len(found) > _SHOWN else "Self time"
    bars = [
        ("self time", host, on_host, PARTS[0]),
        ("on the device, not launched by an operator", device, on_device, PARTS[2]),
    ]
    data = [
        part(name, [us / unit_us for us in lengths], text=texts, marker=style, **more)
        for name, lengths, texts, style in bars
        if any(lengths)
    ]
    layout = {
        "height": 24 * len(shown) + 80,
        "bargap": 0.3,
        "barmode": "overlay",
        "legend": LEGEND,
        "showlegend": any(device),
        "xaxis": {"title": {"text": unit}, "range": [0, most / unit_us * 1.2 or 1]},
        "yaxis": rows([_name(row) for row in shown], _MAX_LABEL),
    }
    return panel(title, chart({"data": data, "layout": layout}, "Operators by self time", "operators"))


def _name(row: Operator) -> str:
    """Name an operator and its shapes or call site, each shortened so that both are readable."""
    detail = row.shapes or re.split(r"[/\\]", (row.stack or "").split("\n")[0])[-1]
    return f"{shorten(row.name, 30)}, {shorten(detail, 36)}" if detail else row.name


def _missing(summary: Summary) -> list[Block]:
    """Say which values the trace lacks, and how to record them."""
    lines = []
    if not summary.memory:
        lines.append("Memory was not recorded: record it with `profile_memory=True`.")
    if not any(row.flops for row in summary.operators):
        lines.append(
            "FLOPs are not in this trace: torch 2.14 leaves them out of the file, also with `with_flops=True`."
        )
    return [note(" ".join(lines))] if lines else []


def _table(summary: Summary, total: float, by: str) -> Block:
    found = summary.operators
    columns = [
        Column("name", "operator"),
        Column("shapes", "input shapes") if by == "shape" else None,
        Column("stack", "called from") if by == "stack" else None,
        number("calls", "calls", count),
        number("self_us", "self", duration, "time outside the operators that it calls"),
        number("share", "share", percent, "of the self time of all operators", lambda row: row.self_us / (total or 1)),
        number("total_us", "total", duration, "with the operators that it calls"),
        number("device_us", "device", duration, "on the device, in work that it launched itself")
        if summary.devices
        else None,
        number("allocated_bytes", "allocated", size, "what it allocated itself") if summary.memory else None,
        number("flops", "FLOPs", flops, "floating-point operations, where the profiler knows them")
        if any(row.flops for row in found)
        else None,
    ]
    sort = "" if summary.devices else "-self_us"  # with a device, its time counts in the order, too
    return table(found, columns, label="Operators", name="operators", sort=sort, search="q")
