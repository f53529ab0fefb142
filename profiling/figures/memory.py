"""Memory over time: the curve of each device, its peak, and the memory alive at the peak, of one run or of two."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from profiling.analysis.memory import DeviceMemory
from profiling.figures.blocks import Block, Column, chart, group, message, more, number, panel, table
from profiling.figures.style import LEGEND, LINES, Figure, label
from profiling.format import count, duration, percent, size, size_unit

_ALONE: Figure = {"color": "#3f8fd2", "width": 1.5, "shape": "hv"}
_FIRST = 6  # charts shown before a click on the button for the others
_BEFORE = "(before the window)"


class WindowMemory(NamedTuple):
    """The memory of one device in one window.

    `side` and `look` are the title and the arm's style of a side of a comparison; empty for a run alone.
    """

    device: DeviceMemory
    window: str
    side: str = ""
    look: str = ""

    @property
    def peak(self) -> str:
        """The peak and its time in words."""
        peak = f"peak {self.device.peak_text} at {duration(self.device.peak_time_us)}"
        return f"{self.side} {peak}".strip()


def memory_view(devices: Sequence[WindowMemory]) -> list[Block]:
    """Return the blocks of the view: charts of both sides together where they are of one stage and device."""
    if not devices:
        hint = "Run with `profiler=light` or `profiler=full`; with torch.profiler itself, pass `profile_memory=True`."
        return [message("empty", "This trace has no memory events.", hint)]
    parts = [_part(curves) for curves in _paired(devices)]
    others = parts[_FIRST:]
    rest = [more(f"Show the other {len(others)}", others)] if others else []
    return [*parts[:_FIRST], *rest, _traffic(devices)]


def curve(device: DeviceMemory, name: str, line: Figure, unit_bytes: int) -> Figure:
    """Return the curve of one device over the milliseconds of its window."""
    shown, points = device.curve, label(name)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [round(time_us / 1e3, 3) for time_us in shown.time_us],
        "y": [round(held / unit_bytes, 3) for held in shown.bytes],
        "text": [
            f"{points}: {size(held)} at {duration(time_us)}"
            for time_us, held in zip(shown.time_us, shown.bytes, strict=True)
        ],
        "hoverinfo": "text",
        "line": line,
    }


def _paired(devices: Sequence[WindowMemory]) -> list[list[WindowMemory]]:
    """Group the curves of both sides by window and device; where the names differ, by the order of the windows."""
    groups: dict[tuple[str | int, str], list[WindowMemory]] = {}
    counts: dict[tuple[str, str], int] = {}
    for each in devices:
        own = each.side, each.device.device
        counts[own] = counts.get(own, -1) + 1
        named = any(other.side != each.side and other.window == each.window for other in devices)
        groups.setdefault((each.window if named else counts[own], each.device.device), []).append(each)
    return list(groups.values())


def _part(curves: Sequence[WindowMemory]) -> Block:
    window, device = curves[0].window, curves[0].device.device
    title = f"{window}, {device}"
    text = f"Allocated memory over time: {'; '.join(each.peak for each in curves)}"
    return group(
        "columns wide-left",
        panel(f"Memory, {title}", chart(_curves(curves), text, f"memory-{window}-{device}")),
        panel(f"Alive at the peak, {title}", _alive(curves)),
    )


def _curves(curves: Sequence[WindowMemory]) -> Figure:
    alone = len(curves) == 1
    highest = max(1, *(each.device.peak_bytes for each in curves))
    lowest = min(0, *(min(each.device.curve.bytes, default=0) for each in curves))  # relative to the window's start
    unit, unit_bytes = size_unit(highest)
    lines, peaks = [], []
    for each in curves:
        name = each.side or each.device.device
        style = LINES[each.look] if each.look else _ALONE
        peak = each.device.peak_text
        lines.append(
            {
                **curve(each.device, name, style, unit_bytes),
                "name": label(f"{name}, peak {peak}"),
                "fill": "tozeroy" if alone else "none",
                "fillcolor": "rgb(63 143 210 / .2)",
            }
        )
        peaks.append(
            {
                "type": "scatter",
                "mode": "markers+text" if alone else "markers",
                "x": [each.device.peak_time_us / 1e3],
                "y": [each.device.peak_bytes / unit_bytes],
                "text": [f"peak {peak}"],
                "textposition": "top center",
                "cliponaxis": False,
                "hoverinfo": "skip",
                "showlegend": False,
                "marker": {"symbol": "diamond", "size": 9, "color": style["color"]},
            }
        )
    bounds = [lowest / unit_bytes, highest / unit_bytes * 1.15]
    layout = {
        "height": 300,
        "showlegend": not alone,
        "legend": LEGEND,
        "xaxis": {"title": {"text": "ms since the window began"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": unit}, "rangemode": "tozero", "range": bounds},
    }
    return {"data": [*lines, *peaks], "layout": layout}


class _HeldMemory(NamedTuple):
    """What an operator holds at the peak, for each side; None where it holds nothing."""

    operator: str
    phase: str
    bytes: Sequence[int | None]
    allocations: Sequence[int | None]


def _alive(curves: Sequence[WindowMemory]) -> Block:
    """Return the table of memory alive at the peak, by operator and phase, with a column for each side."""
    held: dict[tuple[str, str], dict[int, tuple[int, int | None]]] = {}
    for side, each in enumerate(curves):
        for row in each.device.alive_at_peak:
            held.setdefault((row.operator, row.phase), {})[side] = (row.bytes, row.allocations)
        if each.device.before_bytes:
            held.setdefault((_BEFORE, ""), {})[side] = (each.device.before_bytes, None)
    places = range(len(curves))
    rows = [
        _HeldMemory(*names, *zip(*(of.get(side, (None, None)) for side in places), strict=True))
        for names, of in held.items()
    ]
    rows.sort(key=lambda row: -(row.bytes[-1] or 0))
    sides = [
        number(f"{each.look or 'alone'}_bytes", each.side or "bytes", size, value=_bytes_of(side))
        for side, each in enumerate(curves)
    ]
    peak = curves[0].device.peak_bytes
    single = [
        number("share", "of the peak", percent, value=lambda row: row.bytes[0] / peak if peak else None),
        number("alone_count", "count", count, "allocations", value=lambda row: row.allocations[0]),
    ]
    return table(
        rows,
        [
            Column("operator", "operator", look="wraps"),
            Column("phase", "phase", look="brief"),
            *sides,
            *(() if curves[0].look else single),
        ],
        label="memory alive at the peak",
        name=f"alive-at-peak-{curves[0].window}-{curves[0].device.device}",
        sort=f"-{curves[-1].look or 'alone'}_bytes",
    )


def _bytes_of(side: int) -> Callable[[_HeldMemory], int | None]:
    return lambda row: row.bytes[side]


def _traffic(devices: Sequence[WindowMemory]) -> Block:
    """Return the table of allocations and frees of each device."""

    def of(key: str, title: str, write: Callable[[float], str] = size, help: str = "") -> Column:
        return number(key, title, write, help, lambda row: getattr(row.device, key))

    return panel(
        "Traffic",
        table(
            devices,
            [
                Column("side", "run", look="brief") if devices[0].look else None,
                Column("name", "window", value=lambda row: row.window),
                Column("device", "device", look="brief", value=lambda row: row.device.device),
                of("own_peak_bytes", "peak", help="above the level at which the window began"),
                of("peak_bytes", "peak with what was before", help="before the window"),
                of("peak_time_us", "at", duration, "since the window began"),
                number(
                    "reserved_peak_bytes",
                    "reserved",
                    size,
                    "the most that the allocator held from the device",
                    lambda row: row.device.reserved_peak_bytes or None,
                ),
                of("start_bytes", "at the start"),
                of("allocated_bytes", "allocated", help="in all"),
                of("allocations", "allocations", count),
                of("freed_bytes", "freed"),
                of("frees", "frees", count),
            ],
            label="what each device's allocator did",
            name="memory-traffic",
        ),
    )
