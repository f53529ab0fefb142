"""What the charts have in common: colors, patterns, axes and labels, as parts of plotly figures.

Colors of the theme are written `var(--ink)`: the page that draws a chart replaces them, see tb_plugin/static/style.css.
The other colors are visible in light and dark. Plotly interprets some HTML in labels, so text from files passes through
`label`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from profiling.vocabulary import BASELINE, VARIANT, Verdict

Figure = dict[str, Any]

FASTER, SLOWER, NEUTRAL = "#3f8fd2", "#d9772b", "#7a8a9e"
INK, MUTED, FLOOR, LEVEL = "var(--ink)", "var(--muted)", "var(--floor)", "var(--level-fill)"


def hatched(color: str, shape: str, opacity: float = 0.45) -> Figure:
    """Return the style of bars and areas that are told apart by a pattern, too."""
    pattern = {"shape": shape, "size": 6, "solidity": 0.2, "fillmode": "overlay", "fgcolor": "#ffffff"}
    return {"color": color, "pattern": {**pattern, "fgopacity": opacity}}


# Hatched bars and dashed lines distinguish the arms without color.
BARS = {BASELINE: {"color": NEUTRAL}, VARIANT: hatched(SLOWER, "/", opacity=1)}
LINES: dict[str, Figure] = {
    BASELINE: {"color": NEUTRAL, "width": 1.5, "shape": "hv"},
    VARIANT: {"color": SLOWER, "width": 1.5, "shape": "hv", "dash": "4px,2px"},
}
PARTS = [
    hatched("#3f8fd2", ""),
    hatched("#c9a227", "/"),
    hatched("#2a9d8f", "."),
    hatched("#c77fb5", "\\"),
    hatched("#6b5fb5", "x"),
    hatched("#9a8f3c", "-"),
    hatched("#4fb3d9", "|"),
    hatched("#b5564e", "+"),
]
"""Styles of stacked parts: color-blind readers can distinguish the colors, no arm has them, each has a pattern."""

LEGEND = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom", "traceorder": "normal"}
MAX_LABEL = 44  # characters of an axis label; the hover text is not shortened

VERDICT_CLASSES = {verdict: verdict.name for verdict in Verdict} | {
    Verdict.failed_as_predicted: "failed",
    Verdict.not_applicable: "level",
}
"""The name of each verdict's color: as a CSS class, and as a variable of the style sheet."""

VERDICT_SYMBOLS = {
    Verdict.slower: "triangle-right",
    Verdict.faster: "triangle-left",
    Verdict.no_effect: "circle-open",
    Verdict.inconclusive: "diamond-open",
    Verdict.failed_as_predicted: "x-thin-open",
    Verdict.failed: "square-x-open",
    Verdict.not_applicable: "line-ew-open",
}
"""The symbol of plotly that resembles each verdict's shape."""


def label(text: object) -> str:
    """Escape text from files for plotly, which interprets some HTML and looks for formulas between dollar signs."""
    words = " ".join(str(text).split())
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")


def shorten(name: str, longest: int = MAX_LABEL) -> str:
    """Cut the middle of a name that is too long: the start and the end identify it."""
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"


def rows(names: Sequence[str], longest: int = MAX_LABEL) -> Figure:
    """Return an axis of one row per name, the first on top.

    Rows have numbers because names may repeat or look like numbers or dates.
    """
    return {
        "tickvals": list(range(len(names))),
        "ticktext": [label(shorten(name, longest)) for name in names],
        "range": [len(names) - 0.5, -0.5],
        "showgrid": False,
        "zeroline": False,
    }


def part(name: str, lengths: Sequence[float], **options: Any) -> Figure:
    """Return one part of stacked horizontal bars, one for each row; a length of 0 has neither bar nor text."""
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": list(range(len(lengths))),
        "x": [length or None for length in lengths],
        "textposition": "auto",
        "insidetextanchor": "start",
        "outsidetextfont": {"color": INK},
        "hoverinfo": "text",
        **options,
    }


def panels(number: int, x: Callable[[int], Figure], y: Callable[[int], Figure], gap: float = 0.07) -> Figure:
    """Return the axes of panels side by side; `axes_of` says what traces of panel `i` refer to."""
    width = (1 + gap) / max(number, 1) - gap
    layout: Figure = {}
    for i in range(number):
        left = i * (width + gap)
        axes = axes_of(i)
        layout[axes["xaxis"].replace("x", "xaxis")] = {**x(i), "domain": [left, left + width], "anchor": axes["yaxis"]}
        layout[axes["yaxis"].replace("y", "yaxis")] = {**y(i), "anchor": axes["xaxis"]}
    return layout


def axes_of(panel: int) -> Figure:
    """Return what a trace says of its axes; plotly's first axes have no number."""
    number = panel + 1 if panel else ""
    return {"xaxis": f"x{number}", "yaxis": f"y{number}"}
