"""Work on devices: kernels and the operators that launched them, busy and idle time, copies."""

from collections.abc import Sequence

from profiling.analysis.kernels import DeviceActivity, Gap, Kernel
from profiling.analysis.summary import Summary
from profiling.figures.blocks import Block, Column, chart, group, message, note, notes, number, panel, table
from profiling.figures.style import INK, LEGEND, LEVEL, PARTS, label, part, rows, shorten
from profiling.format import axis_unit, count, duration, percent, size

_LARGEST = 15  # kernels in the chart
_SHORT = 0.15  # share of a bar that is too short for its label
_LABEL_WIDTH = 130  # pixels right of the bars, for the label of a short idle time
_DIRECTIONS = {
    "HtoD": "host to device",
    "DtoH": "device to host",
    "DtoD": "device to device",
    "HtoH": "host to host",
    "PtoP": "device to peer",
    "set": "fill",
}


def kernels(summary: Summary, names: Sequence[str]) -> list[Block]:
    """Return the blocks of the view; `names`: those of the windows."""
    said = notes(summary.trace.notes)
    if not summary.devices:
        hint = "Kernels, gaps and copies appear where the trace is of a GPU or another accelerator."
        return [*said, message("empty", "Nothing ran on a device: this trace is of the CPU.", hint)]
    titled = [
        (f"{device.device}, {names[device.window]}" if len(names) > 1 else device.device, device)
        for device in summary.devices
    ]
    tables = []
    if any(device.gaps for device in summary.devices):
        tables.append(_gaps(titled))
    if summary.copies:
        tables.append(_copies(summary))
    return [
        *said,
        _busy(titled, summary),
        group("columns" if len(tables) > 1 else "", *tables),
        *([_largest(summary.kernels), _all(summary.kernels)] if summary.kernels else ()),
    ]


def _share(device: DeviceActivity) -> float:
    return device.busy_us / device.span_us if device.span_us else 0.0


def _busy(titled: Sequence[tuple[str, DeviceActivity]], summary: Summary) -> Block:
    devices = summary.devices
    unit, unit_us = axis_unit(max(device.span_us for device in devices))
    labels = []
    for device in devices:
        busy = f"busy {duration(device.busy_us)}, {percent(_share(device))}"
        idle = f"idle {duration(device.idle_us)}, {percent(device.idle_us / (device.span_us or 1))}"
        is_short = device.busy_us < device.span_us * _SHORT
        labels.append(("", f"{busy}; {idle}") if is_short else (busy, idle))
    data = [
        part(
            name,
            [getattr(device, key) / unit_us for device in devices],
            text=[texts[place] for texts in labels],
            cliponaxis=False,
            marker=style,
            textfont={"color": ink},
        )
        for place, (name, key, style, ink) in enumerate(
            (("busy", "busy_us", PARTS[0], "#ffffff"), ("idle", "idle_us", {"color": LEVEL}, INK))
        )
    ]
    layout = {
        "barmode": "stack",
        "height": 40 * len(devices) + 80,
        "margin": {"r": _LABEL_WIDTH},
        "xaxis": {"title": {"text": unit}},
        "yaxis": rows([title for title, _ in titled]),
        "legend": LEGEND,
    }
    text = "; ".join(f"{title}: busy {percent(_share(device))}" for title, device in titled)
    return panel(
        f"Devices: {', '.join(summary.trace.device_names) or summary.trace.device}",
        note(
            "From the start of the first step to the end of the last one; work on several streams at once counts once "
            "as busy."
        ),
        chart({"data": data, "layout": layout}, text, "devices"),
        table(
            titled,
            [
                Column("device", "device", look="brief", value=lambda row: row[0]),
                number("busy_us", "busy", duration, value=lambda row: row[1].busy_us),
                number("idle_us", "idle", duration, value=lambda row: row[1].idle_us),
                number("span_us", "steps", duration, value=lambda row: row[1].span_us),
                number("work_us", "work", duration, "the sum over all streams", lambda row: row[1].work_us),
                number("streams", "streams", count, value=lambda row: row[1].streams),
                number("gaps", "gaps", count, "stretches in which nothing ran", lambda row: row[1].gaps),
            ],
            label="devices",
            name="devices",
        ),
    )


def _gaps(titled: Sequence[tuple[str, DeviceActivity]]) -> Block:
    gaps = [(title, gap) for title, device in titled for gap in device.longest_gaps]
    gaps.sort(key=_negative_idle)
    return panel(
        "Longest gaps",
        table(
            gaps,
            [
                Column("device", "device", look="brief", value=lambda row: row[0]),
                number("start_us", "at", duration, "since the window began", lambda row: row[1].start_us),
                number("idle_us", "idle", duration, value=lambda row: row[1].idle_us),
                Column("before", "ended by", "the kernel that came next", lambda row: row[1].before),
            ],
            label="stretches in which a device ran nothing",
            name="gaps",
            sort="-idle_us",
        ),
    )


def _negative_idle(row: tuple[str, Gap]) -> float:
    return -row[1].idle_us


def _copies(summary: Summary) -> Block:
    return panel(
        "Copies and fills",
        table(
            summary.copies,
            [
                Column("direction", "direction", value=lambda row: _DIRECTIONS.get(row.direction, row.direction)),
                number("calls", "calls", count),
                number("device_us", "time", duration),
                number("bytes", "bytes", size, "empty where the trace does not say", lambda row: row.bytes or None),
            ],
            label="copies by direction",
            name="copies",
        ),
    )


def _largest(kernels: Sequence[Kernel]) -> Block:
    top = kernels[:_LARGEST]
    longest = max(1e-3, *(kernel.device_us for kernel in top))
    unit, unit_us = axis_unit(longest)
    bars = part(
        "",
        [kernel.device_us / unit_us for kernel in top],
        text=[f"{duration(kernel.device_us)}  {label(shorten(kernel.operator))}" for kernel in top],
        textposition="outside",
        cliponaxis=False,
        hovertext=[
            f"{label(shorten(kernel.name, 160))}<br>{duration(kernel.device_us)} in {count(kernel.calls)} calls, "
            f"launched by {label(shorten(kernel.operator, 80))}"
            for kernel in top
        ],
        marker=PARTS[0],
    )
    layout = {
        "height": 26 * len(top) + 70,
        "bargap": 0.3,
        "xaxis": {"title": {"text": f"{unit} on the device"}, "range": [0, longest / unit_us * 1.5]},
        "yaxis": rows([kernel.name for kernel in top]),
    }
    is_part = len(top) < len(kernels)
    title = f"The {len(top):,} longest of {len(kernels):,} kernels" if is_part else "Kernels by device time"
    text = f"Bars: {', '.join(f'{shorten(kernel.name)} {duration(kernel.device_us)}' for kernel in top[:3])}"
    return panel(title, chart({"data": [bars], "layout": layout}, text, "kernels"))


def _all(kernels: Sequence[Kernel]) -> Block:
    total = sum(kernel.device_us for kernel in kernels)
    optional = [
        number(
            "occupancy_percent",
            "occupancy",
            lambda value: f"{value:.0f} %",
            "estimated achieved occupancy, the mean weighted by time",
        ),
        number("blocks_per_sm", "blocks per SM", lambda value: count(float(f"{value:.3g}"))),
        number("registers", "registers", lambda value: f"{value:.0f}", "per thread"),
    ]
    return panel(
        "All kernels",
        table(
            kernels,
            [
                Column("name", "kernel"),
                Column("operator", "launched by"),
                number("calls", "calls", count),
                number("device_us", "device time", duration),
                number("share", "share", percent, "of all kernels' time", lambda row: row.device_us / (total or 1)),
                *(column for column in optional if any(getattr(kernel, column.key) is not None for kernel in kernels)),
            ],
            label="kernels",
            name="kernels",
            search="q",
        ),
    )
