"""The ladder: every comparison below a path, judged together, as `effects --json` and the TensorBoard tab show it."""

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from msgspec import Struct, structs

from profiling.format import minute
from profiling.run_record import Environment
from profiling.storage import walk_folders
from profiling.verdict.hypothesis import Hypothesis, PeakMemory
from profiling.verdict.judge import PhaseEffect, correct_ladder
from profiling.verdict.numerics import NumericsCheck
from profiling.verdict.record import ComparisonRecord, read_comparison
from profiling.verdict.wording import describe_numerics, describe_verdict
from profiling.vocabulary import BASELINE, COMPARISON_FILE, VARIANT, Outcome, Verdict

SCHEMA_VERSION = 1
NO_TOPIC = "other"

Item = TypeVar("Item")


class LadderEntry(Struct, frozen=True, kw_only=True):
    """One comparison, corrected over the ladder.

    `title` is the experiment, with its date where it occurs more than once; `folder` and the runs `baseline` and
    `variant` are relative to the path that was asked for, and None where an arm left no trace. `changed` is dotted key
    -> [baseline's value, variant's]. `verdict_text` and `numerics_text` are the words of the report.
    """

    experiment: str
    title: str
    folder: str
    started: str
    partial: bool
    topic: str
    hypothesis: Hypothesis
    verdict: Verdict
    verdict_text: str
    outcome: Outcome
    reason: str | None
    phases: tuple[PhaseEffect, ...]
    memory: PeakMemory | None
    numerics: NumericsCheck | None
    numerics_text: str | None
    changed: dict[str, tuple[Any, Any]]
    environment: Environment
    baseline: str | None
    variant: str | None

    @property
    def declared_effect(self) -> PhaseEffect | None:
        """The effect in the hypothesis' phase; None where it was not measured."""
        return next((effect for effect in self.phases if effect.phase == self.hypothesis.phase), None)


class Ladder(Struct, frozen=True):
    """The answer of `effects --json`: effects oldest first; `notes` says what could not be read, and why."""

    schema_version: int
    notes: list[str]
    effects: list[LadderEntry]


def read_ladder(path: Path) -> Ladder:
    """Read every comparison below a path, and correct the recorded verdicts over their number (Holm).

    What cannot be read is left out, with a note.

    Raises:
        FileNotFoundError: nothing is there.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    root = path if path.is_dir() else path.parent
    notes: list[str] = []
    corrected = corrected_records(_readable_records(path, root, notes))
    entries = []
    for (folder, record), title in zip(corrected, titles(record for _, record in corrected), strict=True):
        try:
            entries.append(_entry(folder, record, title))
        except (ValueError, ArithmeticError) as error:
            notes.append(f"{folder / COMPARISON_FILE}: left out: its figures mean nothing ({error})")
    return Ladder(schema_version=SCHEMA_VERSION, notes=notes, effects=entries)


def collect(paths: Iterable[Path]) -> list[tuple[Path, ComparisonRecord]]:
    """Read the comparisons at `paths`, each with its folder, oldest first, corrected as one family.

    A path is a `comparison.json`, its folder, or a folder with many below it. Several comparisons of one experiment all
    count: they are repetitions, or were measured with different models.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: as `read_comparison`.
    """
    files = {file.resolve(): file for path in paths for file in _comparison_files(path)}
    return corrected_records((file.parent, read_comparison(file)) for file in files.values())


def corrected_records(records: Iterable[tuple[Path, ComparisonRecord]]) -> list[tuple[Path, ComparisonRecord]]:
    """Correct comparisons, each with its folder, over their number (Holm); oldest first."""
    ordered = sorted(records, key=lambda pair: (pair[1].started, pair[1].comparison.experiment))
    corrected = correct_ladder([record.comparison for _, record in ordered])
    return [
        (folder, structs.replace(record, comparison=comparison))
        for (folder, record), comparison in zip(ordered, corrected, strict=True)
    ]


def topic(record: ComparisonRecord) -> str:
    """Return what the experiment is about, as its YAML says."""
    hypothesis = record.configs.get(VARIANT, {}).get("hypothesis")
    return str(hypothesis.get("topic", NO_TOPIC)) if isinstance(hypothesis, dict) else NO_TOPIC


def by_topic(items: Iterable[tuple[ComparisonRecord, Item]]) -> dict[str, list[tuple[ComparisonRecord, Item]]]:
    """Group by topic, in alphabetical order; within a topic the order is kept."""
    groups: dict[str, list[tuple[ComparisonRecord, Item]]] = {}
    for record, item in items:
        groups.setdefault(topic(record), []).append((record, item))
    return dict(sorted(groups.items()))


def outcomes(records: Iterable[ComparisonRecord]) -> dict[Outcome | Verdict, int]:
    """Count the outcomes; experiments that are not applicable here have none and are counted apart, as the last."""
    comparisons = [record.comparison for record in records]
    applied = [comparison.outcome for comparison in comparisons if comparison.verdict is not Verdict.not_applicable]
    counts: dict[Outcome | Verdict, int] = {outcome: applied.count(outcome) for outcome in Outcome}
    return counts | {Verdict.not_applicable: len(comparisons) - len(applied)}


def titles(records: Iterable[ComparisonRecord]) -> list[str]:
    """Name each record by its experiment, and also by its date where an experiment occurs more than once."""
    records = list(records)
    names = [record.comparison.experiment for record in records]
    return [
        f"{name} ({minute(record.started)})" if names.count(name) > 1 else name
        for name, record in zip(names, records, strict=True)
    ]


def _comparison_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such file or folder")
    files = sorted(path.rglob(COMPARISON_FILE))
    if not files:
        raise FileNotFoundError(f"{path}: no {COMPARISON_FILE} in this folder; `python -m train.ab` writes them")
    return files


def _readable_records(path: Path, root: Path, notes: list[str]) -> Iterator[tuple[Path, ComparisonRecord]]:
    """Read the comparisons, each with its folder relative to `root`."""
    below = (folder / COMPARISON_FILE for folder, names in walk_folders(path) if COMPARISON_FILE in names)
    for file in sorted(below) if path.is_dir() else [path]:
        name = file.relative_to(root)
        try:
            record = read_comparison(file)
        except (OSError, RuntimeError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error).removeprefix(f"{file}: ")
            notes.append(f"{name}: left out: {reason}")
            continue
        yield name.parent, record


def _entry(folder: Path, record: ComparisonRecord, title: str) -> LadderEntry:
    comparison = record.comparison
    return LadderEntry(
        experiment=comparison.experiment,
        title=title,
        folder=folder.as_posix(),
        started=record.started,
        partial=record.partial,
        topic=topic(record),
        hypothesis=comparison.hypothesis,
        verdict=comparison.verdict,
        verdict_text=describe_verdict(comparison),
        outcome=comparison.outcome,
        reason=comparison.reason,
        phases=comparison.phases,
        memory=comparison.memory,
        numerics=comparison.numerics,
        numerics_text=None if comparison.numerics is None else describe_numerics(comparison.numerics),
        changed=record.changed,
        environment=record.environment,
        baseline=_run_folder(folder, record, BASELINE),
        variant=_run_folder(folder, record, VARIANT),
    )


def _run_folder(folder: Path, record: ComparisonRecord, arm: str) -> str | None:
    """Name the folder of an arm's traces."""
    traces = record.arms[arm].traces if arm in record.arms else {}
    return next(((PurePosixPath(folder.as_posix()) / trace).parent.as_posix() for trace in traces.values()), None)
