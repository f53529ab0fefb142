"""The Overview of a run: step time, accuracy, memory, its steps and what they wait for, environment, configuration."""

from collections.abc import Iterator, Sequence

from profiling.analysis.phases import Phase
from profiling.analysis.summary import Summary
from profiling.analysis.timings import StageTiming
from profiling.figures.blocks import (
    Block,
    Column,
    card,
    chart,
    definitions,
    group,
    listed,
    mark,
    message,
    note,
    number,
    panel,
    table,
)
from profiling.figures.configuration import Setting, as_text, flat
from profiling.figures.steps import timed_steps, traced_steps
from profiling.figures.style import LEGEND, PARTS, label, rows
from profiling.format import axis_unit, count, counted, duration, minute, percent, phase_name, size
from profiling.machine_load import BUSY_CORES, described
from profiling.run_record import RunRecord, effective_changes

_WAITS = {
    "data": "steps wait for the data loader",
    "device": "calls that block the host until device work has ended",
    "driver": "calls that allocate memory, load code or start up, while the device idles",
    "python": "time between operators: Python and dispatch",
    "nothing": "nearly all time goes into operators",
}


def overview(
    summary: Summary, record: RunRecord | None, problem: str, stage: str | None, names: Sequence[str]
) -> list[Block]:
    """Return the blocks of the view.

    Args:
        summary: of the run or of one window.
        record: that of the run; None if there is none, or for the reason that `problem` gives.
        problem: one line, or empty.
        stage: that of the window, if only one is shown and the record knows it.
        names: those of the windows.
    """
    return [
        *_notes(summary, record, problem),
        group("cards", *_cards(summary, record, stage, names)),
        *timed_steps(record, stage),
        traced_steps(summary, names),
        *(_waited(summary) if summary.waited_for else ()),
        _phases(summary),
        group("columns", _run(record), _trace(summary)),
        *([_configuration(record)] if record else ()),
    ]


def _notes(summary: Summary, record: RunRecord | None, problem: str) -> Iterator[Block]:
    """Say what is partial or missing, and why."""
    if record and record.status != "complete":
        reason = record.error or "no reason was recorded"
        yield message("partial", f"This run is {record.status}: {reason}", "Shown are the stages that ended.")
    if record and (cores := record.others_before_cores or 0.0) >= BUSY_CORES:
        reason = "Times are longer and less certain; with several threads, many times longer."
        yield message("partial", f"Other processes used {described(cores)} when this run began.", reason)
    if not summary.trace.whole:
        partial = message("partial", "A trace is not whole: what could be analyzed is shown.")
        yield listed(summary.trace.notes, partial)
    elif summary.trace.notes:
        yield listed(summary.trace.notes)
    if problem:
        yield message("partial", f"The run's record cannot be used: {problem}")


def _cards(summary: Summary, record: RunRecord | None, stage: str | None, names: Sequence[str]) -> Iterator[Block]:
    """Return the main results. Step times are unprofiled if the run recorded them: the profiler slows traced steps."""
    timings = [timing for timing in summary.timings if stage in (None, timing.stage)]
    yield from map(_stage_card, timings)
    if not timings:
        steps = f"traced; the median of {counted(len(summary.steps), 'step')}"
        marked = summary.step_time.marked
        how = steps if marked else "no steps are marked: the whole trace"
        yield card("Step time", duration(summary.step_time.median_us), how)
    if record and "accuracy" in record.results:
        loss = f"{record.results['loss']:.4f}" if "loss" in record.results else "–"
        yield card("Accuracy", percent(record.results["accuracy"]), f"loss {loss}, on held-out images")
    yield _memory_card(summary, names)
    yield from _device_cards(summary)
    time = summary.step_time
    if time.mostly:
        yield card("A step is mostly", time.mostly, percent(time.mostly_share))
    yield card("Waits most for", time.waits_for, *_waits(summary, names))


def _stage_card(timing: StageTiming) -> Block:
    details = f"median of {timing.steps:,}"
    if timing.profiler_overhead is not None:
        details += f"; the profiler adds {percent(timing.profiler_overhead)}"
    rate = f"{round(timing.samples_per_s):,} samples/s"
    return card(f"Step time, {timing.stage}", duration(timing.median_us), rate, details)


def _memory_card(summary: Summary, names: Sequence[str]) -> Block:
    peak = max(summary.memory, key=lambda device: device.own_peak_bytes, default=None)
    if peak is None:
        return card("Memory peak", "–", "not recorded; use profile_memory=True")
    where = f"{peak.device}, in {names[peak.window]}" if len(names) > 1 else peak.device
    own, in_all = size(peak.own_peak_bytes), size(peak.peak_bytes)
    before = [] if own == in_all else [f"{in_all} with what was there before the window"]
    return card("Memory peak", own, where, *before)


def _device_cards(summary: Summary) -> Iterator[Block]:
    used = [device for device in summary.devices if device.span_us > 0]
    if used:
        shares = [device.busy_us / device.span_us for device in used]
        low, high = percent(min(shares)), percent(max(shares))
        devices = ", ".join(dict.fromkeys(device.device for device in used))
        yield card("Device utilization", low if low == high else f"{low} to {high}", devices, "busy in the steps")


def _waits(summary: Summary, names: Sequence[str]) -> list[str]:
    """Explain what the steps wait for; if windows differ, in a line for each kind of waiting."""
    kinds = list(dict.fromkeys(time.waits_for for time in summary.step_times))
    if len(kinds) < 2:
        return [_WAITS[summary.step_time.waits_for]]
    windows = list(zip(summary.step_times, names, strict=True))
    return [f"{kind}: {', '.join(name for time, name in windows if time.waits_for == kind)}" for kind in kinds]


def _waited(summary: Summary) -> list[Block]:
    """Return panels of what the steps wait for, and of the calls that block them."""
    bound = sum(step.bound == "device" for step in summary.steps)
    return [
        panel(
            "What the host waits for",
            note(
                f"The device bounds {bound:,} of {counted(len(summary.steps), 'step')}, the host the others. "
                "Each wait is divided by what the device did meanwhile, on the streams that were waited for."
            ),
            table(
                summary.waited_for,
                [
                    Column("kind", "kind", look="brief"),
                    Column("name", "kernel, copy or call"),
                    Column("operator", "operator", "launched the kernel or copy", look="brief"),
                    Column("launched_in", "launched in", look="brief"),
                    Column("waited_in", "waits in", "the phase in which the host waits", look="brief"),
                    number("waits", "waits", count),
                    number("wait_us", "time", duration),
                ],
                label="what the host waits for",
                name="waited-for",
                sort="-wait_us",
            ),
        ),
        panel(
            "Calls that block the host",
            table(
                summary.blocked_by,
                [
                    Column("name", "call"),
                    Column("kind", "kind", look="brief"),
                    number("calls", "calls", count),
                    number("wait_us", "blocks for", duration),
                ],
                label="calls that block the host",
                name="blocked-by",
                sort="-wait_us",
            ),
        ),
    ]


def _phases(summary: Summary) -> Block:
    """Return the chart and the table of time by phase and kind."""
    names = [phase_name(phase.name, phase.derived) for phase in summary.phases]
    unit, unit_us = axis_unit(max((phase.self_us for phase in summary.phases), default=0))
    kinds = [("operator_us", "operators"), ("python_us", "python"), ("wait_us", "waiting")]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": kind,
            "y": list(range(len(names))),
            "x": [getattr(phase, key) / unit_us for phase in summary.phases],
            "hovertext": [
                f"{label(name)}, {kind}<br>{duration(getattr(phase, key))} of {duration(phase.self_us)}"
                for phase, name in zip(summary.phases, names, strict=True)
            ],
            "hoverinfo": "text",
            "marker": style,
        }
        for (key, kind), style in zip(kinds, PARTS, strict=False)
        if any(getattr(phase, key) for phase in summary.phases)
    ]
    layout = {
        "height": 26 * len(names) + 80,
        "barmode": "stack",
        "bargap": 0.25,
        "legend": LEGEND,
        "xaxis": {"title": {"text": f"{unit} in the traced steps"}},
        "yaxis": rows(names),
    }
    text = "Traced time by phase"
    device = bool(summary.devices)
    columns = [
        Column("name", "phase", "derived: not marked in the trace", content=_phase_title),
        Column("derived"),
        number("calls", "calls", count),
        number("total_us", "total", duration, "from its start to its end"),
        number("self_us", "own", duration, "without the phases inside it"),
        number("operator_us", "operators", duration, "running operators"),
        number("python_us", "python", duration, "between operators: Python, dispatch, waiting for other threads"),
        number("wait_us", "waiting", duration, "in calls that block the host") if device else None,
        number("device_us", "device", duration, "on the device, by operators of this phase") if device else None,
        number("allocated_bytes", "allocated", size) if summary.memory else None,
    ]
    drawn = chart({"data": data, "layout": layout}, text, "phases")
    return panel(text, group("beside", drawn, table(summary.phases, columns, label="Phases", name="phases")))


def _phase_title(phase: Phase) -> str:
    return phase_name(phase.name, phase.derived)


def _run(record: RunRecord | None) -> Block:
    if record is None:
        text = "No record.json lies beside the traces: configuration, accuracy and unprofiled timings are not known."
        return panel("Run", message("empty", text, "`python -m train` writes one."))
    at = record.environment
    machine = f"{at.device_name} ({at.device}), {at.cores} cores, {at.threads} threads, {size(at.memory_bytes)}"
    return panel(
        "Run",
        definitions(
            ("started", minute(record.started)),
            ("status", record.status),
            ("machine", f"{machine}, {at.precision}"),
            ("host", f"{at.host}, {at.processor}, {at.platform}"),
            ("versions", ", ".join(f"{name} {version}" for name, version in at.versions.items())),
        ),
        definitions(*(_result(name, value) for name, value in record.results.items()), title="Results"),
    )


def _result(name: str, value: float) -> tuple[str, str]:
    """Write a result; the end of its name gives the unit."""
    title = name.removesuffix("_s").removesuffix("_per").replace("_", " ")
    if name == "accuracy":
        return title, percent(value)
    if name.endswith("_per_s"):
        return title, f"{value:,.0f} /s"
    if name.endswith("_s"):
        return title, duration(value * 1e6)
    return title, f"{value:,.5g}"


def _trace(summary: Summary) -> Block:
    trace = summary.trace
    return panel(
        "Trace",
        definitions(
            ("files", [path.replace("\\", "/").rpartition("/")[2] for path in trace.files]),
            ("device", ", ".join([trace.device, *trace.device_names])),
            ("rank" if len(trace.ranks) == 1 else "ranks", ", ".join(map(str, trace.ranks))),
            ("threads", count(trace.threads)),
            ("extent", duration(trace.extent_us)),
            ("events", ", ".join(f"{number:,} {kind}" for kind, number in summary.events.items())),
            ("whole", "yes" if trace.whole else "no"),
        ),
    )


def _configuration(record: RunRecord) -> Block:
    """Return the resolved configuration; lines that differ from the baseline come first."""
    values = flat(record.config)
    differing = effective_changes(record.changed)
    changed = [Setting(key, values.get(key, as_text(now)), as_text(before)) for key, (before, now) in differing.items()]
    same = [Setting(key, value, None) for key, value in values.items() if key not in differing]
    differ = "1 line differs" if len(changed) == 1 else f"{len(changed):,} lines differ"
    return panel(
        f"Configuration: {differ} from the baseline",
        table(
            [*changed, *same],
            [
                Column("key", "key", content=lambda line: _bold(line, f"● {line.key}", line.key)),
                Column("value", "value", content=lambda line: _bold(line, line.value, line.value)),
                Column("baseline", "baseline, where it differs"),
            ],
            label="Configuration",
            name="config",
            search="config",
        ),
    )


def _bold(line: Setting, changed: str, same: str) -> str | Block:
    return same if line.baseline is None else mark(changed, tag="b")
