"""What a comparison says in the terminal."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from profiling import report
from profiling.compare import Comparison, Numerics, PhaseEffect, Verdict, correct_ladder, describe
from profiling.comparison import ComparisonRecord
from profiling.diff import diff, load
from train.options import STAGES

MIB = 2**20
CAUSES_SHOWN = 3
WIDTH = 132  # where the output is no terminal
STYLES = {Verdict.slower: "yellow", Verdict.faster: "cyan", Verdict.failed: "red"}


def new_console() -> Console:
    """As wide as the terminal; tables need more than the 80 columns that rich assumes of a file."""
    return Console(soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)


def show(console: Console, record: ComparisonRecord, startup_s: float, waited_s: float, folder: Path) -> None:
    """Print one comparison."""
    judged = record.comparison
    if judged.phases:
        console.print(phase_table(record))
    console.print(f"{escape(judged.experiment)}: {escape(judged.hypothesis.claim)}", highlight=False)
    console.print(f"[bold]{judged.outcome.value}[/bold]: {escape(verdict(judged))}", highlight=False)
    for line in causes(record, folder):
        console.print(f"  {line}", highlight=False)
    if judged.numerics is not None:
        largest = f"largest difference {judged.numerics.max_abs_difference:.2g}"
        console.print(f"results: {answer(judged.numerics)} ({largest})", highlight=False)
    for note in record.notes:
        console.print(note, style="red", highlight=False)
    console.print(
        f"measured in {record.seconds:.0f} s, {startup_s:.0f} s of it starting processes and {waited_s:.0f} s waiting "
        f"for cores that are near each other: {folder}",
        style="dim",
        highlight=False,
    )


def phase_table(record: ComparisonRecord) -> Table:
    """One row for each phase; the hypothesis' own is bold."""
    judged = record.comparison
    table = Table(title=f"{judged.experiment} against the baseline", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("phase", no_wrap=True)
    for heading in ("baseline", "variant", "ratio, 95 % interval", "share", "memory MiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict")
    for effect in judged.phases:
        table.add_row(
            effect.phase,
            f"{effect.baseline_s_per_sample * 1e6:,.2f}",
            f"{effect.variant_s_per_sample * 1e6:,.2f}",
            ratio(effect),
            "" if effect.share_of_step is None else f"{effect.share_of_step:.1%}",
            memory(record, effect.phase),
            describe(effect),
            style=f"{'bold ' if effect.phase == judged.hypothesis.phase else ''}{STYLES.get(effect.verdict, '')}",
        )
    table.caption = "time in µs per sample; share of the baseline's step; memory: peak of tensors in the traced window"
    table.caption_justify = "left"
    return table


def ratio(effect: PhaseEffect) -> str:
    """Variant over baseline, with its interval."""
    return f"{effect.ratio:.3f} ({effect.ratio_low:.3f} to {effect.ratio_high:.3f})"


def memory(record: ComparisonRecord, stage: str) -> str:
    """Peak of live tensors in both arms' traced windows; empty for a phase, or without traces."""
    peaks = [record.arms[name].peak_allocated_bytes.get(stage) for name in ("baseline", "variant")]
    return "" if None in peaks else " -> ".join(f"{(peak or 0) / MIB:,.1f}" for peak in peaks)


def verdict(judged: Comparison) -> str:
    """The verdict on the hypothesis' phase, in words."""
    effect = declared(judged)
    if effect is not None:
        return f"{effect.phase}: {describe(effect)}"
    return f"{judged.verdict.value}: {judged.reason}".removeprefix(f"{judged.verdict.value}: {judged.verdict.value}: ")


def causes(record: ComparisonRecord, folder: Path) -> list[str]:
    """The three operators that explain most of a called effect, by one traced window of each arm."""
    judged = record.comparison
    if judged.verdict not in (Verdict.slower, Verdict.faster) or not all(arm.traces for arm in record.arms.values()):
        return []
    phase = judged.hypothesis.phase
    stage = phase if phase in STAGES else "train"
    sides = ([window for window in load(folder / name) if window.stage == stage] for name in ("baseline", "variant"))
    sign = 1 if judged.verdict is Verdict.slower else -1
    found = [cause for cause in diff(*sides).causes if cause.difference_us * sign > 0 and phase in (stage, cause.phase)]
    if not found:
        return ["the traced windows do not show it"]
    return [f"{c.difference_us:+.2f} µs per sample: {escape(c.name)} in {c.phase}" for c in found[:CAUSES_SHOWN]]


def declared(judged: Comparison) -> PhaseEffect | None:
    """The effect in the hypothesis' phase, if it was measured."""
    return next((effect for effect in judged.phases if effect.phase == judged.hypothesis.phase), None)


def answer(numerics: Numerics) -> str:
    """Whether the results stayed the same."""
    if numerics.mismatch:
        return f"[red]{numerics.measured.value}, declared {numerics.declared.value}[/red]"
    return numerics.measured.value


def write_ladder(console: Console, done: Sequence[tuple[ComparisonRecord, Path]]) -> None:
    """Judge comparisons as one family (Holm), print one table, and write one report beside their folders."""
    corrected = correct_ladder([record.comparison for record, _ in done])
    records = [msgspec.structs.replace(record, comparison=c) for (record, _), c in zip(done, corrected, strict=True)]
    folders = [folder for _, folder in done]
    out = folders[0].parent / "report.html"
    report.write(records, folders, out)
    table = Table(title="the ladder, corrected for its length (Holm)", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("experiment", "phase", "ratio, 95 % interval", "verdict", "hypothesis", "results"):
        table.add_column(heading, no_wrap=heading != "verdict")
    for record in records:
        judged = record.comparison
        effect = declared(judged)
        table.add_row(
            judged.experiment,
            judged.hypothesis.phase,
            ratio(effect) if effect else "",
            describe(effect) if effect else judged.verdict.value,
            judged.outcome.value,
            answer(judged.numerics) if judged.numerics else "",
            style=STYLES.get(judged.verdict, ""),
        )
    console.print(table)
    counts = Counter(record.comparison.outcome.value for record in records)
    seconds = sum(record.seconds for record in records)
    console.print(", ".join(f"{n} {outcome}" for outcome, n in counts.items()) + f"; {seconds / 60:.1f} minutes: {out}")
