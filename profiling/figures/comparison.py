"""The charts of two sides of a comparison, for the tab and the report: plotly figures as plain dictionaries."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from profiling.diff.differences import Cause
from profiling.diff.explanation import Explanation
from profiling.figures.style import (
    BARS,
    FASTER,
    LEGEND,
    NEUTRAL,
    SLOWER,
    Figure,
    label,
    rows,
)
from profiling.format import axis_unit, duration, duration_change, ratio
from profiling.vocabulary import BASELINE, VARIANT

_ROW, _FRAME = 34, 74  # heights in pixels: one row of bars; title, legend and axis together
_CAUSES = 10  # largest causes with a bar each; one more bar sums the others


class PhasePair(NamedTuple):
    """The time of one phase on both sides; `ratio` stands beside its bars, if it is known."""

    name: str
    a_us: float
    b_us: float
    ratio: float | None
    hover: str


class Side(NamedTuple):
    """One side of a comparison: its title, and the arm whose style it has."""

    title: str
    look: str


ARMS = Side(BASELINE, BASELINE), Side(VARIANT, VARIANT)


def per(unit: str) -> str:
    """Say to what times are related: `unit` is `sample`, `step` or `trace`."""
    return "in the whole trace" if unit == "trace" else f"per {unit}"


def pair_bars(phases: Sequence[PhasePair], sides: tuple[Side, Side], unit: str) -> Figure:
    """Return bars: the time of each phase on both sides."""
    longest = max((time_us for phase in phases for time_us in (phase.a_us, phase.b_us)), default=0.0)
    time_unit, unit_us = axis_unit(longest)
    times = [[phase.a_us for phase in phases], [phase.b_us for phase in phases]]
    beside = [[""] * len(phases), ["" if phase.ratio is None else f"  {ratio(phase.ratio)}" for phase in phases]]
    bars = [
        {
            "type": "bar",
            "orientation": "h",
            "name": label(side.title),
            "y": list(range(len(phases))),
            "x": [time_us / unit_us for time_us in of_side],
            "text": [duration(time_us) + text for time_us, text in zip(of_side, texts, strict=True)],
            "textposition": "outside",
            "cliponaxis": False,
            "hovertext": [phase.hover for phase in phases],
            "hoverinfo": "text",
            "marker": BARS[side.look],
        }
        for side, of_side, texts in zip(sides, times, beside, strict=True)
    ]
    return {
        "data": bars,
        "layout": {
            "height": _ROW * len(phases) + _FRAME,
            "bargap": 0.25,
            "xaxis": {
                "title": {"text": f"{time_unit} {per(unit)}"},
                "range": [0, longest / unit_us * 1.6 or 1],
                "separatethousands": True,
            },
            "yaxis": rows([phase.name for phase in phases]),
            "legend": LEGEND,
        },
    }


def waterfall(explanation: Explanation, sides: tuple[Side, Side] = ARMS) -> Figure:
    """Return a waterfall: the largest causes, the sum of the others, the unattributed time, and their total.

    Beside each bar stands its share of the total, and its time; before it `~`, where these windows cannot tell.
    """
    top, rest = explanation.causes[:_CAUSES], explanation.causes[_CAUSES:]
    bars = [
        (f"{explanation.mark(cause)}<i>{label(_place(cause))}</i><br>", cause.name, cause.difference_us)
        for cause in top
    ]
    if rest:
        bars.append(("", f"{len(rest):,} smaller causes", sum(cause.difference_us for cause in rest)))
    bars.append(("", "unattributed", explanation.unattributed_us))
    bars.append(("", "difference", explanation.difference_us))
    unit, unit_us = axis_unit(max(abs(time_us) for _, _, time_us in bars))
    values = [time_us / unit_us for _, _, time_us in bars]
    shares = [explanation.share(time_us) for _, _, time_us in bars[:-1]]
    texts = [
        f"{share} ({delta(time_us)})" if share else delta(time_us)
        for share, (*_, time_us) in zip(shares, bars, strict=False)
    ]
    texts.append(delta(explanation.difference_us))
    axis = rows([name for _, name, _ in bars])
    axis["ticktext"] = [above + name for (above, _, _), name in zip(bars, axis["ticktext"], strict=True)]
    a, b = sides
    return {
        "data": [
            {
                "type": "waterfall",
                "orientation": "h",
                "y": list(range(len(bars))),
                "x": values,
                "measure": ["relative"] * (len(bars) - 1) + ["total"],
                "text": texts,
                "textposition": "outside",
                "cliponaxis": False,
                "hovertext": [
                    f"{above}{label(name)}<br>{text}" for (above, name, _), text in zip(bars, texts, strict=True)
                ],
                "hoverinfo": "text",
                "increasing": {"marker": {"color": SLOWER}},
                "decreasing": {"marker": {"color": FASTER}},
                "totals": {"marker": {"color": NEUTRAL}},
                "connector": {"line": {"color": NEUTRAL, "width": 0.5}},
            }
        ],
        "layout": {
            "height": _ROW * len(bars) + _FRAME,
            "bargap": 0.35,
            "xaxis": {
                "title": {"text": label(f"{unit} {per(explanation.unit)}, {b.title} - {a.title}")},
                "range": _room(values),
                "separatethousands": True,
            },
            "yaxis": axis,
        },
    }


def _place(cause: Cause) -> str:
    return cause.phase if cause.kind == "operator" else f"{cause.phase}: {cause.kind}"


def delta(time_us: float) -> str:
    """Write a difference; what rounding leaves of a sum is no difference."""
    return "0 µs" if duration(abs(time_us)) == "0 µs" else duration_change(time_us)


def _room(values: Sequence[float]) -> list[float]:
    """Return an axis range with space for texts beside the bars; the last of `values` is the sum of the others."""
    levels = [0.0, *accumulate(values[:-1])]
    low, high = min(levels), max(levels)
    margin = 0.6 * (high - low) or 1.0  # `-17 % (+1.74 µs)` in half of a narrow page
    return [low - (margin if any(value < 0 for value in values) else 0), high + margin]
