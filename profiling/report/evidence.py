"""What the traces of a comparison add to its timings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from profiling.analysis.index import Index
from profiling.analysis.memory import DeviceMemory, memory
from profiling.analysis.summary import notes
from profiling.diff.diff import load_windows
from profiling.diff.explanation import Explanation, explain
from profiling.diff.totals import StageWindow
from profiling.trace.parse import TraceError
from profiling.verdict.record import ComparisonRecord
from profiling.vocabulary import COMPARED_ARMS


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
    windows: dict[str, dict[str, list[StageWindow]]] = {}
    missing: list[str] = []
    for arm in (arm for arm in COMPARED_ARMS if arm in record.arms):
        traces = record.arms[arm].traces
        if not traces:
            missing.append(f"{arm}: no trace was recorded")
        for stage, path in traces.items():
            try:
                # The stage is known here also where the arm's own record, which `load_windows` looks for, is gone.
                of_stage = [replace(window, stage=stage) for window in load_windows(folder / path)]
            except TraceError as error:
                missing.append(f"{arm}, {stage}: {error}")
                continue
            missing += [f"{arm}, {stage}: {note}" for window in of_stage for note in notes(window.trace)]
            windows.setdefault(stage, {})[arm] = of_stage
    return Evidence(_memory(windows), explain(windows, record.comparison.hypothesis.phase), missing)


def _memory(windows: Mapping[str, Mapping[str, Sequence[StageWindow]]]) -> dict[str, dict[str, DeviceMemory]]:
    """Stage -> arm -> the device that held most; without arms and stages of which no memory was recorded."""
    fullest = {
        stage: {arm: device for arm, of_arm in arms.items() if (device := _fullest(of_arm)) is not None}
        for stage, arms in windows.items()
    }
    return {stage: arms for stage, arms in fullest.items() if arms}


def _fullest(windows: Sequence[StageWindow]) -> DeviceMemory | None:
    devices = [device for number, window in enumerate(windows) for device in memory(Index(window.trace), number)]
    return max(devices, key=lambda device: device.peak_bytes, default=None)
