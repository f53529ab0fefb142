"""What the traces of a comparison add to its timings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from profiling.analysis.index import Index
from profiling.analysis.memory import DeviceMemory, memory
from profiling.comparison import ComparisonRecord
from profiling.diff import Cause, diff, load
from profiling.report.words import ARMS, BASELINE, VARIANT
from profiling.sides import Window
from profiling.summary import notes
from profiling.trace import TraceError


@dataclass(frozen=True)
class Explanation:
    """Where the traced difference in the declared phase comes from, in microseconds per `unit`, largest causes first.

    The causes and `unattributed_us` add up to `difference_us`.
    """

    unit: str
    difference_us: float
    unattributed_us: float
    causes: Sequence[Cause]


@dataclass(frozen=True)
class Evidence:
    """Findings in the traces of both arms.

    Attributes:
        memory: stage -> arm -> the device that held most.
        explanation: None where an arm has no trace of the declared phase.
        notes: what is missing or partial, a line each.
    """

    memory: Mapping[str, Mapping[str, DeviceMemory]]
    explanation: Explanation | None
    notes: Sequence[str]


def gather(record: ComparisonRecord, folder: Path) -> Evidence:
    """Read the traces of `record`, whose paths start at `folder`; one that cannot be read becomes a note."""
    found: dict[str, dict[str, list[Window]]] = {}
    missing: list[str] = []
    for arm in (arm for arm in ARMS if arm in record.arms):
        traces = record.arms[arm].traces
        if not traces:
            missing.append(f"{arm}: no trace was recorded")
        for stage, path in traces.items():
            try:
                # The stage is known here also where the arm's own record, which `load` looks for, is gone.
                windows = [replace(window, stage=stage) for window in load(folder / path)]
            except TraceError as error:
                missing.append(f"{arm}, {stage}: {error}")
                continue
            missing += [f"{arm}, {stage}: {note}" for window in windows for note in notes(window.trace)]
            found.setdefault(stage, {})[arm] = windows
    return Evidence(_memory(found), _explanation(found, record.comparison.hypothesis.phase), missing)


def _memory(found: Mapping[str, Mapping[str, Sequence[Window]]]) -> dict[str, dict[str, DeviceMemory]]:
    return {
        stage: fullest
        for stage, arms in found.items()
        if (fullest := {arm: held for arm, windows in arms.items() if (held := _fullest(windows)) is not None})
    }


def _fullest(windows: Sequence[Window]) -> DeviceMemory | None:
    devices = [device for number, window in enumerate(windows) for device in memory(Index(window.trace), number)]
    return max(devices, key=lambda device: device.peak_bytes, default=None)


def _explanation(found: Mapping[str, Mapping[str, Sequence[Window]]], phase: str) -> Explanation | None:
    """Compare the stage that `phase` names as a whole, or else that phase of training."""
    arms = found.get(phase, found.get("train", {}))
    if not all(arm in arms for arm in ARMS):
        return None
    difference = diff(arms[BASELINE], arms[VARIANT])
    rows = [row for row in difference.phases if phase in found or row.phase == phase]
    if not rows:
        return None
    names = {row.phase for row in rows}
    return Explanation(
        unit=difference.unit,
        difference_us=sum(row.difference_us for row in rows),
        unattributed_us=sum(row.unattributed_us for row in rows),
        causes=[cause for cause in difference.causes if cause.phase in names],
    )
