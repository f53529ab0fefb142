"""The charts of a comparison: plotly figures as plain dictionaries. No function reads files or computes results.

Colors of the light or dark theme come from the page (profiling/report/static/page.js); the colors here are visible in
both themes. Plotly interprets some HTML in labels, so `_label` escapes text from files.
"""

import html
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from profiling.analysis.memory import DeviceMemory
from profiling.diff.explanation import Explanation
from profiling.format import duration, duration_change, ratio, size, size_unit
from profiling.verdict.judge import PhaseEffect
from profiling.verdict.wording import effect_interval
from profiling.vocabulary import BASELINE, VARIANT

Figure = dict[str, Any]

# Hatched bars and dashed lines distinguish the arms without color.
_BARS: dict[str, dict[str, Any]] = {
    BASELINE: {"color": "#7a8a9e"},
    VARIANT: {
        "color": "#d9772b",
        "pattern": {"shape": "/", "size": 6, "solidity": 0.2, "fillmode": "overlay", "fgcolor": "#ffffff"},
    },
}
_LINES: dict[str, dict[str, Any]] = {
    BASELINE: {"color": "#7a8a9e", "width": 1.5, "shape": "hv"},
    VARIANT: {"color": "#d9772b", "width": 1.5, "shape": "hv", "dash": "4px,2px"},
}
_ROW, _FRAME = 34, 74  # heights in pixels: one row of bars; title, legend and axis together
_CAUSES = 10  # largest causes with a bar each; one more bar sums the others
_MAX_LABEL = 38  # characters of an axis label; the hover text is not shortened
_LEGEND = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom", "traceorder": "normal"}


def phase_bars(phases: Sequence[PhaseEffect]) -> Figure:
    """Return bars: time per sample of each phase and arm, in microseconds."""
    seconds = {
        BASELINE: [effect.baseline_s_per_sample for effect in phases],
        VARIANT: [effect.variant_s_per_sample for effect in phases],
    }
    ratios = {BASELINE: [""] * len(phases), VARIANT: [f"  {ratio(effect.ratio)}" for effect in phases]}
    hover = [
        f"{_label(effect.phase)}<br>baseline {duration(effect.baseline_s_per_sample * 1e6)}, variant "
        f"{duration(effect.variant_s_per_sample * 1e6)} per sample<br>{ratio(effect.ratio)} ({effect_interval(effect)})"
        for effect in phases
    ]
    bars = [
        {
            "type": "bar",
            "orientation": "h",
            "name": arm,
            "y": list(range(len(phases))),
            "x": [value * 1e6 for value in seconds[arm]],
            "text": [duration(s * 1e6) + times for s, times in zip(seconds[arm], ratios[arm], strict=True)],
            "textposition": "outside",
            "cliponaxis": False,
            "hovertext": hover,
            "hoverinfo": "text",
            "marker": _BARS[arm],
        }
        for arm in seconds
    ]
    longest = max((max(values) for values in seconds.values() if values), default=0.0) * 1e6
    return {
        "data": bars,
        "layout": {
            "title": _title("Time per sample"),
            "height": _ROW * len(phases) + _FRAME,
            "bargap": 0.25,
            "xaxis": {"title": {"text": "µs per sample"}, "range": [0, longest * 1.6], "separatethousands": True},
            "yaxis": _rows([effect.phase for effect in phases]),
            "legend": _LEGEND,
        },
    }


def waterfall(explanation: Explanation) -> Figure:
    """Return a waterfall: the largest causes, the sum of the others, the unattributed time, and their total."""
    top, rest = explanation.causes[:_CAUSES], explanation.causes[_CAUSES:]
    bars = [(f"{cause.text}, {cause.phase}", cause.difference_us) for cause in top]
    if rest:
        bars.append((f"{len(rest):,} smaller causes", sum(cause.difference_us for cause in rest)))
    bars += [("unattributed", explanation.unattributed_us), ("difference", explanation.difference_us)]
    names, values = [name for name, _ in bars], [value for _, value in bars]
    texts = [duration_change(value) for value in values]
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
                "hovertext": [f"{_label(name)}<br>{text}" for name, text in zip(names, texts, strict=True)],
                "hoverinfo": "text",
                "increasing": {"marker": {"color": "#d9772b"}},
                "decreasing": {"marker": {"color": "#3f8fd2"}},
                "totals": {"marker": {"color": "#7a8a9e"}},
                "connector": {"line": {"color": "#7a8a9e", "width": 0.5}},
            }
        ],
        "layout": {
            "title": _title("Where the traced difference comes from"),
            "height": _ROW * len(bars) + _FRAME,
            "bargap": 0.35,
            "xaxis": {
                "title": {"text": f"µs per {explanation.unit}, variant - baseline"},
                "range": _room(values),
                "separatethousands": True,
            },
            "yaxis": _rows(names),
        },
    }


def memory_curves(stages: Mapping[str, Mapping[str, DeviceMemory]]) -> Figure:
    """Return curves: allocated memory of both arms over the traced window, one panel for each stage."""
    data: list[Figure] = []
    layout: Figure = {"title": _title("Memory in the traced window"), "height": 250, "legend": _LEGEND}
    gap = 0.09
    width = (1 + gap) / max(len(stages), 1) - gap
    for number, (stage, arms) in enumerate(stages.items()):
        axis = str(number + 1) if number else ""
        left = number * (width + gap)
        highest = max(max(device.curve.bytes) for device in arms.values())
        unit, scale = size_unit(highest)
        layout |= {
            f"xaxis{axis}": {
                "domain": [left, left + width],
                "anchor": f"y{axis}",
                "title": {"text": f"{_label(stage)}, ms"},
                "rangemode": "tozero",
            },
            f"yaxis{axis}": {"anchor": f"x{axis}", "title": {"text": unit, "standoff": 4}, "rangemode": "tozero"},
        }
        data += [
            {
                "type": "scatter",
                "mode": "lines",
                "name": arm,
                "legendgroup": arm,
                "showlegend": not any(trace["name"] == arm for trace in data),
                "x": [round(time / 1e3, 3) for time in device.curve.time_us],
                "y": [round(count / scale, 3) for count in device.curve.bytes],
                "hoverinfo": "text",
                "hovertext": f"{arm}, {_label(device.device)}: peak {size(device.peak_bytes)}",
                "line": _LINES[arm],
                "xaxis": f"x{axis}",
                "yaxis": f"y{axis}",
            }
            for arm, device in arms.items()
        ]
    return {"data": data, "layout": layout}


def _title(text: str) -> Figure:
    return {"text": text, "x": 0, "xref": "container", "xanchor": "left", "font": {"size": 13}}


def _rows(names: Sequence[str]) -> Figure:
    """Return an axis of one row per name. Rows are numbered because names may repeat or look like numbers or dates."""
    return {
        "tickvals": list(range(len(names))),
        "ticktext": [_label(name if len(name) <= _MAX_LABEL else f"{name[: _MAX_LABEL - 1]}…") for name in names],
        "range": [len(names) - 0.5, -0.5],
        "showgrid": False,
        "zeroline": False,
    }


def _room(values: Sequence[float]) -> list[float]:
    """Return an axis range with space for texts beside the bars; the last of `values` is the sum of the others."""
    levels = [0.0, *accumulate(values[:-1])]
    low, high = min(levels), max(levels)
    margin = 0.4 * (high - low)
    return [low - (margin if low < 0 else 0), high + margin]


def _label(text: str) -> str:
    return html.escape(" ".join(text.split()), quote=False)
