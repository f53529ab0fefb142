"""The ladder: every comparison below a path, judged together, as `effects --json` and the TensorBoard tab show it."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from msgspec import Struct
from rich.console import Console
from rich.markup import escape

from profiling import comparison
from profiling.compare import Hypothesis, Numerics, Outcome, PeakMemory, PhaseEffect, Verdict
from profiling.comparison import ComparisonRecord
from profiling.files import folders
from profiling.record import Environment
from profiling.report import words
from profiling.report.collect import judged
from profiling.terminal import table

SCHEMA_VERSION = 1
MAX_RECORD_BYTES = 16 << 20


class Effect(Struct, frozen=True, kw_only=True):
    """One comparison, after Holm's correction over the ladder.

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
    numerics: Numerics | None
    numerics_text: str | None
    changed: dict[str, tuple[Any, Any]]
    environment: Environment
    baseline: str | None
    variant: str | None


class Effects(Struct, frozen=True):
    """The answer of `effects --json`: effects oldest first; `notes` says what could not be read, and why."""

    schema_version: int
    notes: list[str]
    effects: list[Effect]


def effects(path: Path) -> Effects:
    """Judge every comparison below a path; what cannot be read is left out and noted.

    Raises FileNotFoundError if nothing is there.
    """
    root = path if path.is_dir() else path.parent
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    notes: list[str] = []
    found = judged(_read(path, root, notes))
    titles = words.titles(record for _, record in found)
    rows = []
    for (folder, record), title in zip(found, titles, strict=True):
        try:
            rows.append(_row(folder, record, title))
        except (ValueError, ArithmeticError) as error:
            notes.append(f"{folder / comparison.FILE_NAME}: left out: its figures mean nothing ({error})")
    return Effects(schema_version=SCHEMA_VERSION, notes=notes, effects=rows)


def show(found: Effects) -> None:
    """Print the ladder as a table for people."""
    console = Console()
    for note in found.notes:
        console.print(escape(note), style="yellow", highlight=False)
    if not found.effects:
        console.print("no comparison.json here; `python -m train.ab` writes them")
        return
    made = table("effects", ["experiment", "hypothesis"], ["ratio", "from", "to"])
    for row in found.effects:
        effect = next((effect for effect in row.phases if effect.phase == row.hypothesis.phase), None)
        figures = (effect.ratio, effect.ratio_low, effect.ratio_high) if effect else ()
        outcome = f"{row.outcome}: {row.hypothesis.phase} {row.verdict_text}"
        made.add_row(escape(row.title), escape(outcome), *map(words.ratio, figures))
    console.print(made)


def _read(path: Path, root: Path, notes: list[str]) -> Iterator[tuple[Path, ComparisonRecord]]:
    """Read the comparisons, each with its folder relative to `root`. A link that leads out of it is not followed."""
    below = (folder / comparison.FILE_NAME for folder, names in folders(path) if comparison.FILE_NAME in names)
    for file in sorted(below) if path.is_dir() else [path]:
        name = file.relative_to(root)
        try:
            if not file.resolve().is_relative_to(root.resolve()):
                raise ValueError("a link that leads out of the folder")
            if file.stat().st_size > MAX_RECORD_BYTES:
                raise ValueError(f"larger than {MAX_RECORD_BYTES >> 20} MiB")
            record = comparison.read(file)
        except (OSError, RuntimeError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error).removeprefix(f"{file}: ")
            notes.append(f"{name}: left out: {reason}")
            continue
        yield name.parent, record


def _row(folder: Path, record: ComparisonRecord, title: str) -> Effect:
    judged = record.comparison
    return Effect(
        experiment=judged.experiment,
        title=title,
        folder=folder.as_posix(),
        started=record.started,
        partial=record.partial,
        topic=words.topic(record),
        hypothesis=judged.hypothesis,
        verdict=judged.verdict,
        verdict_text=words.verdict(judged),
        outcome=judged.outcome,
        reason=judged.reason,
        phases=judged.phases,
        memory=judged.memory,
        numerics=judged.numerics,
        numerics_text=None if judged.numerics is None else words.answer(judged.numerics),
        changed=record.changed,
        environment=record.environment,
        baseline=_run(folder, record, words.BASELINE),
        variant=_run(folder, record, words.VARIANT),
    )


def _run(folder: Path, record: ComparisonRecord, arm: str) -> str | None:
    """Name the folder of an arm's traces."""
    traces = record.arms[arm].traces if arm in record.arms else {}
    return next(((PurePosixPath(folder.as_posix()) / trace).parent.as_posix() for trace in traces.values()), None)
