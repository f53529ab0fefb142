"""The ladder in the tab: the effect of each optimization, its verdict, and the outcome of its hypothesis."""

from collections.abc import Callable, Sequence
from typing import Any

from profiling.figures.blocks import (
    Block,
    Column,
    Content,
    chart,
    facts,
    group,
    listed,
    mark,
    message,
    note,
    number,
    outcome_mark,
    panel,
    table,
    verdict_mark,
)
from profiling.figures.forest import axis_parts, forest, forest_rows
from profiling.figures.measured import phase_bars
from profiling.format import count, interval, minute, percent, ratio, size
from profiling.verdict.ladder import Ladder, LadderEntry
from profiling.verdict.wording import describe_outcome
from profiling.vocabulary import OUTCOME_MARKS, Outcome, Verdict

_NONE = (
    "Measure one with `python -m train.ab +experiment=nograd_off`, all of them with "
    "`python -m train.ab -m '+experiment=glob(*)'`. Each appears here when it is done."
)
_FLOOR = "What identical code showed here, baseline against baseline"


def effects(ladder: Ladder) -> Block:
    """Return the view, and what Compare shows of each comparison.

    `above` are blocks over the filters; `filters` have the value of each effect, by which the tab chooses those to
    show; `counts`, `machines`, `chart` and `table` are of all effects. `lines` are those of the chart: the effects, by
    index, that each is about; `axis` is what its axis is made of when only some are shown. `measured`: the folder of a
    comparison -> blocks.
    """
    entries = ladder.effects
    problem = message("partial", "Some comparisons could not be read and are left out.")
    above = [listed(ladder.notes, problem)] if ladder.notes else []
    measured = {entry.folder: [_measured(entry)] for entry in entries}
    if not entries:
        empty = message("empty", "No comparison lies below this logdir: there are no effects to show.", _NONE)
        return {"above": [*above, empty], "measured": measured, "notes": ladder.notes}
    lines = forest_rows(entries)
    text = "Effect of each experiment on time per sample"
    verdicts = [verdict.value for verdict in Verdict]
    opens = [_comparison(entry) for entry in entries]
    return {
        "above": above,
        "notes": ladder.notes,
        "filters": [
            _filter("topic", "Topic", [entry.topic for entry in entries], str),
            _filter("phase", "Phase", [entry.hypothesis.phase for entry in entries], str),
            _filter("verdict", "Verdict", [entry.verdict.value for entry in entries], verdicts.index),
        ],
        "counts": _counts(entries),
        "machines": [_machine(entry) for entry in entries],
        "lines": [line.entries for line in lines],
        "axis": axis_parts(entries),
        "title": text,
        "chart": {**chart(forest(lines), text, "effects"), "opens": opens},
        "table": _hypotheses(entries, opens),
        "measured": measured,
    }


def _filter(key: str, title: str, values: Sequence[str], order: Callable[[str], Any]) -> Block:
    """Return a filter; `values`: that of each effect; `options`: those in it, in order."""
    return {"key": key, "title": title, "values": values, "options": sorted(set(values), key=order)}


def _comparison(entry: LadderEntry) -> Block | None:
    """Return the address of an effect's comparison; None where an arm has no trace."""
    if not (entry.variant and entry.baseline):
        return None
    return {"view": "compare", "run": entry.variant, "against": entry.baseline, "window": ""}


def _counts(entries: Sequence[LadderEntry]) -> list[Block]:
    """Return what the tab counts: the effects of which each is true, and how to name it."""
    everything = list(enumerate(entries))
    idle = [i for i, entry in everything if entry.verdict is Verdict.not_applicable]
    judged = [(i, entry) for i, entry in everything if i not in idle]
    mismatches = [i for i, entry in everything if entry.numerics and entry.numerics.mismatch]
    outcomes = [
        {
            "entries": [i for i, entry in judged if entry.outcome is outcome],
            "content": mark(f"{OUTCOME_MARKS[outcome]} {outcome.value}", f"outcome {outcome.name}"),
            "always": True,
        }
        for outcome in Outcome
    ]
    return [
        {"entries": list(range(len(entries))), "content": "experiments", "single": "experiment", "always": True},
        *outcomes,
        {"entries": idle, "content": Verdict.not_applicable.value},
        {"entries": mismatches, "content": mark("✗ not the same answer", "answer bad")},
    ]


def _machine(entry: LadderEntry) -> str:
    at = entry.environment
    return f"{at.device_name}, {at.cores} cores, {at.precision}, torch {at.versions.get('torch', '?')}"


def _hypotheses(entries: Sequence[LadderEntry], opens: Sequence[Block | None]) -> Block:
    def of_effect(key: str) -> Callable[[LadderEntry], float | None]:
        return lambda entry: getattr(entry.declared_effect, key) if entry.declared_effect else None

    def of_memory(key: str) -> Callable[[LadderEntry], int | None]:
        return lambda entry: getattr(entry.memory, key) if entry.memory else None

    columns = [
        Column("title", "experiment", content=_experiment, look="wraps"),
        Column("claim", value=lambda entry: entry.hypothesis.claim),
        Column("topic", "topic", look="brief"),
        Column("phase", "phase", value=lambda entry: entry.hypothesis.phase, look="brief"),
        number("ratio", "effect", ratio, "time per sample, variant ÷ baseline", of_effect("ratio")),
        number("ratio_low", "from", ratio, "lower end of the 95 % interval", of_effect("ratio_low")),
        number("ratio_high", "to", ratio, "upper end of the 95 % interval", of_effect("ratio_high")),
        Column("verdict", "verdict", value=lambda entry: entry.verdict_text, content=_verdict, look="brief"),
        Column(
            "outcome",
            "hypothesis",
            content=_outcome,
            look="brief",
        ),
        Column(
            "memory_ratio",
            "memory",
            "peak, baseline → variant",
            value=_memory_ratio,
            content=_peaks,
            look="number",
        ),
        Column("baseline_bytes", value=of_memory("baseline_bytes")),
        Column("variant_bytes", value=of_memory("variant_bytes")),
        Column(
            "same_answer",
            "same answer",
            "whether the results stayed the same",
            value=lambda entry: entry.numerics_text,
            content=_same_answer,
            look="brief",
        ),
    ]
    label = "Hypotheses and verdicts"
    return table(entries, columns, label=label, name="effects", sort="topic", search="q", opens=opens)


def _experiment(entry: LadderEntry) -> Content:
    interrupted = [mark(" interrupted", "note")] if entry.partial else []
    return [mark(entry.title, tag="b"), *interrupted, mark(entry.hypothesis.claim, tag="small")]


def _outcome(entry: LadderEntry) -> Content:
    """Return the outcome of the hypothesis."""
    return outcome_mark(entry.outcome, entry.verdict, describe_outcome(entry.outcome, entry.hypothesis.expect))


def _verdict(entry: LadderEntry) -> Content:
    """Return the verdict; the line below has the rest of its text, or the reason why there is none."""
    verdict = entry.verdict.value
    # The row already shows the verdict and the experiment's name.
    reason = (entry.reason or "").replace(f"{verdict}: {entry.experiment} ", "")
    detail = entry.verdict_text.removeprefix(verdict).strip() or reason
    return [verdict_mark(entry.verdict, verdict), *([mark(detail, tag="small")] if detail else ())]


def _memory_ratio(entry: LadderEntry) -> float | None:
    memory = entry.memory
    return memory.variant_bytes / memory.baseline_bytes if memory and memory.baseline_bytes else None


def _peaks(entry: LadderEntry) -> str:
    if _memory_ratio(entry) is None or entry.memory is None:
        return ""
    before, after = size(entry.memory.baseline_bytes), size(entry.memory.variant_bytes)
    unit = f" {after.rpartition(' ')[2]}"
    return f"{before.removesuffix(unit)} → {after}"


def _same_answer(entry: LadderEntry) -> Content:
    if entry.numerics is None or entry.numerics_text is None:
        return ""
    agreement, _, details = entry.numerics_text.partition(", ")
    look = "answer bad" if entry.numerics.mismatch else "answer"
    return [mark(agreement, look), mark(details, tag="small")]


def _measured(entry: LadderEntry) -> Block:
    """Return the measured effect of one comparison, corrected over the whole ladder."""
    partial = message("partial", "The comparison was interrupted before its planned number of blocks.")
    words = group(
        "",
        note(entry.hypothesis.claim, look="claim"),
        note(entry.hypothesis.because),
        _figures(entry),
        note(_circumstances(entry)),
    )
    text = "Bars: measured time per sample of each phase, baseline and variant"
    bars = [chart(phase_bars(entry.phases), text, f"measured-{entry.experiment}")] if entry.phases else []
    return panel(
        f"Measured, interleaved: {entry.title}",
        *([partial] if entry.partial else ()),
        *([message("empty", entry.reason)] if entry.reason else ()),
        group("columns narrow-left", words, *bars),
    )


def _figures(entry: LadderEntry) -> Block:
    effect, memory, numerics = entry.declared_effect, entry.memory, entry.numerics
    answer: Content = "not compared"
    if numerics is not None:
        answer = mark(entry.numerics_text or "", f"answer {'bad' if numerics.mismatch else 'good'}")
    measured: list[tuple[str, Content] | tuple[str, Content, str]] = []
    if effect is not None:
        measured = [
            (f"{effect.phase}, variant ÷ baseline", ratio(effect.ratio)),
            ("95 % interval", interval(effect.ratio_low, effect.ratio_high)),
            ("noise floor", f"± {percent(effect.floor_ratio - 1)}", _FLOOR),
        ]
    peaks = f"{size(memory.baseline_bytes)} → {size(memory.variant_bytes)}" if memory else ""
    return facts(
        *measured,
        ("verdict", verdict_mark(entry.verdict, entry.verdict_text)),
        ("hypothesis", _outcome(entry)),
        ("same answer", answer),
        *([("peak memory", peaks)] if peaks else ()),
    )


def _circumstances(entry: LadderEntry) -> str:
    at = entry.environment
    most = max((effect.launches for effect in entry.phases), default=0)
    launches = f"{count(most)} launches, " if most else ""
    return f"{launches}{minute(entry.started)}, {at.device_name}, {at.cores} cores, {at.precision}"
