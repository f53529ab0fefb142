"""What the traces of a comparison add to its timings."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from profiling.analysis.index import Index
from profiling.analysis.memory import DeviceMemory, memory
from profiling.comparison import ComparisonRecord
from profiling.report.words import ARMS
from profiling.summary import notes
from profiling.trace import Trace, TraceError, read_run

NO_TRACE = "no trace was recorded"


@dataclass(frozen=True)
class Evidence:
    """Findings in the traces of both arms.

    Attributes:
        memory: stage -> arm -> the device that held most.
        notes: what is missing or partial, a line each.
    """

    memory: Mapping[str, Mapping[str, DeviceMemory]]
    notes: tuple[str, ...]


def gather(record: ComparisonRecord, folder: Path) -> Evidence:
    """Read the traces of `record`, whose paths start at `folder`; one that cannot be read becomes a note."""
    memories: dict[str, dict[str, DeviceMemory]] = {}
    missing: list[str] = []
    for arm in (arm for arm in ARMS if arm in record.arms):
        traces = record.arms[arm].traces
        if not traces:
            missing.append(f"{arm}: {NO_TRACE}")
        for stage, path in traces.items():
            try:
                windows = read_run(folder / path)
            except TraceError as error:
                missing.append(f"{arm}, {stage}: {error}")
                continue
            missing += [f"{arm}, {stage}: {note}" for window in windows for note in notes(window)]
            if (fullest := _fullest(windows)) is not None:
                memories.setdefault(stage, {})[arm] = fullest
    return Evidence(memories, tuple(missing))


def _fullest(windows: list[Trace]) -> DeviceMemory | None:
    devices = [device for number, window in enumerate(windows) for device in memory(Index(window), number)]
    return max(devices, key=lambda device: device.peak_bytes, default=None)
