"""Stacked charts of a run's steps: unprofiled steps by phase, traced steps by kind of time.

A run has thousands of steps. Hover texts are templates that plotly fills in, so that a step costs a few numbers and not
as many sentences.
"""

from collections.abc import Callable, Sequence

from profiling.analysis.phases import Step
from profiling.analysis.summary import Summary
from profiling.analysis.waits import WorkKind
from profiling.figures.blocks import Block, chart, panel
from profiling.figures.style import LEGEND, NEUTRAL, PARTS, Figure, axes_of, hatched, label, panels, shorten
from profiling.format import axis_unit, duration
from profiling.run_record import RunRecord, StageRecord, StepTimings
from profiling.vocabulary import STEP_PHASES

_STYLES_OF_PHASES = dict(zip(STEP_PHASES, (7, 3, 2, 0, 4, 1, 6, 5), strict=True))  # the longest have the plainest
_WAITING = {
    WorkKind.kernel: hatched("#2a9d8f", "."),
    WorkKind.collective: hatched("#c77fb5", "\\"),
    WorkKind.copy: hatched("#4fb3d9", "|"),
    WorkKind.fill: hatched("#9a8f3c", "-"),
    WorkKind.other_streams: hatched("#6b5fb5", "x"),
    WorkKind.idle: hatched("#b8a7a0", ""),
    WorkKind.memory: hatched("#8f6bd6", "+"),
    WorkKind.pinned: hatched("#5f9e4a", "/"),
    WorkKind.module: hatched("#e08a8a", "x"),
    WorkKind.driver: hatched("#8a6248", "-"),
}
_HEIGHT = 270
_MAX_BARS = 300  # steps are drawn as bars up to this number, as an area above it
_MAX_NAMES = 8  # names of windows stand below the steps up to this number of windows
_MAX_NAME_LETTERS = 150  # letters of all names of windows together that fit below the steps
_MAX_TICK_DIGITS = 80  # digits of all step numbers together that fit below the steps
_PLACES = 4  # decimal places of lengths, in units of the axis
_THREE_DIGITS = ":,.3~r"


def timed_steps(record: RunRecord | None, only: str | None) -> list[Block]:
    """Return a panel with the time of each unprofiled step by phase; `only`: of one stage, else of all."""
    stages = {name: stage for name, stage in (record.stages if record else {}).items() if only in (None, name)}
    if not stages:
        return []
    # A phase with the stage's name is the whole step.
    recorded = {phase for name, stage in stages.items() for phase in stage.timed.phase_s if phase != name}
    phases = [phase for phase in STEP_PHASES if phase in recorded] + sorted(recorded.difference(STEP_PHASES))
    unit, unit_us = axis_unit(max((max(stage.timed.step_s, default=0) for stage in stages.values()), default=0) * 1e6)
    data: list[Figure] = []
    for number, (name, stage) in enumerate(stages.items()):
        for trace in _stage_traces(name, stage, phases, unit, unit_us / 1e6):
            shown = any(trace["name"] == other["name"] for other in data)
            data.append({**trace, **axes_of(number), "legendgroup": trace["name"], "showlegend": not shown})
    names = list(stages)
    layout = {
        "height": _HEIGHT,
        "barmode": "stack",
        "bargap": 0.12,
        "legend": {**LEGEND, "y": 1.05},  # above the label of the highest tick
        **panels(
            len(stages),
            lambda i: _step_axis(names[i], stages[names[i]].timed),
            lambda i: {"title": {"text": "" if i else unit}, "rangemode": "tozero"},
        ),
    }
    text = "Time of each step by phase, not profiled"
    return [panel(text, chart({"data": data, "layout": layout}, text, "steps"))]


def _stage_traces(name: str, stage: StageRecord, phases: Sequence[str], unit: str, unit_s: float) -> list[Figure]:
    timed = stage.timed
    numbers = list(timed.step_numbers)
    whole = [round(seconds / unit_s, _PLACES) for seconds in timed.step_s]
    step = f"{label(name)}, step %{{x}}"
    traces = []
    for phase in phases:
        if phase == name or phase not in timed.phase_s:
            continue
        style = PARTS[_STYLES_OF_PHASES.get(phase, phases.index(phase)) % len(PARTS)]
        traces.append(
            {
                **_stacked(len(numbers), style),
                "name": label(phase),
                "x": numbers,
                "y": [round(seconds / unit_s, _PLACES) for seconds in timed.phase_s[phase]],
                "customdata": whole,
                "hovertemplate": f"{step}, {label(phase)}<br>{_of('customdata', unit)}<extra></extra>",
            }
        )
    traces.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "whole step",
            "x": numbers,
            "y": whole,
            "hovertemplate": f"{step}<br>%{{y{_THREE_DIGITS}}} {unit}<extra></extra>",
            "line": {"color": NEUTRAL, "width": 1, "shape": "hvh"},
        }
    )
    return traces


def _of(whole: str, unit: str) -> str:
    return f"%{{y{_THREE_DIGITS}}} of %{{{whole}{_THREE_DIGITS}}} {unit}"


def _step_axis(name: str, timed: StepTimings) -> Figure:
    sample = ""
    if timed.totals is not None:
        longest = duration(timed.totals.step.max_s * 1e6)
        sample = f"<br>{len(timed.step_s)} random steps of {timed.steps}, the longest of which took {longest}"
    return {
        **({"dtick": 1} if len(timed.step_s) < 10 else {}),
        "title": {"text": f"step, <b>{label(name)}</b>{sample}"},
        "range": [-0.6, (timed.step_numbers[-1] if timed.step_numbers else -1) + 0.6],
    }


def traced_steps(summary: Summary, names: Sequence[str]) -> Block:
    """Return a panel with the time of each traced step by kind; `names`: those of the windows, shown side by side."""
    steps = summary.steps
    places = [row + step.window for row, step in enumerate(steps)]  # leaves a gap between windows
    unit, unit_us = axis_unit(max((step.total_us for step in steps), default=0))
    about = [[step.number, step.bound, round(step.total_us / unit_us, _PLACES)] for step in steps]
    bound = ", bound by the %{customdata[1]}" if summary.devices else ""
    kinds: list[tuple[str, Callable[[Step], float], Figure]] = [
        ("operators", lambda step: step.operator_us, PARTS[0]),
        ("python", lambda step: step.python_us, PARTS[1]),
        ("loading data", lambda step: step.load_us, PARTS[7]),
        *((f"waiting: {kind}", _waiting(kind), style) for kind, style in _WAITING.items()),
    ]
    data = [
        {
            **_stacked(len(steps), style),
            "name": name,
            "x": places,
            "y": [round(time_us(step) / unit_us, _PLACES) for step in steps],
            "customdata": about,
            "hovertemplate": f"step %{{customdata[0]}}{bound}<br>{name} {_of('customdata[2]', unit)}<extra></extra>",
        }
        for name, time_us, style in kinds
        if any(time_us(step) for step in steps)
    ]
    layout = {
        "height": _HEIGHT,
        "barmode": "stack",
        "bargap": 0.2,
        "legend": LEGEND,
        "xaxis": {"title": {"text": "step"}, **_step_ticks(steps, places, names)},
        "yaxis": {"title": {"text": unit}, "rangemode": "tozero"},
    }
    text = "What each traced step does" if summary.step_time.marked else "What the trace does: it marks no steps"
    return panel(text, chart({"data": data, "layout": layout}, text, "traced-steps"))


def _waiting(kind: WorkKind) -> Callable[[Step], float]:
    return lambda step: step.waiting_us.get(kind, 0.0)


def _step_ticks(steps: Sequence[Step], places: Sequence[int], names: Sequence[str]) -> Figure:
    """Return the numbers of steps that fit below them; the middle step of each window also has the window's name."""
    middles = {}
    for window in range(len(names)):
        own = [place for place, step in zip(places, steps, strict=True) if step.window == window]
        middles[window] = own[len(own) // 2] if own else None
    named = 1 < len(names) <= _MAX_NAMES
    digits = max(2, len(str(max((step.number for step in steps), default=0))))
    every = -(-len(steps) * digits // _MAX_TICK_DIGITS) or 1
    letters = _MAX_NAME_LETTERS // max(len(names), 1)
    ticks = {}
    for place, step in zip(places, steps, strict=True):
        middle = middles[step.window] if named else 0
        if (place - (middle or 0)) % every == 0:
            name = f"<br><b>{label(shorten(names[step.window], letters))}</b>" if named and place == middle else ""
            ticks[place] = f"{step.number}{name}"
    return {
        "tickvals": list(ticks),
        "ticktext": list(ticks.values()),
        "tickangle": 0,
        "range": [-0.6, (places[-1] if places else 0) + 0.6],
    }


def _stacked(number: int, style: Figure) -> Figure:
    """Return the type and style of a part of a stack: bars, or an area if bars would be too thin to see."""
    if number <= _MAX_BARS:
        return {"type": "bar", "marker": style}
    return {
        "type": "scatter",
        "mode": "lines",
        "stackgroup": "parts",
        "line": {"color": style["color"], "width": 0.5},
        "fillcolor": style["color"],
        "fillpattern": {**style["pattern"], "bgcolor": style["color"]},
    }
