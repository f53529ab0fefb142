"""What the page says about one experiment, as text and charts; templates/parts.html lays it out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from profiling.diff.explanation import Explanation
from profiling.figures.comparison import waterfall
from profiling.figures.measured import memory_curves, phase_bars
from profiling.figures.style import Figure
from profiling.format import duration, minute, size
from profiling.report.evidence import Evidence
from profiling.run_record import Environment
from profiling.verdict.judge import Comparison
from profiling.verdict.record import ArmRecord, ComparisonRecord
from profiling.verdict.wording import describe_expectation, describe_memory, describe_numerics


@dataclass(frozen=True)
class Chart:
    """A chart's place: `number` is its index among the page's figures, `height` in pixels."""

    kind: str
    text: str
    number: int
    height: int


@dataclass(frozen=True)
class ArmFigures:
    """What is measured once for each arm: memory, results, warm-up. `rows`: a label, and the text of each arm."""

    arms: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class Section:
    """A record, and what is said about it; `hypothesis` and `environment` are pairs of a name and a text."""

    record: ComparisonRecord
    title: str
    anchor: str
    hypothesis: Sequence[tuple[str, str]]
    notes: Sequence[str]
    changed: str
    charts: Sequence[Chart]
    figures: ArmFigures
    environment: Sequence[tuple[str, str]]


def section(record: ComparisonRecord, title: str, anchor: str, evidence: Evidence, figures: list[Figure]) -> Section:
    """Say what is known about one experiment; its charts are appended to `figures`."""
    lines = [f"{key}: {_yaml(old)} → {_yaml(new)}" for key, (old, new) in record.changed.items()]
    return Section(
        record=record,
        title=title,
        anchor=anchor,
        hypothesis=_hypothesis(record.comparison),
        notes=[*record.notes, *evidence.notes],
        changed="\n".join(lines) or "nothing: baseline against baseline",
        charts=_charts(record.comparison, evidence, figures),
        figures=_figures(record.arms),
        environment=_environment(record),
    )


def machine(environment: Environment) -> str:
    """Describe the machine in one line."""
    return (
        f"{environment.device_name} ({environment.device}), {environment.cores} cores, {environment.threads} threads, "
        f"{size(environment.memory_bytes)}, {environment.precision}, torch {environment.versions.get('torch', '?')}"
    )


def _hypothesis(comparison: Comparison) -> list[tuple[str, str]]:
    rows = [
        ("claim", comparison.hypothesis.claim),
        ("because", comparison.hypothesis.because),
        ("expected", f"{describe_expectation(comparison.hypothesis.expect)}, in {comparison.hypothesis.phase}"),
    ]
    if comparison.hypothesis.expect.memory and comparison.memory is not None:
        rows.append(("measured", describe_memory(comparison.memory)))
    if comparison.reason is not None:
        rows.append(("reason", comparison.reason))
    if (numerics := comparison.numerics) is not None:
        rows.append(("same answer", f"{describe_numerics(numerics)} ({numerics.largest})"))
    return rows


def _yaml(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _charts(comparison: Comparison, evidence: Evidence, figures: list[Figure]) -> list[Chart]:
    charts = []
    if comparison.phases:
        charts.append(("bars", "Time per sample in each phase", phase_bars(comparison.phases)))
    if evidence.explanation is not None:
        charts.append(("causes", _causes_title(comparison, evidence.explanation), waterfall(evidence.explanation)))
    if evidence.memory:
        charts.append(("memory", "Memory in the traced window", memory_curves(evidence.memory)))
    for _, text, figure in charts:
        figure["layout"]["title"] = {"text": text, "x": 0, "xref": "container", "xanchor": "left", "font": {"size": 13}}
    first = len(figures)
    figures.extend(figure for _, _, figure in charts)
    return [
        Chart(kind, text, number, figure["layout"]["height"])
        for number, (kind, text, figure) in enumerate(charts, start=first)
    ]


def _causes_title(comparison: Comparison, explanation: Explanation) -> str:
    effect = comparison.declared_effect
    if effect is None:
        return "Causes of the traced difference"
    return f"Causes of the difference: {explanation.against(effect.difference_us)}"


def _figures(arms: Mapping[str, ArmRecord]) -> ArmFigures:
    texts = {name: _arm_figures(arm) for name, arm in arms.items()}
    labels = dict.fromkeys(label for values in texts.values() for label in values)
    return ArmFigures([*texts], [(label, [values.get(label, "–") for values in texts.values()]) for label in labels])


def _arm_figures(arm: ArmRecord) -> dict[str, str]:
    values = {"peak resident memory": size(arm.peak_resident_bytes)}
    values |= {f"peak of tensors, {stage}": size(count) for stage, count in arm.peak_allocated_bytes.items()}
    values |= {f"allocated per sample, {stage}": size(count) for stage, count in arm.allocated_bytes_per_sample.items()}
    if arm.peak_accelerator_bytes is not None:
        values["peak of the accelerator's allocator"] = size(arm.peak_accelerator_bytes)
    values["warm-up"] = duration(arm.warmup_s * 1e6)
    return values | {name: f"{value:,.6g}" for name, value in arm.results.items()}


def _environment(record: ComparisonRecord) -> list[tuple[str, str]]:
    environment = record.environment
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    return [
        ("machine", machine(environment)),
        ("host", f"{environment.host}, {environment.processor}, {environment.platform}"),
        ("versions", versions),
        ("measured", f"{minute(record.started)}, {record.seconds:,.0f} s of a budget of {record.budget_s:,.0f} s"),
    ]
