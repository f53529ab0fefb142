"""Printing one comparison, and the ladder of many."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from profiling.diff.diff import load_windows
from profiling.diff.explanation import explain, same_operators, shared_code_note
from profiling.diff.totals import StageWindow
from profiling.format import duration, duration_change, ratio, size
from profiling.terminal.tables import FittedTable, PlainConsole
from profiling.verdict.judge import Comparison, PhaseEffect
from profiling.verdict.ladder import Ladder, outcomes
from profiling.verdict.numerics import NumericsCheck
from profiling.verdict.record import ComparisonRecord
from profiling.verdict.wording import describe_effect, describe_memory, describe_outcome, effect_interval
from profiling.vocabulary import COMPARED_ARMS, STAGES, Agreement, Estimator, Verdict

CAUSES_SHOWN = 3
STYLES = {Verdict.slower: "yellow", Verdict.faster: "cyan", Verdict.failed: "red"}


def show_comparison(
    console: Console, record: ComparisonRecord, startup_s: float, waited_s: float, folder: Path
) -> None:
    """Print one comparison; `folder` holds the traces of its arms."""
    comparison = record.comparison
    if comparison.phases:
        console.print(_phase_table(record))
    console.print(f"{comparison.experiment}: {comparison.hypothesis.claim}")
    if comparison.hypothesis.claims_something:
        is_judged = comparison.verdict is not Verdict.not_applicable
        expect = comparison.hypothesis.expect
        outcome = describe_outcome(comparison.outcome, expect) if is_judged else comparison.verdict.value
        console.print(Text(outcome, style="bold"), f": {'; '.join(_shown(comparison))}", sep="")
    else:
        console.print(Text(_verdict(comparison), style="bold"))
    for line in _causes(record, folder):
        console.print(f"  {line}")
    if shared := _shared(record, folder):
        console.print(shared_code_note(shared))
    if comparison.numerics is not None:
        numerics = comparison.numerics
        declared = ", as declared" if numerics.measured is Agreement.different and not numerics.mismatch else ""
        console.print("results: ", _numerics(numerics), f"{declared} ({numerics.largest})", sep="")
    for note in record.notes:
        console.print(note, style="red")
    console.print(
        f"measured in {record.seconds:.0f} s, {startup_s:.0f} s of it starting processes and {waited_s:.0f} s waiting "
        f"for cores that are free and near each other: {folder}",
        style="dim",
    )


def show_comparisons(
    console: Console, records: Sequence[ComparisonRecord], report: Path, missing: Sequence[str] = ()
) -> None:
    """Print comparisons that were corrected as one family, the path of their report, and what is `missing` in both."""
    table = FittedTable(
        "the ladder, corrected for its length (Holm)",
        ["experiment", "phase", "verdict", "hypothesis", "results"],
        ["ratio, 95 % interval"],
        leave_out=("results", "hypothesis", "phase", "verdict"),
        wrapped=("verdict",),
    )
    for record in records:
        comparison, effect = record.comparison, record.comparison.declared_effect
        table.add_row(
            comparison.experiment,
            comparison.hypothesis.phase,
            describe_effect(effect) if effect else comparison.verdict.value,
            ""
            if comparison.verdict is Verdict.not_applicable
            else describe_outcome(comparison.outcome, comparison.hypothesis.expect),
            _numerics(comparison.numerics) if comparison.numerics else "",
            _ratio(effect) if effect else "",
            style=STYLES.get(comparison.verdict, ""),
        )
    console.print(table)
    if missing:
        console.print(f"missing, as these left no comparison: {', '.join(missing)}", style="red")
    counts = ", ".join(f"{count} {outcome.value}" for outcome, count in outcomes(records).items() if count)
    minutes = sum(record.seconds for record in records) / 60
    console.print(f"{counts}; {minutes:.1f} minutes: {report}")


def show_ladder(ladder: Ladder) -> None:
    """Print the notes and effects of a ladder."""
    console = PlainConsole()
    for note in ladder.notes:
        console.print(note, style="yellow")
    if not ladder.effects:
        console.print("no comparison.json here; `python -m train.ab` writes them")
        return
    text, numbers = ["experiment", "hypothesis"], ["ratio", "from", "to"]
    table = FittedTable("effects", text, numbers, leave_out=("from", "to"), wrapped=("hypothesis",))
    for entry in ladder.effects:
        effect = next((effect for effect in entry.phases if effect.phase == entry.hypothesis.phase), None)
        ratios = (effect.ratio, effect.ratio_low, effect.ratio_high) if effect else ()
        outcome = entry.verdict_text
        if entry.verdict is not Verdict.not_applicable:
            judged = describe_outcome(entry.outcome, entry.hypothesis.expect)
            outcome = f"{judged}: {entry.hypothesis.phase} {entry.verdict_text}"
        table.add_row(entry.title, outcome, *(map(ratio, ratios) if effect else ("", "", "")))
    console.print(table)


def _phase_table(record: ComparisonRecord) -> FittedTable:
    """Return a table with one row for each phase; the declared phase is bold."""
    comparison = record.comparison
    has_mean = any(effect.estimator is Estimator.mean for effect in comparison.phases)
    steps = " of the fastest steps, or (mean) of all" if has_mean else ""
    table = FittedTable(
        f"{comparison.experiment} against the baseline",
        ["phase", "verdict"],
        ["baseline", "variant", "ratio, 95 % interval", "share", "memory"],
        leave_out=("memory", "share", "baseline", "variant", "verdict"),
        wrapped=("verdict",),
        caption=f"time per sample{steps}; share of the baseline's step; memory: peak of tensors in the traced window, "
        "above the level at its start",
    )
    for effect in comparison.phases:
        is_declared = effect.phase == comparison.hypothesis.phase
        table.add_row(
            f"{effect.phase} (mean)" if effect.estimator is Estimator.mean else effect.phase,
            describe_effect(effect),
            duration(effect.baseline_s_per_sample * 1e6),
            duration(effect.variant_s_per_sample * 1e6),
            _ratio(effect),
            "" if effect.share_of_step is None else f"{effect.share_of_step:.1%}",
            _memory(record, effect.phase),
            style=f"{'bold ' if is_declared else ''}{STYLES.get(effect.verdict, '')}",
        )
    return table


def _ratio(effect: PhaseEffect) -> str:
    return f"{ratio(effect.ratio)} ({effect_interval(effect)})"


def _memory(record: ComparisonRecord, stage: str) -> str:
    """Return the peak of live tensors in both arms' traced windows; empty for a phase, or without traces."""
    peaks = [record.arms[arm].peak_allocated_bytes.get(stage) for arm in COMPARED_ARMS]
    return "" if None in peaks else " -> ".join(size(peak or 0) for peak in peaks)


def _verdict(comparison: Comparison) -> str:
    """Return the verdict on the declared phase, in words."""
    effect = comparison.declared_effect
    if effect is not None:
        return f"{effect.phase}: {describe_effect(effect)}"
    verdict = comparison.verdict.value
    return f"{verdict}: {comparison.reason}".removeprefix(f"{verdict}: {verdict}: ")


def _shown(comparison: Comparison) -> list[str]:
    """Return the verdict on time, and the peaks of memory if the claim is about them: first if about them alone."""
    expect, shown = comparison.hypothesis.expect, [_verdict(comparison) + _claimed(comparison)]
    if expect.memory is not None and comparison.memory is not None:
        shown.insert(len(shown) if expect.time else 0, describe_memory(comparison.memory))
    return shown


def _claimed(comparison: Comparison) -> str:
    """Return the size that the hypothesis claims, beside the interval that it is held against; empty without one."""
    effect, at_least = comparison.declared_effect, comparison.hypothesis.expect.at_least
    if effect is None or at_least is None:
        return ""
    return f", {_ratio(effect)}; claimed: at least {ratio(at_least)}"


def _numerics(numerics: NumericsCheck) -> Text:
    """Whether the results stayed the same."""
    if numerics.mismatch:
        return Text(f"{numerics.measured.value}, declared {numerics.declared.value}", style="red")
    return Text(numerics.measured.value)


def _shared(record: ComparisonRecord, folder: Path) -> list[str]:
    """Return the phases with an effect that the hypothesis does not name, though both arms run the same operators."""
    called = record.comparison.called_elsewhere
    if not called or not all(arm.traces for arm in record.arms.values()):
        return []
    windows: dict[str, dict[str, list[StageWindow]]] = {}
    for arm in COMPARED_ARMS:
        for window in load_windows(folder / arm):
            windows.setdefault(window.stage, {}).setdefault(arm, []).append(window)
    return same_operators(windows, called)


def _causes(record: ComparisonRecord, folder: Path) -> list[str]:
    """Return a line for each of the largest causes if the verdict is slower or faster, from the traces of both arms."""
    comparison = record.comparison
    if comparison.verdict not in (Verdict.slower, Verdict.faster) or not all(a.traces for a in record.arms.values()):
        return []
    phase = comparison.hypothesis.phase
    stage = phase if phase in STAGES else "train"
    windows = {arm: [window for window in load_windows(folder / arm) if window.stage == stage] for arm in COMPARED_ARMS}
    explanation, effect = explain({stage: windows}, phase), comparison.declared_effect
    sign = 1 if comparison.verdict is Verdict.slower else -1
    if explanation is None or effect is None:
        return [f"the traced windows do not show it: not both have {phase}"]
    if explanation.difference_us * sign <= 0:
        if explanation.is_certain:
            traced = duration_change(explanation.difference_us)
            return [f"the traced windows do not show it: {traced} per {explanation.unit} in them"]
        return ["the traced windows cannot tell why: single steps of both arms take equally long in them"]
    shown = explanation.causes[:CAUSES_SHOWN]
    rest_us = explanation.difference_us - sum(cause.difference_us for cause in shown)
    doubt = any(explanation.mark(cause) for cause in shown)
    return [
        explanation.against(effect.difference_us),
        *(
            f"  {explanation.mark(cause)}{explanation.share(cause.difference_us)} "
            f"({duration_change(cause.difference_us)}): {cause.text} in {cause.phase}"
            for cause in shown
        ),
        f"  {explanation.share(rest_us)} ({duration_change(rest_us)}): everything else",
        *(["~ these windows cannot tell: single steps of both arms take equally long"] if doubt else []),
    ]
