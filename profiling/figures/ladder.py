"""The ladder as a forest plot in SVG, for the report and as a separate file.

SVG can be written without a browser. Colors are CSS classes, which ladder.css defines for light and dark.
"""

import math
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path

from profiling.format import minute, ratio
from profiling.storage import atomic_write
from profiling.verdict.judge import PhaseEffect
from profiling.verdict.ladder import by_topic, titles
from profiling.verdict.record import ComparisonRecord
from profiling.verdict.wording import describe_verdict, effect_interval
from profiling.vocabulary import VERDICT_SHAPES, Verdict

FARTHEST = 3.0  # an arrow at the edge stands for ratios beyond this or its inverse: small effects stay visible
TICKS = (1, 2, 0.5, 3, 1.5, 0.7, 1.2, 0.8, 1.1, 0.9, 1.05, 0.95)  # most important first
_WIDTH, _NAME, _RIGHT, _VALUE, _MARK, _VERDICT = 970, 16, 632, 700, 722, 736
_ROW, _TOPIC, _TOP, _BOTTOM = 21, 27, 46, 66
_MIN_TICK_DISTANCE = 36
_LETTER, _MAX_TITLE = 7, 46  # approximate width of a letter; letters of a title that are shown


def write_picture(records: Sequence[ComparisonRecord], out: Path) -> None:
    """Write the ladder as an SVG file that follows the viewer's light or dark scheme, atomically."""
    with atomic_write(out) as temporary:
        temporary.write_text(ladder_svg(records), encoding="utf-8")


def verdict_mark(verdict: Verdict, x: float, y: float) -> str:
    """Return the SVG of a verdict's shape at a point."""
    return f'<path class="mark {verdict.name}" d="{VERDICT_SHAPES[verdict]}" transform="translate({x:.1f},{y:.1f})"/>'


def extent(effects: Sequence[PhaseEffect]) -> tuple[float, float]:
    """Return the ends of a logarithmic axis of ratios that covers all effects up to FARTHEST."""
    lows = [min(effect.ratio_low, 1 / effect.floor_ratio) * 0.97 for effect in effects]
    highs = [max(effect.ratio_high, effect.floor_ratio) * 1.03 for effect in effects]
    return max(min([0.9, *lows]), 1 / FARTHEST), min(max([1.1, *highs]), FARTHEST)


def ratio_ticks(low: float, high: float, distance: float) -> list[float]:
    """Return ratios to mark on a logarithmic axis, at least `distance` apart as a share of the axis."""
    ticks: list[float] = []
    length = math.log(high / low)
    for tick in TICKS:
        if low <= tick <= high and all(abs(math.log(tick / other)) >= distance * length for other in ticks):
            ticks.append(tick)
    return ticks


def ladder_svg(records: Sequence[ComparisonRecord]) -> str:
    """Return the SVG of every effect in its declared phase with interval, noise floor and verdict, grouped by topic.

    It contains the style sheet; a page that embeds it may use the same color variables.
    """
    style = (resources.files("profiling.figures") / "ladder.css").read_text(encoding="utf-8")
    names = [name if len(name) <= _MAX_TITLE else f"{name[: _MAX_TITLE - 1]}…" for name in titles(records)]
    groups = by_topic(zip(records, names, strict=True))
    effects = [effect for record in records if (effect := record.comparison.declared_effect) is not None]
    axis = _Axis(_NAME + _LETTER * max(map(len, names), default=0) + 16, effects)
    parts = []
    y = _TOP
    for topic, rows in groups.items():
        y += _TOPIC
        parts.append(f'<text class="topic" x="{_NAME}" y="{y - 7}">{escape(topic)}</text>')
        for record, title in rows:
            parts.append(_row(record, title, axis, y + _ROW / 2))
            y += _ROW
    height = y + _BOTTOM
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="ladder" role="img" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}"><style>{style}</style>'
        "<title>Effect of each experiment on time per sample</title>"
        f'<rect class="paper" width="{_WIDTH}" height="{height}" rx="6"/>'
        f"{axis.draw(y)}{''.join(parts)}{_caption(records, y + 36)}</svg>\n"
    )


class _Axis:
    """The axis of ratios in the picture, from `left` to _RIGHT."""

    def __init__(self, left: float, effects: Sequence[PhaseEffect]) -> None:
        self.left = left
        self.low, self.high = extent(effects)

    def at(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.left + min(max(share, 0), 1) * (_RIGHT - self.left)

    def draw(self, bottom: float) -> str:
        ticks = ratio_ticks(self.low, self.high, _MIN_TICK_DISTANCE / (_RIGHT - self.left))
        lines = "".join(
            f'<path class="{"one" if tick == 1 else "grid"}" d="M{self.at(tick):.1f},{_TOP}V{bottom}"/>'
            f'<text class="tick" x="{self.at(tick):.1f}" y="{_TOP - 6}">×{tick:g}</text>'
            f'<text class="tick" x="{self.at(tick):.1f}" y="{bottom + 15}">×{tick:g}</text>'
            for tick in ticks
        )
        faster = f'<text class="side" x="{self.left}" y="18">← variant faster</text>'
        slower = f'<text class="side end" x="{_RIGHT}" y="18">variant slower →</text>'
        return lines + faster + slower


def _row(record: ComparisonRecord, title: str, axis: _Axis, y: float) -> str:
    comparison = record.comparison
    effect = comparison.declared_effect
    verdict = describe_verdict(comparison)
    hover = f"{comparison.experiment}, {comparison.hypothesis.phase}: {verdict}"
    drawn, value = "", ""
    if effect is not None:
        hover += f"; {ratio(effect.ratio)}, 95 % interval {effect_interval(effect)}, floor {ratio(effect.floor_ratio)}"
        drawn, value = _effect(effect, axis, y), ratio(effect.ratio)
    return (
        f"<g><title>{escape(hover)}</title>"
        f'<text x="{_NAME}" y="{y + 4}">{escape(title)}</text>{drawn}'
        f'<text class="value" x="{_VALUE}" y="{y + 4}">{value}</text>{verdict_mark(comparison.verdict, _MARK, y)}'
        f'<text class="{comparison.verdict.name}" x="{_VERDICT}" y="{y + 4}">{escape(verdict)}</text></g>'
    )


def _effect(effect: PhaseEffect, axis: _Axis, y: float) -> str:
    left, right = axis.at(1 / effect.floor_ratio), axis.at(effect.floor_ratio)
    arrows = ""
    if effect.ratio_high > axis.high:
        arrows += f'<path class="arrow" d="M{_RIGHT + 8},{y - 4}l6,4l-6,4"/>'
    if effect.ratio_low < axis.low:
        arrows += f'<path class="arrow" d="M{axis.left - 8},{y - 4}l-6,4l6,4"/>'
    return (
        f'<rect class="floor" x="{left:.1f}" y="{y - _ROW / 2 + 1}" width="{right - left:.1f}" height="{_ROW - 2}"/>'
        f'<path class="interval {effect.verdict.name}" '
        f'd="M{axis.at(effect.ratio_low):.1f},{y}H{axis.at(effect.ratio_high):.1f}"/>{arrows}'
        f"{verdict_mark(effect.verdict, axis.at(effect.ratio), y)}"
    )


def _caption(records: Sequence[ComparisonRecord], y: float) -> str:
    machines = {
        f"{record.environment.device_name}, {record.environment.cores} cores, {record.environment.precision}, "
        f"torch {record.environment.versions.get('torch', '?')}"
        for record in records
    }
    days = sorted(minute(record.started)[:10] for record in records)
    lines = [
        "Time per sample in the declared phase, variant ÷ baseline, with 95 % interval. "
        "Shaded: noise floor, what identical code shows here.",
        "; ".join([*sorted(machines), " to ".join(dict.fromkeys([days[0], days[-1]]))]) if days else "No comparisons.",
    ]
    return "".join(
        f'<text class="caption" x="{_NAME}" y="{y + 16 * row}">{escape(line)}</text>' for row, line in enumerate(lines)
    )
