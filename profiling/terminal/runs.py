"""Terminal output of a run: a progress bar during training, and tables at the end."""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from profiling.format import counted, duration, size
from profiling.run_record import RunRecord, StageRecord, StepTimings, effective_changes
from profiling.terminal.tables import FittedTable
from profiling.vocabulary import STEP_PHASES

PERCENTILES = (50, 90, 99)
SHOWN_CHANGES = 8


@dataclass(frozen=True)
class Bar:
    """Progress bar of the training steps of one run."""

    progress: Progress
    task: TaskID

    def advance(self) -> None:
        """Count one step; reads no tensor, so it does not wait for the device."""
        self.progress.advance(self.task)

    def show(self, loss: float, accuracy: float, samples_per_s: float) -> None:
        """Show the metrics of the last epoch."""
        description = f"loss {loss:.4f}  accuracy {accuracy:.2%}  {samples_per_s:,.0f} samples/s"
        self.progress.update(self.task, description=description)


@contextmanager
def progress_bar(console: Console, steps: int) -> Iterator[Bar]:
    """A bar of `steps` steps; it is not drawn if the output is not a terminal."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True
    ) as progress:
        yield Bar(progress, progress.add_task("training", total=steps))


def print_run(console: Console, record: RunRecord, folder: Path) -> None:
    """Print the tables of phases, the results, and the command that shows the run in TensorBoard."""
    for name, stage in record.stages.items():
        console.print(phase_table(name, stage))
    processes = f"{record.ranks} ranks of " if record.ranks > 1 else ""
    processes += counted(record.environment.threads, "thread")
    console.print(
        f"accuracy {record.results['accuracy']:.2%} and loss {record.results['loss']:.4f} on held-out images; "
        f"training {record.results['train_samples_per_s']:,.0f} samples/s "
        f"({record.environment.device}, {record.environment.precision}, {processes})"
    )
    console.print(
        f"inference {record.results['infer_samples_per_s']:,.0f} samples/s; "
        f"{latency_line(record.stages['infer'].timed)}"
    )
    resident = max(stage.peak_resident_bytes for stage in record.stages.values())
    console.print(f"peak resident memory {size(resident)}")
    for line in claim_lines(record):
        console.print(line)
    console.print(f"run:  {folder}")
    output = Path(record.config["output"]).absolute()
    shown = record.config["output"] if output in folder.absolute().parents else folder.parent  # hydra.run.dir decides
    console.print(f"show: tensorboard --logdir {shlex.quote(str(shown))}")


def claim_lines(record: RunRecord) -> list[str]:
    """What the experiment of a run claims, what differs from the baseline, and how to measure it; empty if nothing."""
    differing = effective_changes(record.changed).items()
    lines = [f"differs from the baseline: {key}: {before} -> {now}" for key, (before, now) in differing]
    hypothesis = record.config.get("hypothesis", {})
    if hypothesis.get("topic", "baseline") == "baseline":
        return lines[:SHOWN_CHANGES]
    return [
        f"claim: {hypothesis['claim']}; one run cannot tell",
        *lines[:SHOWN_CHANGES],
        f"measure it: python -m train.ab +experiment={record.name}",
    ]


def latency_line(steps: StepTimings) -> str:
    """Batch size and percentiles of the time of a step; only those percentiles that there are enough steps for."""
    count, fewest, most = len(steps.step_s), min(steps.samples), max(steps.samples)
    batch = f"a batch of {most}" if fewest == most else f"batches of {fewest} to {most}"
    if count == 1:
        return f"the only batch, of {most}, took {duration(steps.step_s[0] * 1e6)}"
    ranks = [rank for rank in PERCENTILES if rank <= 50 or count * (100 - rank) >= 100]
    percentiles = zip(ranks, np.percentile(steps.step_s, ranks).tolist(), strict=True)
    shown = ", ".join(f"p{rank} {duration(latency_s * 1e6)}" for rank, latency_s in percentiles)
    few = "" if ranks == list(PERCENTILES) else f" (of {count} batches)"
    return f"latency of {batch}: {shown}{few}{steps.sample_note}"


def phase_table(name: str, stage: StageRecord) -> FittedTable:
    """Median time of each phase of a stage and its share of the median step; the caption shows peak memory."""
    overhead = stage.measurable_overhead()
    notes = [f"medians{stage.timed.sample_note}"] if stage.timed.totals else []
    if stage.peak_accelerator_bytes is not None:
        notes.append(f"accelerator {size(stage.peak_accelerator_bytes)}")
    if stage.trace is not None and stage.trace.peak_allocated_bytes is not None:
        notes.append(f"peak of tensors in the trace {size(stage.trace.peak_allocated_bytes)}")
    if overhead is not None:
        notes.append(f"the profiler adds {overhead:+.0%} to a traced step")
    elif stage.trace is not None:
        notes.append("what the profiler adds to a traced step is within the noise")
    columns = ["median", "share", "steps"]
    table = FittedTable(name, ["phase"], columns, leave_out=("steps", "share"), caption="; ".join(notes))
    step_s = median(stage.timed.step_s)
    for phase, seconds in ordered(stage.timed.phase_s).items():
        phase_s = median(seconds)
        table.add_row(phase, duration(phase_s * 1e6), f"{phase_s / step_s:.1%}", str(stage.timed.steps))
    table.add_row("step", duration(step_s * 1e6), "100.0%", str(stage.timed.steps), style="bold")
    return table


def ordered(phases: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """The phases in the order of STEP_PHASES; a phase that encloses the whole step comes last."""
    names = [name for name in STEP_PHASES if name in phases]
    return {name: phases[name] for name in [*names, *(name for name in phases if name not in names)]}
