"""What every A/B does with a measurement, whatever its arms are: show its progress, keep what the arms left, report."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from profiling.ab.measure import ArmResult, Measured, VariantError
from profiling.ab.plan import Plan
from profiling.errors import NotApplicableError
from profiling.format import duration
from profiling.machine_load import others_now, warning
from profiling.report.page import write_report
from profiling.terminal.streams import print_line
from profiling.verdict.hypothesis import Hypothesis, PeakMemory
from profiling.verdict.judge import Comparison, failed, inconclusive, judge_comparison, not_applicable
from profiling.verdict.numerics import NumericsCheck, check_numerics
from profiling.verdict.record import ArmRecord, ComparisonRecord, write_comparison
from profiling.vocabulary import ARMS, COMPARED_ARMS, Agreement

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
        reason = measured.end_note or "interrupted before there was enough for an interval"
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


class ComparisonProgress:
    """Says what will be done and how far it is: a bar on a terminal, else a line on standard error for each launch."""

    def __init__(self, name: str, bar: Progress, task: TaskID) -> None:
        self._name = name
        self._bar = bar
        self._task = task
        self._start_s = time.perf_counter()
        self._plan: Plan | None = None

    def planned(self, plan: Plan, limit_s: float) -> None:
        """Say beforehand how long it will take, and how long at most."""
        self._plan = plan
        print_line(
            f"{self._name}: {plan.launches} launches of {len(ARMS)} processes, rounds in each: {plan.rounds}; "
            f"about {duration(plan.expected_s * 1e6)}, at most {duration(limit_s * 1e6)}"
        )

    def block_done(self, done: int, blocks: int) -> None:
        """Count a block."""
        assert self._plan is not None
        launch, rest = divmod(done, blocks // self._plan.launches)
        launches = f"{launch + bool(rest)} of {self._plan.launches}"
        self._bar.update(self._task, description=f"{self._name}: launch {launches}", completed=done, total=blocks)
        if self._bar.disable and not rest:
            print_line(f"{self._name}: launch {launches} done, {time.perf_counter() - self._start_s:.0f} s so far")


@contextmanager
def shown_progress(console: Console, name: str) -> Iterator[ComparisonProgress]:
    """Show the progress of the comparison `name` on `console` while the context is open."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        yield ComparisonProgress(name, bar, bar.add_task(f"{name}: first start", total=None))


def warned_of_others() -> float | None:
    """Watch what others use of the cores, and warn in one line where that is too much.

    Returns:
        Cores, for the record; None where the system does not tell.
    """
    cores = others_now()
    if (line := warning(cores)) is not None:
        print_line(f"warning: {line}")
    return cores
