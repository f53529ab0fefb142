"""What every A/B does with a measurement, whatever its arms are: show its progress, keep what the arms left, report."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from profiling.ab.measure import ArmResult, Measured, VariantError
from profiling.errors import NotApplicableError
from profiling.report.page import write_report
from profiling.verdict.hypothesis import Hypothesis, PeakMemory
from profiling.verdict.judge import Comparison, failed, inconclusive, judge_comparison, not_applicable
from profiling.verdict.numerics import NumericsCheck, check_numerics
from profiling.verdict.record import ArmRecord, ComparisonRecord, write_comparison
from profiling.vocabulary import COMPARED_ARMS, Agreement

BUDGET_S = 45.0  # of a single comparison

# What `close` means after 8 steps, for weights, probabilities and metrics. bf16 keeps 8 bits, and training multiplies
# its rounding (docs/measurement.md); train/variants.py holds each switch to tighter bounds in float32.
CLOSE_RTOL, CLOSE_ATOL = 1e-1, 1e-3


def judge_measured(
    experiment: str, hypothesis: Hypothesis, stage: str, declared: Agreement, measured: Measured
) -> Comparison:
    """Say what a measurement means for a hypothesis.

    Args:
        experiment: its name.
        hypothesis: what it claims.
        stage: whose peak memory the hypothesis is about.
        declared: how far the answers of both arms are expected to agree.
        measured: a measurement that is complete, or was stopped.
    """
    if isinstance(measured.stop, NotApplicableError):
        return not_applicable(experiment, hypothesis, str(measured.stop))
    if isinstance(measured.stop, VariantError):
        return failed(experiment, hypothesis, str(measured.stop))
    numerics: NumericsCheck | None = None
    if measured.difference is not None:
        numerics = check_numerics(declared, *measured.difference, CLOSE_RTOL, CLOSE_ATOL)
    if not measured.timings:
        reason = "interrupted before there was enough for an interval"
        return inconclusive(experiment, hypothesis, reason, numerics)
    return judge_comparison(experiment, hypothesis, measured.timings, peak_memory(stage, measured), numerics)


def leave(record: ComparisonRecord, folder: Path) -> None:
    """Write the record and its report into `folder`, which holds the traces of its arms."""
    write_comparison(record, folder)
    write_report([record], [folder], folder / "report.html")


def arm_records(measured: Measured) -> dict[str, ArmRecord]:
    """What each arm has shown, as the comparison's record holds it."""
    return {name: _arm_record(name, arm) for name, arm in measured.arms.items()}


def peak_memory(stage: str, measured: Measured) -> PeakMemory | None:
    """Peak memory of both arms in the stage that the hypothesis is about; None where it was not measured.

    On an accelerator it is that of its allocator in timed blocks. On a CPU it is that of live tensors in the traced
    window: the resident memory of the process is mostly torch itself, and varies with the allocator. Memory that grows
    from step to step (graph_accumulation) shows in proportion to the length of the window.
    """
    outputs = [measured.arms[arm].output for arm in COMPARED_ARMS if arm in measured.arms]
    peaks = [output.peak_accelerator_bytes or output.peak_allocated_bytes for output in outputs if output is not None]
    if len(peaks) < len(COMPARED_ARMS) or not all(stage in of_arm for of_arm in peaks):
        return None
    return PeakMemory(*(of_arm[stage] for of_arm in peaks))


def _arm_record(name: str, arm: ArmResult) -> ArmRecord:
    """What an arm has shown, as the comparison's record holds it."""
    output = arm.output
    results = {key: value for key, value in arm.results.items() if math.isfinite(value)}  # JSON has no other numbers
    if output is None:
        return ArmRecord(
            warmup_s=arm.ready.warmup_s,
            peak_resident_bytes=0,
            peak_allocated_bytes={},
            peak_accelerator_bytes=None,
            results=results,
            traces={},
        )
    return ArmRecord(
        warmup_s=arm.ready.warmup_s,
        peak_resident_bytes=output.peak_resident_bytes,
        peak_allocated_bytes=dict(output.peak_allocated_bytes),
        peak_accelerator_bytes=max(output.peak_accelerator_bytes.values(), default=None),
        results=results,
        traces={stage: f"{name}/{path}" for stage, path in output.traces.items()},
        allocated_bytes_per_sample=dict(output.allocated_bytes_per_sample),
    )


@contextmanager
def progress_bar(console: Console, name: str) -> Iterator[Any]:
    """Yield a function to tell how many blocks of how many are done; draws nothing where the output is no terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} blocks"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
