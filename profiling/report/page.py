"""The page: comparison records and the evidence in their traces, as one HTML file that opens offline.

Text from files is escaped: by the templates, and in charts by `profiling.figures`. As a second barrier, the page's
content security policy allows only the two scripts whose hashes it names, and forbids loading anything. Each file
contains plotly's JavaScript.
"""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2
import msgspec
from markupsafe import Markup

from profiling.figures.ladder import ladder_svg, verdict_mark
from profiling.figures.style import Figure
from profiling.format import duration, minute, probability, ratio, size
from profiling.report.evidence import gather
from profiling.report.section import machine, section
from profiling.storage import atomic_write
from profiling.verdict.ladder import by_topic, outcomes, titles
from profiling.verdict.record import ComparisonRecord
from profiling.verdict.wording import (
    describe_effect,
    describe_numerics,
    describe_outcome,
    describe_verdict,
    effect_interval,
)
from profiling.vocabulary import OUTCOME_MARKS, Outcome, Verdict

TITLE = "What each optimization is worth here"
_READING = (
    "Ratios are variant ÷ baseline, time per sample: ×1.050 is 5 % slower. An effect is called when its 95 % interval "
    "excludes 1 and it exceeds the noise floor, what identical code shows on this machine. A refuted hypothesis is a "
    "result: this machine contradicts the claim."
)


def write_report(
    records: Sequence[ComparisonRecord], folders: Sequence[Path], out: Path, missing: Sequence[str] = ()
) -> None:
    """Write the report of `records`, whose traces are in `folders`, to `out`, atomically; see `render`."""
    with atomic_write(out) as temporary:
        temporary.write_bytes(render(records, folders, missing).encode())


def render(records: Sequence[ComparisonRecord], folders: Sequence[Path], missing: Sequence[str] = ()) -> str:
    """Return the HTML of the report.

    Args:
        records: what was measured.
        folders: hold the traces of each record.
        missing: names of what was to be measured, and left nothing.
    """
    from plotly.offline import get_plotlyjs  # slow to import; only the report needs it

    names = titles(records)
    figures: list[Figure] = []
    topics = {
        topic: [
            section(record, names[number], f"e{number}", gather(record, folders[number]), figures)
            for record, number in group
        ]
        for topic, group in by_topic(zip(records, range(len(records)), strict=True)).items()
    }
    scripts = [get_plotlyjs(), _static("page.js")]
    return (
        _templates()
        .get_template("page.html")
        .render(
            title=TITLE,
            hashes=[base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts],
            style=Markup(_static("page.css")),
            counts=_counts(records),
            subtitle=_subtitle(records),
            missing=", ".join(missing),
            ladder=Markup(ladder_svg(records)),
            reading=_READING,
            topics=topics,
            opened=len(records) == 1,
            # `</script` would end the data block, so `<` is written as an escape.
            figures=Markup(msgspec.json.encode(figures).decode().replace("<", "\\u003c")),
            scripts=[Markup(script) for script in scripts],
        )
    )


def _templates() -> jinja2.Environment:
    """Load the templates, which escape all values but those that are marked as HTML."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("profiling.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    writers = (
        duration,
        probability,
        ratio,
        size,
        effect_interval,
        describe_effect,
        describe_numerics,
        describe_outcome,
        describe_verdict,
    )
    templates.filters |= {writer.__name__: writer for writer in writers}
    templates.filters["mark"] = lambda verdict: Markup(verdict_mark(verdict, 0, 0))
    templates.globals |= {"OUTCOME_MARKS": OUTCOME_MARKS, "Verdict": Verdict}
    return templates


def _static(name: str) -> str:
    return (resources.files("profiling.report") / "static" / name).read_text(encoding="utf-8")


def _counts(records: Sequence[ComparisonRecord]) -> list[tuple[int, str, str]]:
    """Each outcome's count, its words and its style."""
    return [
        (count, outcome.value, outcome.name if isinstance(outcome, Outcome) else "muted")
        for outcome, count in outcomes(records).items()
    ]


def _subtitle(records: Sequence[ComparisonRecord]) -> list[str]:
    """Write the lines that say where and when these comparisons were measured."""
    if not records:
        return []
    machines = sorted({machine(record.environment) for record in records})
    days = sorted(minute(record.started) for record in records)
    seconds = sum(record.seconds for record in records)
    period = " to ".join(dict.fromkeys([days[0], days[-1]]))
    total = f"{seconds:,.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"
    noun = "comparison" if len(records) == 1 else "comparisons"
    return ["; ".join(machines), f"{len(records):,} {noun}, {total} of measuring, {period}"]
