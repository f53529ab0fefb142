"""The section of the page about one experiment."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import msgspec

from profiling.figures.comparison import Figure, memory_curves, phase_bars, waterfall
from profiling.figures.ladder import verdict_mark
from profiling.format import duration, minute, probability, ratio, size
from profiling.report.evidence import Evidence
from profiling.run_record import Environment
from profiling.verdict.judge import Comparison, PhaseEffect
from profiling.verdict.record import ArmRecord, ComparisonRecord
from profiling.verdict.wording import describe_effect, describe_numerics, describe_verdict, effect_interval
from profiling.vocabulary import OUTCOME_MARKS, Verdict


@dataclass(frozen=True)
class Row:
    """A record, its title on the page and the anchor of its section."""

    record: ComparisonRecord
    title: str
    anchor: str


def render(row: Row, evidence: Evidence, figures: list[Figure], *, opened: bool) -> str:
    """Return the section's HTML and append its charts to `figures`; the HTML refers to a chart by its index there."""
    record, comparison = row.record, row.record.comparison
    effect = comparison.declared_effect
    times = f"<span>{ratio(effect.ratio)} ({effect_interval(effect)})</span>" if effect else ""
    parts = [_hypothesis(comparison), _notes(record, evidence), _changed(record)]
    charts = []
    if comparison.phases:
        charts.append((phase_bars(comparison.phases), "Time per sample in each phase", "bars"))
    if evidence.explanation is not None:
        charts.append((waterfall(evidence.explanation), "Causes of the difference", "causes"))
    if evidence.memory:
        charts.append((memory_curves(evidence.memory), "Memory in the traced window", "memory"))
    if charts:
        containers = [_chart(figures, *chart) for chart in charts]
        parts.append(f'<div class="charts">{"".join(containers)}</div>')
    if comparison.phases:
        parts.append(_phases(comparison.phases, comparison.hypothesis.phase))
    parts.append(f'<div class="columns">{_arms(record)}{_environment(record)}</div>')
    summary = f"<b>{escape(row.title)}</b>{marked_verdict(comparison)}{times}{marked_outcome(comparison)}"
    return (
        f'<details id="{row.anchor}"{" open" if opened else ""}><summary>{summary}</summary>'
        f'<div class="body">{"".join(parts)}</div></details>'
    )


def marked_verdict(comparison: Comparison) -> str:
    """Return the verdict's HTML: shape, color and words."""
    glyph = (
        f'<svg class="glyph" viewBox="-7 -7 14 14" aria-hidden="true">{verdict_mark(comparison.verdict, 0, 0)}</svg>'
    )
    return f'<span class="tone {comparison.verdict.name}">{glyph}{escape(describe_verdict(comparison))}</span>'


def marked_outcome(comparison: Comparison) -> str:
    """Return the HTML of the hypothesis' outcome; empty where the experiment is not applicable."""
    if comparison.verdict is Verdict.not_applicable:
        return ""
    outcome = comparison.outcome
    return f'<span class="{outcome.name}">{OUTCOME_MARKS[outcome]} {outcome.value}</span>'


def machine(environment: Environment) -> str:
    """Describe the machine in one line."""
    return (
        f"{environment.device_name} ({environment.device}), {environment.cores} cores, {environment.threads} threads, "
        f"{size(environment.memory_bytes)}, {environment.precision}, torch {environment.versions.get('torch', '?')}"
    )


def _hypothesis(comparison: Comparison) -> str:
    expect = comparison.hypothesis.expect
    expected = [f"time {expect.time.value}"] if expect.time else []
    expected += [f"memory {expect.memory.value}"] if expect.memory else []
    rows = [
        ("claim", comparison.hypothesis.claim),
        ("because", comparison.hypothesis.because),
        ("expected", f"{', '.join(expected) or 'nothing'}, in {comparison.hypothesis.phase}"),
    ]
    if comparison.reason is not None:
        rows.append(("reason", comparison.reason))
    if (numerics := comparison.numerics) is not None:
        differences = (
            f"largest difference {numerics.max_abs_difference:.3g}, largest relative error of a tensor "
            f"{numerics.max_rel_difference:.3g}"
        )
        rows.append(("same answer", f"{describe_numerics(numerics)} ({differences})"))
    return _definitions(rows)


def _notes(record: ComparisonRecord, evidence: Evidence) -> str:
    notes = [*record.notes, *evidence.notes]
    return f'<div class="notes">{"<br>".join(map(escape, notes))}</div>' if notes else ""


def _changed(record: ComparisonRecord) -> str:
    lines = [f"{key}: {_yaml(old)} → {_yaml(new)}" for key, (old, new) in record.changed.items()]
    text = "\n".join(lines) or "nothing: baseline against baseline"
    return f"<h3>What makes the difference</h3><pre>{escape(text)}</pre>"


def _yaml(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _chart(figures: list[Figure], figure: Figure, text: str, kind: str) -> str:
    figures.append(figure)
    height = figure["layout"]["height"]
    return (
        f'<div class="chart" data-kind="{kind}" data-figure="{len(figures) - 1}" role="img" '
        f'aria-label="{escape(text)}" style="min-height:{height}px"></div>'
    )


def _phases(phases: Iterable[PhaseEffect], declared: str) -> str:
    numeric = (
        "baseline",
        "variant",
        "ratio",
        "95 % interval",
        "noise floor",
        "detectable",
        "p",
        "p (ladder)",
        "share of step",
    )
    head = "<th>phase</th>" + "".join(f'<th class="num">{name}</th>' for name in numeric) + "<th>verdict</th>"
    table = _table(head, (_phase(effect, declared) for effect in phases))
    return f'<h3>Phases, time per sample</h3><div class="wide">{table}</div>'


def _phase(effect: PhaseEffect, declared: str) -> str:
    share = effect.share_of_step
    numbers = (
        duration(effect.baseline_s_per_sample * 1e6),
        duration(effect.variant_s_per_sample * 1e6),
        ratio(effect.ratio),
        effect_interval(effect),
        ratio(effect.floor_ratio),
        ratio(effect.detectable_ratio),
        probability(effect.p_value),
        probability(effect.p_holm),
        "" if share is None else f"{100 * share:.1f} %",
    )
    cells = "".join(f'<td class="num">{number}</td>' for number in numbers)
    verdict = f'<span class="tone {effect.verdict.name}">{escape(describe_effect(effect))}</span>'
    name = escape(effect.phase)
    return f"<td>{f'<b>{name}</b>' if effect.phase == declared else name}</td>{cells}<td>{verdict}</td>"


def _arms(record: ComparisonRecord) -> str:
    """Return the table of what is measured once for each arm: memory, results, warm-up."""
    figures = {name: _figures(arm) for name, arm in record.arms.items()}
    if not figures:
        return ""
    head = "<th></th>" + "".join(f'<th class="num">{escape(name)}</th>' for name in figures)
    labels = dict.fromkeys(label for values in figures.values() for label in values)
    rows = [
        f"<td>{escape(label)}</td>"
        + "".join(f'<td class="num">{escape(values.get(label, "–"))}</td>' for values in figures.values())
        for label in labels
    ]
    return f"<div><h3>Both arms</h3>{_table(head, rows)}</div>"


def _figures(arm: ArmRecord) -> dict[str, str]:
    values = {"peak resident memory": size(arm.peak_resident_bytes)}
    values |= {f"peak of tensors, {stage}": size(count) for stage, count in arm.peak_allocated_bytes.items()}
    values |= {f"allocated per sample, {stage}": size(count) for stage, count in arm.allocated_bytes_per_sample.items()}
    if arm.peak_accelerator_bytes is not None:
        values["peak of the accelerator's allocator"] = size(arm.peak_accelerator_bytes)
    values["warm-up"] = duration(arm.warmup_s * 1e6)
    return values | {name: f"{value:,.6g}" for name, value in arm.results.items()}


def _environment(record: ComparisonRecord) -> str:
    environment = record.environment
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    rows = [
        ("machine", machine(environment)),
        ("host", f"{environment.host}, {environment.processor}, {environment.platform}"),
        ("versions", versions),
        ("measured", f"{minute(record.started)}, {record.seconds:,.0f} s of a budget of {record.budget_s:,.0f} s"),
    ]
    return f"<div><h3>Environment</h3>{_definitions(rows)}</div>"


def _definitions(pairs: Sequence[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in pairs)}</dl>"


def _table(head: str, rows: Iterable[str]) -> str:
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{row}</tr>' for row in rows)}</tbody></table>"
