"""Memory and causes of the difference, from the traces of a comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from profiling.analysis.index import Index
from profiling.analysis.memory import DeviceMemory, memory
from profiling.analysis.notes import notes
from profiling.diff.diff import load_windows
from profiling.diff.explanation import Explanation, explain, same_operators, shared_code_note
from profiling.diff.totals import StageWindow
from profiling.trace.parse import TraceError
from profiling.verdict.record import ComparisonRecord
from profiling.vocabulary import COMPARED_ARMS


@dataclass(frozen=True)
class Evidence:
    """Results of analyzing the traces of both arms.

    Attributes:
        memory: stage -> arm -> the device with the highest peak.
        explanation: of the difference in the declared phase; None where an arm has no trace of it.
        notes: what is missing or partial; one line each.
    """

    memory: Mapping[str, Mapping[str, DeviceMemory]]
    explanation: Explanation | None
    notes: Sequence[str]


def gather(record: ComparisonRecord, folder: Path) -> Evidence:
    """Read the traces of `record`, whose paths are relative to `folder`; an unreadable trace becomes a note."""
    windows: dict[str, dict[str, list[StageWindow]]] = {}
    missing: list[str] = []
    for arm in (arm for arm in COMPARED_ARMS if arm in record.arms):
        traces = record.arms[arm].traces
        if not traces:
            missing.append(f"{arm}: no trace was recorded")
        for stage, path in traces.items():
            try:
                # `load_windows` takes the stage from the arm's run record, which may be missing.
                stage_windows = [replace(window, stage=stage) for window in load_windows(folder / path)]
            except TraceError as error:
                missing.append(f"{arm}, {stage}: {error}")
                continue
            missing += [f"{arm}, {stage}: {note}" for window in stage_windows for note in notes(window.trace)]
            windows.setdefault(stage, {})[arm] = stage_windows
    shared = same_operators(windows, record.comparison.called_elsewhere)
    notes_of_all = [*missing, *([shared_code_note(shared)] if shared else [])]
    return Evidence(_memory(windows), explain(windows, record.comparison.hypothesis.phase), notes_of_all)


def _memory(windows: Mapping[str, Mapping[str, Sequence[StageWindow]]]) -> dict[str, dict[str, DeviceMemory]]:
    """Return stage -> arm -> the device with the highest peak; arms and stages without memory events are left out."""
    devices = {
        stage: {arm: device for arm, arm_windows in arms.items() if (device := _highest_peak(arm_windows)) is not None}
        for stage, arms in windows.items()
    }
    return {stage: arms for stage, arms in devices.items() if arms}


def _highest_peak(windows: Sequence[StageWindow]) -> DeviceMemory | None:
    devices = [device for number, window in enumerate(windows) for device in memory(Index(window.trace), number)]
    return max(devices, key=lambda device: device.peak_bytes, default=None)
