"""What a run says in the terminal: a progress bar while it trains, and a table at its end."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from profiling.run_record import RunRecord, StageRecord
from profiling.vocabulary import STEP_PHASES

MIB = 2**20
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Bar:
    """The progress of one run's training."""

    progress: Progress
    task: TaskID

    def advance(self) -> None:
        """Count one step; reads no tensor, so nothing waits for the device."""
        self.progress.advance(self.task)

    def show(self, loss: float, accuracy: float, samples_per_s: float) -> None:
        """Show the figures of the last epoch."""
        figures = f"loss {loss:.4f}  accuracy {accuracy:.2%}  {samples_per_s:,.0f} samples/s"
        self.progress.update(self.task, description=figures)


@contextmanager
def progress_bar(console: Console, steps: int) -> Iterator[Bar]:
    """A bar of `steps` steps; nothing is drawn where the output is not a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True
    ) as progress:
        yield Bar(progress, progress.add_task("training", total=steps))


def print_run(console: Console, record: RunRecord, folder: Path) -> None:
    """Print the phases, the results, and how to look at the run."""
    for name, stage in record.stages.items():
        console.print(phase_table(name, stage))
    console.print(
        f"accuracy {record.results['accuracy']:.2%} and loss {record.results['loss']:.4f} on held-out images; "
        f"training {record.results['train_samples_per_s']:,.0f} samples/s "
        f"({record.environment.device}, {record.environment.precision}, {record.environment.threads} threads)"
    )
    console.print(
        f"inference {record.results['infer_samples_per_s']:,.0f} samples/s; latency of a batch of "
        f"{record.config['infer_batch_size']}: {latency_line(record.stages['infer'].timed.step_s)}"
    )
    console.print(f"run:  {folder}")
    console.print(f"show: tensorboard --logdir {record.config['output']}")


def latency_line(seconds: Sequence[float]) -> str:
    """`p50 1.20 ms, p90 1.41 ms, p99 1.92 ms` of requests that took so many seconds."""
    named = zip(PERCENTILES, np.percentile(seconds, PERCENTILES).tolist(), strict=True)
    return ", ".join(f"p{rank} {value * 1e3:.2f} ms" for rank, value in named)


def phase_table(name: str, stage: StageRecord) -> Table:
    """Median milliseconds of a stage's phases and their share of its step, and its memory."""
    overhead = stage.profiler_overhead()
    notes = [f"peak resident {stage.peak_resident_bytes / MIB:,.0f} MiB"]
    if stage.peak_accelerator_bytes is not None:
        notes.append(f"accelerator {stage.peak_accelerator_bytes / MIB:,.0f} MiB")
    if stage.trace is not None and stage.trace.peak_allocated_bytes is not None:
        notes.append(f"peak of tensors in the trace {stage.trace.peak_allocated_bytes / MIB:,.1f} MiB")
    if overhead is not None:
        notes.append(f"the profiler adds {overhead:+.0%} to a traced step")
    table = Table(title=name, caption="; ".join(notes), title_justify="left", caption_justify="left")
    table.add_column("phase")
    for heading in ("median ms", "share", "steps"):
        table.add_column(heading, justify="right")
    step_ms = median(stage.timed.step_s) * 1e3
    for phase, seconds in ordered(stage.timed.phase_s).items():
        table.add_row(
            phase, f"{median(seconds) * 1e3:.3f}", f"{median(seconds) * 1e3 / step_ms:.1%}", str(len(seconds))
        )
    table.add_row("step", f"{step_ms:.3f}", "100.0%", str(len(stage.timed.step_s)), style="bold")
    return table


def ordered(phases: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """The phases in the order in which a step runs them, the enclosing one last."""
    names = [name for name in STEP_PHASES if name in phases]
    return {name: phases[name] for name in [*names, *(name for name in phases if name not in names)]}
