"""The page: comparison records and the evidence in their traces, as one HTML file that opens offline.

Text from files is escaped: by `escape` here, by `profiling.figures` in charts. As a second barrier, the page's content
security policy allows only the two scripts whose hashes it names, and forbids loading anything. Each file contains
plotly's JavaScript.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

import msgspec

from profiling.figures.comparison import Figure
from profiling.figures.ladder import ladder_svg
from profiling.format import minute, ratio, size
from profiling.report import section
from profiling.report.evidence import gather
from profiling.report.section import Row
from profiling.storage import atomic_write
from profiling.verdict.ladder import by_topic, titles
from profiling.verdict.record import ComparisonRecord
from profiling.verdict.wording import describe_numerics, effect_interval
from profiling.vocabulary import Outcome, Verdict

TITLE = "What each optimization is worth here"
_READING = (
    "Ratios are variant ÷ baseline, time per sample: ×1.050 is 5 % slower. An effect is called when its 95 % interval "
    "excludes 1 and it exceeds the noise floor, what identical code shows on this machine. A refuted hypothesis is a "
    "result: this machine contradicts the claim."
)


def write_report(records: Sequence[ComparisonRecord], folders: Sequence[Path], out: Path) -> None:
    """Write the report of `records`, whose traces are in `folders`, to `out`, atomically."""
    with atomic_write(out) as temporary:
        temporary.write_bytes(render(records, folders).encode())


def render(records: Sequence[ComparisonRecord], folders: Sequence[Path]) -> str:
    """Return the HTML of the report; `folders` holds the traces of each record."""
    from plotly.offline import get_plotlyjs  # slow to import; only the report needs it

    names = titles(records)
    numbered = list(zip(records, range(len(records)), strict=True))
    order = [pair for group in by_topic(numbered).values() for pair in group]
    figures: list[Figure] = []
    alone = len(records) == 1
    sections = [
        section.render(Row(record, names[number], f"e{number}"), gather(record, folders[number]), figures, opened=alone)
        for record, number in order
    ]
    scripts = [get_plotlyjs(), _static("page.js")]
    return Template(_static("page.html")).substitute(
        title=TITLE,
        hashes=" ".join(f"'sha256-{_hash(script)}'" for script in scripts),
        style=_static("page.css"),
        counts=_counts(records),
        subtitle=_subtitle(records),
        ladder=ladder_svg(records),
        table=_table(records, names),
        reading=_READING,
        experiments="\n".join(sections) or "<p>No comparisons.</p>",
        # `</script` would end the data block, so `<` is written as an escape.
        figures=msgspec.json.encode(figures).decode().replace("<", "\\u003c"),
        plotly=scripts[0],
        script=scripts[1],
    )


def _static(name: str) -> str:
    return (resources.files("profiling.report") / "static" / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _counts(records: Sequence[ComparisonRecord]) -> str:
    """Count the outcomes. An experiment that is not applicable here has no outcome and is counted apart."""
    applied = [record.comparison for record in records if record.comparison.verdict is not Verdict.not_applicable]
    outcomes = Counter(comparison.outcome for comparison in applied)
    counts = [(outcomes[outcome], outcome.value, outcome.name) for outcome in Outcome]
    counts.append((len(records) - len(applied), Verdict.not_applicable.value, "muted"))
    return "".join(f'<span class="{kind}"><b>{number}</b> {text}</span>' for number, text, kind in counts)


def _subtitle(records: Sequence[ComparisonRecord]) -> str:
    if not records:
        return ""
    machines = sorted({section.machine(record.environment) for record in records})
    days = sorted(minute(record.started) for record in records)
    seconds = sum(record.seconds for record in records)
    period = " to ".join(dict.fromkeys([days[0], days[-1]]))
    total = f"{seconds:,.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"
    noun = "comparison" if len(records) == 1 else "comparisons"
    return f"{escape('; '.join(machines))}<br>{len(records):,} {noun}, {total} of measuring, {escape(period)}"


def _table(records: Sequence[ComparisonRecord], names: Sequence[str]) -> str:
    rows = [Row(record, name, f"e{number}") for number, (record, name) in enumerate(zip(records, names, strict=True))]
    groups = by_topic((row.record, row) for row in rows)
    body = "".join(
        f'<tbody><tr><th colspan="10">{escape(topic)}</th></tr>{"".join(_tr(row) for _, row in group)}</tbody>'
        for topic, group in groups.items()
    )
    head = (
        '<tr><th>experiment and claim</th><th>phase</th><th class="num">effect</th><th class="num">95 % interval</th>'
        '<th>verdict</th><th>hypothesis</th><th class="num">peak memory<br>baseline</th>'
        '<th class="num"><br>variant</th><th class="num"></th><th>same answer</th></tr>'
    )
    return f"<thead>{head}</thead>{body}"


def _tr(row: Row) -> str:
    comparison = row.record.comparison
    effect, memory, numerics = comparison.declared_effect, comparison.memory, comparison.numerics
    numbers = [
        ratio(effect.ratio) if effect else "–",
        effect_interval(effect) if effect else "",
        size(memory.baseline_bytes) if memory else "–",
        size(memory.variant_bytes) if memory else "–",
        ratio(memory.variant_bytes / memory.baseline_bytes) if memory and memory.baseline_bytes else "",
    ]
    cells = [f'<td class="num">{number}</td>' for number in numbers]
    same = (
        f'<span class="{"bad" if numerics.mismatch else ""}">{escape(describe_numerics(numerics))}</span>'
        if numerics
        else "–"
    )
    return (
        f'<tr><td><a href="#{row.anchor}"><b>{escape(row.title)}</b></a>'
        f"<small>{escape(comparison.hypothesis.claim)}</small></td><td>{escape(comparison.hypothesis.phase)}</td>"
        f"{''.join(cells[:2])}<td>{section.marked_verdict(comparison)}</td><td>{section.marked_outcome(comparison)}</td>"
        f"{''.join(cells[2:])}<td>{same}</td></tr>"
    )
