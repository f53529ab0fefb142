"""What the tab shows of a run; all its views come from one reading of its traces."""

from collections.abc import Sequence
from pathlib import Path

from profiling.analysis.summary import summarize
from profiling.analysis.timings import stage_timings
from profiling.figures.blocks import Views, notes
from profiling.figures.communication import communication
from profiling.figures.kernels import kernels
from profiling.figures.memory import WindowMemory, memory_view
from profiling.figures.modules import modules
from profiling.figures.operators import operators
from profiling.figures.overview import overview
from profiling.figures.windows import read_record, stages_of, window_names
from profiling.trace.trace import Trace


def run_views(path: Path, traces: Sequence[Trace], by: str = "") -> Views:
    """Return the views of the run or window at `path`; with `by`, only Operators, whose rows it sets apart."""
    summary = summarize(traces, by=by or "operator", timings=stage_timings(path))
    shown = {"operators": operators(summary, by)}
    if by:
        return shown
    record, problem = read_record(path)
    stages = stages_of(record)
    files = [Path(file).name for file in summary.trace.files]
    names = window_names(files, stages)
    devices = [WindowMemory(device, names[device.window]) for device in summary.memory]
    return {
        **shown,
        "overview": overview(summary, record, problem, None if path.is_dir() else stages.get(path.name), names),
        "memory": [*notes(summary.trace.notes), *memory_view(devices)],
        "modules": modules(summary),
        "kernels": kernels(summary, names),
        "communication": communication(summary),
    }
