"""The ladder as a forest plot for the tab: each effect with its interval, its noise floor and its verdict in words.

The report and `-o FILE.svg` have the same picture as SVG (`ladder.py`), which can be written without a browser.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from profiling.figures.ladder import TICKS, extent, ratio_ticks
from profiling.figures.style import FLOOR, INK, MUTED, VERDICT_CLASSES, VERDICT_SYMBOLS, Figure, label, shorten
from profiling.format import ratio
from profiling.verdict.judge import PhaseEffect
from profiling.verdict.ladder import LadderEntry
from profiling.verdict.wording import effect_interval
from profiling.vocabulary import Verdict

ROW_HEIGHT, FRAME_HEIGHT = 22, 74  # in pixels
_MIN_TICK_DISTANCE = 0.055  # as a share of the axis
_PLOT, _WORDS = 0.66, 0.67  # shares of the width: where the effects end, where their words begin


class ForestRow(NamedTuple):
    """A line of the plot: an effect, by its index in the ladder, or a topic, whose effects are several."""

    title: str
    entries: Sequence[int]
    entry: LadderEntry | None
    effect: PhaseEffect | None


def forest_rows(entries: Sequence[LadderEntry]) -> list[ForestRow]:
    """Return a line for each topic, in alphabetical order, and for each of its effects below it."""
    lines = []
    for topic in sorted({entry.topic for entry in entries}):
        own = [i for i, entry in enumerate(entries) if entry.topic == topic]
        lines.append(ForestRow(f"<b>{label(topic)}</b>", own, None, None))
        for i in own:
            entry = entries[i]
            lines.append(ForestRow(label(shorten(entry.title)), [i], entry, entry.declared_effect))
    return lines


def forest(lines: Sequence[ForestRow]) -> Figure:
    """Return the plot. In traces `customdata` is the index of an effect; shapes are named by their line."""
    effects = [(y, line.effect) for y, line in enumerate(lines) if line.effect is not None]
    low, high = extent([effect for _, effect in effects])
    data = []
    for verdict in Verdict:
        own = [(y, line) for y, line in enumerate(lines) if line.entry and line.entry.verdict is verdict]
        data += list(_traces(verdict, own, low, high))
    ratios = {
        "type": "scatter",
        "mode": "text",
        "x": [0.17] * len(effects),
        "y": [y for y, _ in effects],
        "xaxis": "x2",
        "text": [ratio(effect.ratio) for _, effect in effects],
        "textposition": "middle left",
        "hoverinfo": "skip",
    }
    return {"data": [*data, ratios], "layout": _layout(lines, effects, low, high)}


def axis_parts(entries: Sequence[LadderEntry]) -> Figure:
    """Return what the axis of a part of the effects is made of, in decimal logarithms of ratios.

    `spans`: of each effect, the ends of an axis for it alone; `ticks`: places and texts, the most important first;
    `distance`: the smallest one between two ticks, as a share of the axis.
    """
    effects = [entry.declared_effect for entry in entries]
    return {
        "spans": [[math.log10(end) for end in extent([effect])] if effect else None for effect in effects],
        "ticks": [[math.log10(tick), _tick(tick)] for tick in TICKS],
        "distance": _MIN_TICK_DISTANCE,
    }


def _tick(value: float) -> str:
    return f"×{value:g}"


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _beyond(value: float, low: float, high: float) -> str:
    """Write a ratio that lies beyond the axis, with an arrow; nothing for others."""
    return f"{ratio(value)} →  " if value > high else f"  ← {ratio(value)}" if value < low else ""


def _traces(verdict: Verdict, lines: Sequence[tuple[int, ForestRow]], low: float, high: float) -> Iterator[Figure]:
    """Return the effects of one verdict with their intervals, and the words beside all its lines."""
    tone = f"var(--{VERDICT_CLASSES[verdict]})"
    marker = {"symbol": VERDICT_SYMBOLS[verdict], "color": tone, "line": {"color": tone, "width": 1.75}}
    drawn = [(y, line, line.effect) for y, line in lines if line.effect is not None]
    if drawn:
        x = [_within(effect.ratio, low, high) for _, _, effect in drawn]
        ends = [(_within(effect.ratio_low, low, high), _within(effect.ratio_high, low, high)) for *_, effect in drawn]
        yield {
            "type": "scatter",
            "mode": "markers+text",
            "x": x,
            "text": [_beyond(effect.ratio, low, high) for _, _, effect in drawn],
            "textposition": ["middle left" if effect.ratio > high else "middle right" for _, _, effect in drawn],
            "error_x": {
                "type": "data",
                "symmetric": False,
                "array": [end - at for at, (_, end) in zip(x, ends, strict=True)],
                "arrayminus": [at - start for at, (start, _) in zip(x, ends, strict=True)],
                "color": tone,
                "thickness": 1.75,
                "width": 3,
            },
            "marker": {**marker, "size": 10},
            "cliponaxis": False,
            **_points([(y, line) for y, line, _ in drawn]),
        }
    if lines:
        yield {
            "type": "scatter",
            "mode": "markers+text",
            "x": [0.2] * len(lines),
            "xaxis": "x2",
            "text": [f"  {label(line.entry.verdict_text)}" for _, line in lines if line.entry],
            "textposition": "middle right",
            "textfont": {"color": tone},
            "marker": {**marker, "size": 9},
            **_points(lines),
        }


def _points(lines: Sequence[tuple[int, ForestRow]]) -> Figure:
    return {
        "y": [y for y, _ in lines],
        "customdata": [line.entries[0] for _, line in lines],
        "hovertext": [_hover(line.entry, line.effect) for _, line in lines if line.entry],
        "hoverinfo": "text",
    }


def _hover(entry: LadderEntry, effect: PhaseEffect | None) -> str:
    hypothesis = entry.hypothesis
    lines = [
        f"<b>{label(entry.title)}</b>",
        label(shorten(hypothesis.claim, 110)),
        f"{label(hypothesis.phase)}: {label(entry.verdict_text)}",
    ]
    if effect is not None:
        lines.append(
            f"{ratio(effect.ratio)}, 95 % interval {effect_interval(effect)}, noise floor {ratio(effect.floor_ratio)}"
        )
    return "<br>".join(lines)


def _layout(lines: Sequence[ForestRow], effects: Sequence[tuple[int, PhaseEffect]], low: float, high: float) -> Figure:
    ticks = ratio_ticks(low, high, _MIN_TICK_DISTANCE)
    one = {"type": "line", "x0": 1, "x1": 1, "yref": "paper", "y0": 0, "y1": 1}
    text = "time per sample in the declared phase, variant ÷ baseline; shaded: what identical code shows here"
    note = {"xref": "paper", "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False}
    font = {"size": 11, "color": MUTED}
    return {
        "height": ROW_HEIGHT * len(lines) + FRAME_HEIGHT,
        "showlegend": False,
        "hovermode": "closest",
        "hoverdistance": 30,
        "margin": {"t": 26, "b": 48, "l": 60, "r": 10},
        "xaxis": {
            "tickvals": ticks,
            "ticktext": [_tick(tick) for tick in ticks],
            "type": "log",
            "domain": [0, _PLOT],
            "range": [math.log10(low), math.log10(high)],
            "zeroline": False,
            "fixedrange": True,
            "title": {"text": text},
        },
        "xaxis2": {"domain": [_WORDS, 1], "range": [0, 1], "visible": False, "fixedrange": True},
        "yaxis": {
            "tickvals": list(range(len(lines))),
            "ticktext": [line.title for line in lines],
            "range": [len(lines) - 0.4, -0.6],
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
        },
        "shapes": [
            {**one, "line": {"color": MUTED, "width": 1}, "layer": "below"},
            *(shape for y, effect in effects for shape in _shapes(y, effect, low, high)),
        ],
        "annotations": [
            {**note, "text": "← variant faster", "x": 0, "xanchor": "left", "font": font},
            {**note, "text": "variant slower →", "x": _PLOT, "xanchor": "right", "font": font},
        ],
    }


def _shapes(y: int, effect: PhaseEffect, low: float, high: float) -> Iterator[Figure]:
    """Return the noise floor, and arrows where the interval extends beyond the axis."""
    yield {
        "name": str(y),
        "type": "rect",
        "x0": _within(1 / effect.floor_ratio, low, high),
        "x1": _within(effect.floor_ratio, low, high),
        "y0": y - 0.44,
        "y1": y + 0.44,
        "fillcolor": FLOOR,
        "line": {"width": 0},
        "layer": "below",
    }
    for is_beyond, end, way in ((effect.ratio_high > high, high, 1), (effect.ratio_low < low, low, -1)):
        if is_beyond:
            yield {
                "name": str(y),
                "type": "path",
                "path": f"M0,-4L{6 * way},0L0,4",
                "xsizemode": "pixel",
                "ysizemode": "pixel",
                "xanchor": end,
                "yanchor": y,
                "line": {"color": INK, "width": 1.5},
            }
