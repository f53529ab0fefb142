"""Printing the summary of a trace or run, its memory, and the difference between two of them."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from profiling.analysis.communication import rank_labels
from profiling.analysis.memory import DeviceMemory, memory_labels
from profiling.analysis.summary import Summary, TraceInfo
from profiling.diff.differences import Diff
from profiling.format import duration, duration_change, phase_name, size, visible
from profiling.terminal.tables import FittedTable, PlainConsole, title_with_count

_BARS = " ▁▂▃▄▅▆▇█"
_CURVE_WIDTH = 72
_DEEPEST_INDENT = 40
_UNCERTAIN = (
    "~ cannot tell from these windows: single steps of A and of B take equally long, or there is only one. "
    "To know, measure: python -m train.ab, or python -m profiling ab for scripts"
)


def show_summary(summary: Summary, by: str, top: int) -> None:
    """Print the trace, its steps and phases, and the first `top` rows of the table `by`, a key of `_TABLES`."""
    console = PlainConsole()
    _show_trace(console, summary.trace)
    counts = ", ".join(f"{number:,} {category}" for category, number in summary.events.items())
    console.print(f"{sum(summary.events.values()):,} events: {counts}", style="dim")
    time = summary.step_time
    steps = f"{len(summary.steps)} steps, median {duration(time.median_us)}" if time.marked else "no steps are marked"
    busy = f"; device busy {duration(summary.device_busy_us)}" if summary.devices else ""
    console.print(f"{steps}; {time.words}{busy}")
    _show_step(console, summary)
    for timing in summary.timings:
        overhead = timing.profiler_overhead
        console.print(
            f"{timing.stage}, not profiled: median step {duration(timing.median_us)}, "
            f"{timing.samples_per_s:,.0f} samples/s"
            + (f"; the profiler adds {overhead:+.0%} to a traced step" if overhead is not None else ""),
        )
    if by != "phase":
        console.print(_phases(summary, top))
    if summary.waited_for:
        console.print(_waited_for(summary, top))
    console.print(_TABLES[by](summary, top))
    for label, device in zip(memory_labels(summary.memory, summary.trace.files), summary.memory, strict=True):
        _show_device_memory(console, label, device, top=0)
    ranks = summary.communication.ranks
    for label, rank in zip(rank_labels(ranks, summary.trace.files), ranks, strict=True):
        console.print(
            f"{label}: collectives {duration(rank.busy_us)}, of which {duration(rank.exposed_us)} not hidden "
            "by computing",
        )
    for late in summary.communication.stragglers:
        group = " ".join(filter(None, (late.group, late.group_ranks)))
        console.print(
            f"{late.collective}{f' of {group}' if group else ''}: ranks waited {duration(late.waited_us)} in "
            f"{late.calls} calls, {late.last_share:.0%} of them for rank {late.last_rank}",
        )


def show_memory(info: TraceInfo, devices: list[DeviceMemory]) -> None:
    """Print the memory curve of each device, and which operators allocated the memory alive at its peak."""
    console = PlainConsole()
    _show_trace(console, info)
    if not devices:
        console.print("no memory events: record with profile_memory=True")
    for label, device in zip(memory_labels(devices, info.files), devices, strict=True):
        _show_device_memory(console, label, device, top=15)


def show_diff(difference: Diff, top: int) -> None:
    """Print the phases, the first `top` causes, and which operators replaced which."""
    console = PlainConsole()
    for letter, files in (("A", difference.a), ("B", difference.b)):
        console.print(f"{letter}: {files[0]}" + (f" and {len(files) - 1} more" if files[1:] else ""))
    for note in difference.notes:
        console.print(note, style="yellow")
    times = ", ".join(
        " ".join(filter(None, (stage.stage, duration(stage.a_us), "->", duration(stage.b_us))))
        + f" ({duration_change(stage.difference_us)})"
        for stage in difference.stages
    )
    console.print(
        f"per {difference.unit}: {times}; {difference.attributed_share:.0%} of the phases' differences attributed, "
        f"{duration(difference.unattributed_us)} not",
        style="bold",
    )
    waits = any(row.waiting_us for row in difference.phases)
    columns = ["A", "B", "change", "operators", "python"] + (["waiting"] if waits else [])
    uncertain = {row.phase for row in difference.phases if row.uncertain}
    caption = _UNCERTAIN if uncertain else ""
    least = ("waiting", "python", "operators", "A", "B")
    table = FittedTable("phases", ["phase"], columns, leave_out=least, caption=caption)
    for row in difference.phases:
        parts = [row.operators_us, row.python_us] + ([row.waiting_us] if waits else [])
        name = phase_name(row.phase, row.derived)
        change = _change(row.difference_us, row.phase in uncertain)
        style = "dim" if row.uncertain else ""
        table.add_row(name, duration(row.a_us), duration(row.b_us), change, *map(duration_change, parts), style=style)
    console.print(table)
    table = FittedTable(title_with_count("causes", len(difference.causes), top), ["phase", "cause"], ["change"])
    for cause in difference.causes[:top]:
        style = "dim" if cause.phase in uncertain else ""
        table.add_row(cause.phase, cause.text, _change(cause.difference_us, cause.phase in uncertain), style=style)
    console.print(table)
    if difference.kernels:
        title = title_with_count("kernels by device time", len(difference.kernels), top)
        columns = ["A", "B", "difference"]
        table = FittedTable(
            title, ["kernel", "operator", "change"], columns, leave_out=("operator", "A", "B", "change")
        )
        for kernel in difference.kernels[:top]:
            sides = duration(kernel.a_device_us), duration(kernel.b_device_us)
            table.add_row(kernel.name, kernel.operator, kernel.change, *sides, duration_change(kernel.difference_us))
        console.print(table)
    for swap in difference.replaced[:top]:
        console.print(
            f"{swap.phase}, under {swap.under}: {_few(swap.removed)} -> {_few(swap.added)} "
            f"({duration_change(swap.difference_us)})",
        )
    for device in difference.memory:
        peaks = f"{size(device.a_own_peak_bytes)} -> {size(device.b_own_peak_bytes)}"
        in_all = f"{size(device.a_peak_bytes)} -> {size(device.b_peak_bytes)}"
        before = "" if peaks == in_all else f" ({in_all} with what was there before the windows)"
        console.print(f"{device.device}: peak {peaks}{before}", highlight=False)


def _change(difference_us: float, uncertain: bool) -> str:
    return f"~ {duration_change(difference_us)}" if uncertain else duration_change(difference_us)


def _few(names: Sequence[str], shown: int = 3) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _show_trace(console: Console, info: TraceInfo) -> None:
    first, *others = dict.fromkeys(info.files)  # a file of several ranks is listed once for each
    files = f"{first} and {len(others)} more" if others else first
    ranks = "rank " + ", ".join(map(str, info.ranks))
    console.print(f"{files}: {info.device}, {ranks}, {duration(info.extent_us)}", style="bold")
    for note in info.notes:
        console.print(note, style="yellow")


def _phases(summary: Summary, top: int) -> FittedTable:
    columns = ["calls", "total", "own", "operators", "python"]
    columns += ["waiting", "device"] if summary.devices else []
    columns += ["allocated"] if summary.memory else []
    least = ("allocated", "calls", "total", "device", "python", "operators", "waiting")
    table = FittedTable("phases", ["phase"], columns, leave_out=least)
    for row in summary.phases[:top]:
        times = [row.total_us, row.self_us, row.operator_us, row.python_us]
        times += [row.wait_us, row.device_us] if summary.devices else []
        name = phase_name(row.name, row.derived)
        calls = f"{row.calls:,}" if row.calls else "–"  # what is derived has time, but no call of its own
        table.add_row(name, calls, *map(duration, times), *_allocated(summary, row.allocated_bytes))
    return table


def _show_step(console: Console, summary: Summary) -> None:
    """Print what a step consists of, what bounds it, and the calls that block it."""
    rows = summary.steps
    parts = {
        "operators": sum(row.operator_us for row in rows),
        "Python": sum(row.python_us for row in rows),
        "loading": sum(row.load_us for row in rows),
        "waiting": sum(row.device_wait_us for row in rows),
    }
    mean = [f"{name} {duration(time / len(rows))}" for name, time in parts.items() if time]
    total = duration(sum(row.total_us for row in rows) / len(rows))
    what = f"a step takes {total} on average" if summary.step_time.marked else f"each trace lasts {total} on average"
    if len(rows) == 1:
        what = f"the {'step takes' if summary.step_time.marked else 'trace lasts'} {total}"
    console.print(f"{what}: {' + '.join(mean)}")
    kinds = Counter[str]()
    for row in rows:
        kinds.update(row.waiting_us)
    if kinds:
        shown = ", ".join(f"{kind} {duration(time / len(rows))}" for kind, time in kinds.most_common())
        console.print(f"it waits while: {shown}")
    if summary.devices:
        by_device = sum(row.bound == "device" for row in rows)
        several = f"the device in {by_device} of {len(rows)} steps, else by the host"
        console.print(f"bound by {several if len(rows) > 1 else f'the {rows[0].bound}'}")
    in_all = f" in all {len(rows)} steps" if len(rows) > 1 else ""
    for call in summary.blocked_by[:3]:
        calls = f"{call.calls:,} calls of {call.name}"
        console.print(f"{call.kind}: {calls} block the host for {duration(call.wait_us)}{in_all}")


def _waited_for(summary: Summary, top: int) -> FittedTable:
    title = title_with_count("the host waits for", len(summary.waited_for), top)
    text = ["what", "launched by", "waits in"]
    table = FittedTable(title, text, ["waits", "time"], leave_out=("waits", "waits in", "launched by"))
    for row in summary.waited_for[:top]:
        by = f"{row.operator} ({row.launched_in})" if row.operator else ""
        table.add_row(f"{row.kind}: {row.name}", by, row.waited_in, f"{row.waits:,}", duration(row.wait_us))
    return table


def _operators(summary: Summary, top: int) -> FittedTable:
    columns = ["calls", "self", "total"]
    columns += ["device"] if summary.devices else []
    columns += ["allocated"] if summary.memory else []
    title = title_with_count("operators", len(summary.operators), top)
    table = FittedTable(title, ["operator"], columns, leave_out=("allocated", "calls", "total", "device"))
    for row in summary.operators[:top]:
        times = [row.self_us, row.total_us] + ([row.device_us] if summary.devices else [])
        name = row.name if row.shapes is None else f"{row.name} {row.shapes}"
        frames = row.stack.splitlines() if row.stack else []
        cell = Text("\n".join([visible(name), *(f"  {visible(frame)}" for frame in frames)]))
        table.add_row(cell, f"{row.calls:,}", *map(duration, times), *_allocated(summary, row.allocated_bytes))
    return table


def _stacks(summary: Summary, top: int) -> FittedTable:
    table = _operators(summary, top)
    if not any(row.stack for row in summary.operators):
        table.title = f"{table.title}: no stacks; record with stacks"
    return table


def _modules(summary: Summary, top: int) -> FittedTable:
    title = (
        title_with_count("modules", len(summary.modules), top)
        if summary.modules
        else "modules: none; record with stacks"
    )
    table = FittedTable(
        title, ["module"], ["calls", "total", "self", "backward"], leave_out=("calls", "backward", "self")
    )
    for row in summary.modules[:top]:
        times = (row.total_us, row.self_us, row.backward_us)
        table.add_row("  " * min(row.depth, _DEEPEST_INDENT) + row.name, f"{row.calls:,}", *map(duration, times))
    return table


def _kernels(summary: Summary, top: int) -> FittedTable:
    title = (
        title_with_count("kernels", len(summary.kernels), top)
        if summary.kernels
        else "kernels: none, nothing ran on a device"
    )
    table = FittedTable(
        title, ["kernel", "operator"], ["calls", "device", "occupancy"], leave_out=("occupancy", "calls")
    )
    for row in summary.kernels[:top]:
        occupancy = "" if row.occupancy_percent is None else f"{row.occupancy_percent:.0f} %"
        table.add_row(row.name, row.operator, f"{row.calls:,}", duration(row.device_us), occupancy)
    return table


def _allocated(summary: Summary, count: int) -> list[str]:
    return [size(count)] if summary.memory else []


_TABLES = {
    "operator": _operators,
    "shape": _operators,
    "stack": _stacks,
    "phase": _phases,
    "module": _modules,
    "kernel": _kernels,
}


def _show_device_memory(console: Console, label: str, device: DeviceMemory, top: int) -> None:
    console.print(
        f"{label}: peak {device.peak_text} at {duration(device.peak_time_us)}; allocated "
        f"{size(device.allocated_bytes)} in {device.allocations:,} allocations, freed {size(device.freed_bytes)}",
    )
    if not top:
        return
    console.print(_curve(device, min(_CURVE_WIDTH, console.width)), style="cyan")
    table = FittedTable(
        title_with_count("alive at the peak", len(device.alive_at_peak), top),
        ["operator", "phase"],
        ["bytes", "count"],
    )
    for row in device.alive_at_peak[:top]:
        table.add_row(row.operator, row.phase, size(row.bytes), f"{row.allocations:,}")
    if device.before_bytes:
        table.add_row("(before the window)", "", size(device.before_bytes), "")
    console.print(table)


def _curve(device: DeviceMemory, width: int) -> str:
    """Return the curve as a row of `width` bars; each shows the highest value within its column."""
    times, values = device.curve.time_us, device.curve.bytes
    low, span = min(0, *values), max(times[-1] - times[0], 1e-9)
    highest = max(max(values) - low, 1)
    columns = [low] * width
    for time, value in zip(times, values, strict=True):
        column = min(int((time - times[0]) / span * width), width - 1)
        columns[column] = max(columns[column], value)
    return "".join(_BARS[round((value - low) / highest * (len(_BARS) - 1))] for value in columns)
