"""How the page and the picture put figures into words, and in which order experiments come."""

from collections.abc import Iterable
from typing import TypeVar

from profiling.compare import Agreement, Comparison, Numerics, PhaseEffect, describe
from profiling.comparison import ComparisonRecord

BASELINE, VARIANT = ARMS = ("baseline", "variant")
NO_TOPIC = "other"

Item = TypeVar("Item")


def topic(record: ComparisonRecord) -> str:
    """Return what the experiment is about, as its YAML says."""
    hypothesis = record.configs.get(VARIANT, {}).get("hypothesis")
    return str(hypothesis.get("topic", NO_TOPIC)) if isinstance(hypothesis, dict) else NO_TOPIC


def by_topic(items: Iterable[tuple[ComparisonRecord, Item]]) -> dict[str, list[tuple[ComparisonRecord, Item]]]:
    """Group by topic, topics in alphabetical order; within one the order is kept."""
    groups: dict[str, list[tuple[ComparisonRecord, Item]]] = {}
    for record, item in items:
        groups.setdefault(topic(record), []).append((record, item))
    return dict(sorted(groups.items()))


def titles(records: Iterable[ComparisonRecord]) -> list[str]:
    """Name each record by its experiment, and by its date too where an experiment occurs more than once."""
    records = list(records)
    names = [record.comparison.experiment for record in records]
    return [
        f"{name} ({moment(record.started)})" if names.count(name) > 1 else name
        for name, record in zip(names, records, strict=True)
    ]


def moment(started: str) -> str:
    """Shorten an ISO time to the minute."""
    return started[:16].replace("T", " ")


def declared_effect(comparison: Comparison) -> PhaseEffect | None:
    """Return the effect in the hypothesis' phase; None where it was not measured."""
    return next((effect for effect in comparison.phases if effect.phase == comparison.hypothesis.phase), None)


def verdict(comparison: Comparison) -> str:
    """Spell out the verdict of the hypothesis' phase."""
    effect = declared_effect(comparison)
    return comparison.verdict.value if effect is None else describe(effect)


def ratio(value: float) -> str:
    """Write a ratio so that rows of a table align: `×1.052`, `×21.3`, `×1,204`."""
    digits = 3 if value < 10 else 1 if value < 100 else 0
    return f"×{value:,.{digits}f}"


def interval(effect: PhaseEffect) -> str:
    """Write the 95 % interval of a ratio."""
    return f"{ratio(effect.ratio_low)[1:]} – {ratio(effect.ratio_high)[1:]}"


def probability(value: float | None) -> str:
    """Write a p-value; empty where there is none."""
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def answer(numerics: Numerics) -> str:
    """Say whether the results stayed the same; a mismatch has a mark that does not need color."""
    if numerics.mismatch:
        return f"✗ {numerics.measured.value}, declared {numerics.declared.value}"
    return numerics.measured.value if numerics.measured is Agreement.different else f"✓ {numerics.measured.value}"
