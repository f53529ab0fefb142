"""The comparison of two runs: the difference of their traces, and what it comes from."""

import math
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from msgspec import structs

from profiling.diff.differences import Diff, OperatorDifference, StageDifference
from profiling.diff.explanation import explanation
from profiling.figures.blocks import (
    Block,
    Column,
    chart,
    facts,
    group,
    message,
    note,
    number,
    panel,
    table,
)
from profiling.figures.comparison import PhasePair, Side, delta, pair_bars, per, waterfall
from profiling.figures.configuration import Setting, flat
from profiling.figures.style import LEVEL, SLOWER, Figure, label
from profiling.format import count, duration, percent, phase_name, ratio, size
from profiling.run_record import RunRecord
from profiling.vocabulary import DESCRIPTION_KEYS

_SMALL = 0.005  # phases below this share of the total time form one bar
_LEVEL_HEIGHT = 34  # of the icicle, in pixels: two lines of text
_DEEPEST = 30  # levels of the icicle
_NORMALIZED = {
    "sample": "Everything is per sample",
    "step": "Everything is per step: without a record of both runs nobody knows how many samples a step had",
    "trace": "Nothing is normalized: no steps are marked, so whole traces are compared",
}

_UNCERTAIN = (
    "`~`: these windows cannot tell, because single steps of both sides take equally long, or there is only one step. "
    "To know, measure: `python -m train.ab`, or `python -m profiling ab` for scripts."
)
_UNATTRIBUTED = "operators on several threads at once, or across a phase's end"

Sides = tuple[Side, Side]


def compare(diff: Diff, sides: Sides, records: Sequence[RunRecord | None], is_measured: bool) -> list[Block]:
    """Return the blocks of the view; `is_measured`: the two are arms of one comparison, whose effect the tab shows."""
    b = sides[1]
    bars = pair_bars(_visible(diff), sides, diff.unit)
    bars_text = "Bars: traced time of each phase on both sides; the table of phases below has the same figures"
    causes = waterfall(explanation(diff.unit, diff.phases, diff.causes), sides)
    largest = ", ".join(f"{cause.text} {delta(cause.difference_us)}" for cause in diff.causes[:3])
    explained = (
        "Phases, and below each the operators it called; as wide as their time on both sides together, "
        f"orange where {b.title} takes longer, blue where it takes less. "
        "A click opens a part, a click on its top leads back."
    )
    icicle_text = "Icicle of phases and operators, colored by change; the table of operators below has the same figures"
    return [
        _in_the_traces(diff, sides, is_measured),
        group(
            "columns",
            panel(f"Traced time by phase, {per(diff.unit)}", chart(bars, bars_text, "compare-phases")),
            panel("Where the traced difference comes from", chart(causes, f"Waterfall: {largest}", "compare-causes")),
        ),
        panel(
            "Difference flame graph",
            note(explained),
            chart(_icicle(diff, sides), icicle_text, "compare-icicle"),
        ),
        _phases(diff, sides),
        _operators(diff, sides),
        *([_kernels(diff, sides)] if diff.kernels else ()),
        *([_replaced(diff, sides)] if diff.replaced else ()),
        *([_modules(diff, sides)] if diff.modules else ()),
        _configurations(records, sides),
    ]


def _in_the_traces(diff: Diff, sides: Sides, is_measured: bool) -> Block:
    """Return the traced difference, with a warning that traced times are not measurements."""
    a, b = sides
    how = _NORMALIZED[diff.unit]
    if diff.unit != "trace":
        how += f", {diff.a_units:,} against {diff.b_units:,} {diff.unit}s"
    warning = (
        "The profiler slows what it records: the traces say where a difference comes from, "
        "the measured effect above says how large it is."
        if is_measured
        else "A difference of two traces is not a timing: one window each, under the profiler. "
        "Measure it with `python -m train.ab`."
    )
    return panel(
        "In the traces",
        facts(
            *(fact for stage in diff.stages for fact in _times_of(stage, diff.unit)),
            (
                "attributed",
                percent(diff.attributed_share),
                "The part of the phases' differences that named causes explain",
            ),
            *(
                (
                    f"peak, {device.device}",
                    f"{size(device.a_own_peak_bytes)} → {size(device.b_own_peak_bytes)}",
                    f"with what was there before: {size(device.a_peak_bytes)} → {size(device.b_peak_bytes)}",
                )
                for device in diff.memory
            ),
        ),
        note(f"{how}. {b.title} minus {a.title}. {warning}"),
    )


def _times_of(stage: StageDifference, unit: str) -> list[tuple[str, str]]:
    """The traced time of a stage, and its difference."""
    of = f" of {stage.stage}" if stage.stage else ""
    share = f" ({ratio(stage.b_us / stage.a_us)})" if stage.a_us else ""
    return [
        (f"traced time{of} {per(unit)}", f"{duration(stage.a_us)} → {duration(stage.b_us)}"),
        (f"difference{of}", f"{delta(stage.difference_us)}{share}"),
    ]


def _visible(diff: Diff) -> list[PhasePair]:
    """Return the phases with a visible bar, and the sum of the others."""
    limit = _SMALL * max(diff.a_us, diff.b_us)
    small = [row for row in diff.phases if max(row.a_us, row.b_us) < limit]
    if len(small) < 2:  # a single small phase has a bar of its own
        small = []
    bars = [_pair(phase_name(row.phase, row.derived), row.a_us, row.b_us) for row in diff.phases if row not in small]
    if small:
        bars.append(
            _pair(f"{len(small):,} smaller phases", sum(row.a_us for row in small), sum(row.b_us for row in small))
        )
    return bars


def _pair(name: str, a_us: float, b_us: float) -> PhasePair:
    hover = f"{label(name)}<br>{duration(a_us)} → {duration(b_us)}"
    return PhasePair(name, a_us, b_us, b_us / a_us if a_us else None, hover)


class _Node(NamedTuple):
    """A node of the icicle; `own_us` is its time on both sides without its children."""

    parent: int | None
    name: str
    a_us: float
    b_us: float
    own_us: float
    depth: int


def _nodes(diff: Diff) -> list[_Node]:
    """Return the nodes of the call tree below a single root, which plotly needs.

    The root's time differs from the sum of the phases where several threads run at once.
    """
    own = [0.0, *(node.a_us + node.b_us for node in diff.tree)]
    depths = [0]
    for node in diff.tree:
        above = node.parent + 1
        if above:
            own[above] -= node.a_us + node.b_us
        depths.append(depths[above] + 1)
    root: tuple[int | None, str, float, float] = (None, "all phases", diff.a_us, diff.b_us)
    known = [root, *((node.parent + 1, node.name, node.a_us, node.b_us) for node in diff.tree)]
    # Rounding errors may be negative.
    return [_Node(*node, max(time_us, 0.0), depth) for node, time_us, depth in zip(known, own, depths, strict=True)]


def _icicle(diff: Diff, sides: Sides) -> Figure:
    """Return the merged call tree: width is the time of both sides together, color the ratio of B to A."""
    a, b = (label(side.title) for side in sides)
    nodes = _nodes(diff)
    ratios = [_times(node, a, b) for node in nodes]
    trace = {
        "type": "icicle",
        "ids": [f"n{i}" for i in range(len(nodes))],
        "parents": ["" if node.parent is None else f"n{node.parent}" for node in nodes],
        "labels": [label(node.name.split("::")[-1].split(": ")[-1]) for node in nodes],
        "text": ratios,
        "textinfo": "label+text",
        "values": [node.own_us for node in nodes],
        "branchvalues": "remainder",
        "sort": False,
        "tiling": {"orientation": "v", "pad": 1},
        "pathbar": {"visible": False},
        "textposition": "middle left",
        "textfont": {"size": 11},
        "hovertext": [
            f"{label(node.name)}<br>{times}<br>{a} {duration(node.a_us)}, {b} {duration(node.b_us)} "
            f"{per(diff.unit)}<br>{delta(node.b_us - node.a_us)}"
            for node, times in zip(nodes, ratios, strict=True)
        ],
        "hoverinfo": "text",
        "marker": {
            "colors": [_change(node) for node in nodes],
            "colorscale": [[0, "#2f7fc1"], [0.5, LEVEL], [1, SLOWER]],
            "cmin": -1,
            "cmax": 1,
            "line": {"width": 0},
            "showscale": True,
            "colorbar": {
                "tickvals": [-1, -0.5, 0, 0.5, 1],
                "ticktext": ["×0.5 or less", "×0.71", "×1", "×1.41", "×2 or more"],
                "thickness": 10,
                "outlinewidth": 0,
            },
        },
    }
    layout = {
        "height": _LEVEL_HEIGHT * min(max(node.depth for node in nodes) + 1, _DEEPEST) + 10,
        "margin": {"l": 0, "r": 0, "t": 4, "b": 4},
        "uniformtext": {"minsize": 10, "mode": "hide"},
    }
    return {"data": [trace], "layout": layout}


def _times(node: _Node, a: str, b: str) -> str:
    if node.a_us and node.b_us:
        return ratio(node.b_us / node.a_us)
    return f"only {a if node.a_us else b}" if node.a_us or node.b_us else ""


def _change(node: _Node) -> float:
    """Return the logarithm of B ÷ A to base 2, between -1 and 1."""
    if node.a_us > 0 and node.b_us > 0:
        return round(max(-1.0, min(1.0, math.log2(node.b_us / node.a_us))), 4)
    return float((node.b_us > 0) - (node.a_us > 0))


def _pair_of(key: str, title: str, sides: Sides, write: Callable[[Any], str], text: str = "") -> list[Column]:
    """Return a column for each side."""
    return [
        number(f"{i}_{key}", f"{title} {side.title}".strip(), write, text) for i, side in zip("ab", sides, strict=True)
    ]


def _phases(diff: Diff, sides: Sides) -> Block:
    """Return the table of phases with the parts of their differences."""
    a, b = sides
    columns = [
        Column(
            "phase",
            "phase",
            "derived: at least one side does not mark it",
            content=lambda row: phase_name(row.phase, row.derived),
        ),
        Column("derived"),
        *_pair_of("us", "", sides, duration),
        Column(
            "difference_us",
            "difference",
            f"{b.title} minus {a.title}: the sum of what follows",
            content=lambda row: f"{'~ ' if row.uncertain else ''}{delta(row.difference_us)}",
            look="number",
        ),
        Column("uncertain"),
        number("operators_us", "operators", delta, "what operators take themselves"),
        number("python_us", "python", delta, "between operators: Python, dispatch, loading"),
        number("waiting_us", "waiting", delta, "in calls that block the host")
        if any(row.waiting_us for row in diff.phases)
        else None,
        number(
            "unattributed_us", "unattributed", delta, "operators on several threads at once, or across a phase's end"
        ),
    ]
    listing = table(diff.phases, columns, label="phases", name="compare-phases")
    doubt = [note(_UNCERTAIN)] if any(row.uncertain for row in diff.phases) else []
    return panel(f"Phases, {per(diff.unit)}", *doubt, listing)


class _Changed(NamedTuple):
    """An operator, and whether both sides have it."""

    row: OperatorDifference
    what: str


def _operators(diff: Diff, sides: Sides) -> Block:
    a, b = sides
    found = [
        _Changed(row, what)
        for what, rows in (("changed", diff.changed), ("added", diff.added), ("removed", diff.removed))
        for row in rows
    ]
    found.sort(key=lambda each: -abs(each.row.difference_us))

    def of(key: str, title: str, write: Callable[[Any], str] | None = None, text: str = "") -> Column:
        value = attrgetter(f"row.{key}")
        if write is None:
            return Column(key, title, text, value, look="text" if key == "name" else "brief")
        return number(key, title, write, text, value)

    def pair(key: str, title: str, write: Callable[[Any], str], text: str = "") -> list[Column]:
        return [of(f"{i}_{key}", f"{title} {side.title}", write, text) for i, side in zip("ab", sides, strict=True)]

    def differs(key: str) -> bool:
        return any(getattr(each.row, f"a_{key}") != getattr(each.row, f"b_{key}") for each in found)

    columns = [
        of("name", "operator"),
        of("phase", "phase"),
        Column("what", "change", f"added: only in {b.title}; removed: only in {a.title}", look="brief"),
        *pair("calls", "calls", count, per(diff.unit)),
        *pair("self_us", "self", duration),
        of("difference_us", "difference", delta, f"self time, {b.title} minus {a.title}"),
        number("ratio", "ratio", ratio, f"{b.title} ÷ {a.title}", _self_ratio),
        *(pair("device_us", "device", duration) if differs("device_us") else ()),
        *(pair("allocated_bytes", "allocated", size) if differs("allocated_bytes") else ()),
    ]
    title = (
        f"Operators: {len(diff.changed):,} on both sides, {len(diff.added):,} only {b.title}, "
        f"{len(diff.removed):,} only {a.title}"
    )
    listing = table(found, columns, label="operators that changed", name="compare-operators", search="q")
    return panel(title, listing)


def _self_ratio(each: _Changed) -> float | None:
    return each.row.b_self_us / each.row.a_self_us if each.row.a_self_us and each.row.b_self_us else None


def _kernels(diff: Diff, sides: Sides) -> Block:
    a, b = sides
    unit = per(diff.unit)
    columns = [
        Column("name", "kernel"),
        Column("operator", "operator", look="brief"),
        Column("change", "change", f"added: only in {b.title}; removed: only in {a.title}", look="brief"),
        *_pair_of("calls", "calls", sides, count, unit),
        *_pair_of("device_us", "device", sides, duration, unit),
        number("difference_us", "difference", delta, "device time"),
        *_pair_of("wait_us", "waited for", sides, duration, unit),
    ]
    listing = table(diff.kernels, columns, label="kernels that changed", name="compare-kernels", search="q")
    return panel("Kernels", listing)


def _replaced(diff: Diff, sides: Sides) -> Block:
    a, b = sides
    columns = [
        Column("phase", "phase", look="brief"),
        Column("under", "under", "the nearest operator or phase that both sides have"),
        Column("removed", a.title, value=lambda row: ", ".join(row.removed)),
        Column("added", b.title, value=lambda row: ", ".join(row.added)),
        *_pair_of("self_us", "self", sides, duration),
        number("difference_us", "difference", delta),
    ]
    listing = table(diff.replaced, columns, label="operators that stand in for others", name="compare-replaced")
    return panel("Replaced: operators that stand in for others under the same call", listing)


def _modules(diff: Diff, sides: Sides) -> Block:
    own, backward = _pair_of("self_us", "own", sides, duration), _pair_of("backward_us", "backward", sides, duration)
    columns = [
        Column("path", "module"),
        *(column for pair in zip(own, backward, strict=True) for column in pair),
        number("difference_us", "difference", delta, "own and backward time"),
    ]
    listing = table(diff.modules, columns, label="modules", name="compare-modules")
    return panel("Modules, without their child modules", listing)


def _configurations(records: Sequence[RunRecord | None], sides: Sides) -> Block:
    """Return the lines of the configuration and environment that differ between the records."""
    missing = [side.title for side, record in zip(sides, records, strict=True) if record is None]
    if missing:
        text = f"{' and '.join(missing)}: no record.json, so the configurations cannot be compared."
        return panel("Configuration", message("empty", text))
    a, b = (_lines(record) for record in records if record is not None)
    rows = [
        Setting(key, b.get(key, "–"), a.get(key, "–"))
        for key in dict.fromkeys([*a, *b])
        if a.get(key) != b.get(key) and not key.startswith(DESCRIPTION_KEYS)
    ]
    lines = "1 line differs" if len(rows) == 1 else f"{len(rows):,} lines differ"
    differ = lines if rows else "no line differs"
    columns = [
        Column("key", "line"),
        Column("a", sides[0].title, value=attrgetter("baseline")),
        Column("b", sides[1].title, value=attrgetter("value")),
    ]
    label = "lines of the configuration that differ"
    return panel(f"Configuration: {differ}", table(rows, columns, label=label, name="compare-configuration"))


def _lines(record: RunRecord) -> Mapping[str, str]:
    return flat({**record.config, "environment": structs.asdict(record.environment)})
