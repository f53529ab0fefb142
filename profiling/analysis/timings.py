"""Timings of unprofiled steps, from the run's record; in a trace the profiler slows down the steps."""

import statistics
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from profiling import run_record
from profiling.trace.parse import TraceError


class StageTiming(Struct, frozen=True):
    """The unprofiled steps of one stage.

    `samples_per_s` is the throughput over all of them, `median_us` the median over the `kept_steps` whose timings the
    record has: all, or a random sample. `profiler_overhead` is the additional time per sample while the
    profiler runs, as a share of the unprofiled time; None if no step was profiled, or if the profiled steps are no
    slower than the slowest 5 % of the others.
    """

    stage: str
    steps: int
    kept_steps: int
    median_us: float
    samples_per_s: float
    profiler_overhead: float | None


def stage_timings(path: Path) -> list[StageTiming]:
    """Timings of the stages of the run in a folder, or of the stage of a trace file; empty without a record.

    Raises TraceError if the record has steps without samples or time.
    """
    folder = path if path.is_dir() else path.parent
    try:
        stages = run_record.read(folder).stages
    except (FileNotFoundError, ValueError):  # no record, or one of an unknown version
        return []
    return [
        _timing(folder, name, stage)
        for name, stage in stages.items()
        if stage.timed.step_s and (path == folder or (stage.trace and folder / stage.trace.path == path))
    ]


def timing_notes(timings: Iterable[StageTiming]) -> list[str]:
    """Say which medians are those of a sample."""
    return [
        f"{timing.stage}: the median is that of {timing.kept_steps:,} random steps of {timing.steps:,} unprofiled ones"
        for timing in timings
        if timing.kept_steps < timing.steps
    ]


def _timing(folder: Path, name: str, stage: run_record.StageRecord) -> StageTiming:
    steps = stage.timed
    try:
        return StageTiming(
            stage=name,
            steps=steps.steps,
            kept_steps=len(steps.step_s),
            median_us=statistics.median(steps.step_s) * 1e6,
            samples_per_s=steps.samples_per_s,
            profiler_overhead=stage.measurable_overhead(),
        )
    except (ValueError, ZeroDivisionError):
        raise TraceError(f"{folder / run_record.FILE_NAME}: stage {name!r} has steps without samples or time") from None
