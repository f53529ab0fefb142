"""What the tab shows of a run; all its views come from one reading of its traces."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from profiling import run_record
from profiling.analysis.summary import summarize
from profiling.analysis.timings import stage_timings
from profiling.figures.blocks import Block, notes
from profiling.figures.communication import communication
from profiling.figures.kernels import kernels
from profiling.figures.memory import WindowMemory, memory_view
from profiling.figures.modules import modules
from profiling.figures.operators import operators
from profiling.figures.overview import overview
from profiling.run_record import RunRecord
from profiling.trace.trace import read_traces

Views = dict[str, list[Block]]
"""The name of a view -> its blocks."""


def run_views(path: Path, by: str = "") -> Views:
    """Return the views of a run or of one of its windows; with `by`, only Operators, whose rows it sets apart."""
    summary = summarize(read_traces(path), by=by or "operator", timings=stage_timings(path))
    shown = {"operators": operators(summary, by)}
    if by:
        return shown
    record, problem = read_record(path)
    stages = _stages(record)
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


def read_record(path: Path) -> tuple[RunRecord | None, str]:
    """Return the record beside the traces at `path`, or why it cannot be used: empty where there is none."""
    try:
        return run_record.read(path if path.is_dir() else path.parent), ""
    except FileNotFoundError:
        return None, ""
    except ValueError as error:
        return None, str(error)


def _stages(record: RunRecord | None) -> dict[str, str]:
    """Return the stage of each trace file of a run."""
    found = record.stages.items() if record else ()
    return {stage.trace.path: name for name, stage in found if stage.trace is not None}


def window_names(files: Sequence[str], stages: Mapping[str, str]) -> list[str]:
    """Name the windows of a run: by stage, or by file without the words with which all files begin.

    Ranks can then be told apart in a narrow column.
    """
    shared = _shared_words(files)
    end = re.compile(r"(\.pt)?(\.trace)?\.json(\.gz|\.zst|\.zip)?$")
    return [stages.get(file) or end.sub("", file[shared:]) for file in files]


def _shared_words(files: Sequence[str]) -> int:
    """Return the length of the common start in whole words: 9 for cuda_ddp_rank-0 and cuda_ddp_rank-1."""
    if len(files) < 2:
        return 0
    length = next((i for i, letters in enumerate(zip(*files, strict=False)) if len(set(letters)) > 1), None)
    return 0 if length is None else max(files[0].rfind("_", 0, length), files[0].rfind(".", 0, length)) + 1
