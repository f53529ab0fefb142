"""The table at the end of a multirun: one row for each of its jobs, from what it left on disk."""

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from profiling import run_record
from profiling.format import duration
from profiling.run_record import RunRecord
from profiling.terminal.tables import FittedTable, wide_console

NO_RECORD = "left no record"


def print_sweep(jobs: Sequence[tuple[Sequence[str], Path]]) -> None:
    """Print what became of each job, of two or more: its overrides, and the folder of its run, which may not exist.

    Overrides that all jobs have in common are left out.
    """
    if len(jobs) < 2:
        return
    shared = set.intersection(*(set(overrides) for overrides, _ in jobs))
    table = FittedTable(
        f"the {len(jobs):,} jobs of this sweep",
        ["overrides", "status", "folder"],
        ["accuracy", "loss", "train step", "samples/s"],
        leave_out=("loss", "samples/s", "folder"),
        wrapped=("overrides", "status", "folder"),
    )
    for overrides, folder in jobs:
        name = " ".join(override for override in overrides if override not in shared) or "(none of its own)"
        try:
            record = run_record.read(folder)
        except FileNotFoundError:  # stopped before it wrote anything: the reason is printed above
            table.add_row(name, NO_RECORD, "", "", "", "", "", style="dim")
        except ValueError:
            table.add_row(name, "its record cannot be read", _shown(folder), "", "", "", "", style="dim")
        else:
            status = f"{record.status}: {record.error}" if record.error else record.status
            table.add_row(name, status, _shown(folder), *_figures(record))
    wide_console().print(table)


def _figures(record: RunRecord) -> list[str]:
    results, stage = record.results, record.stages.get("train")
    step_s = stage.timed.step_s if stage else []
    return [
        f"{results['accuracy']:.2%}" if "accuracy" in results else "",
        f"{results['loss']:.4f}" if "loss" in results else "",
        duration(median(step_s) * 1e6) if step_s else "",
        f"{results['train_samples_per_s']:,.0f}" if "train_samples_per_s" in results else "",
    ]


def _shown(folder: Path) -> str:
    """Write a folder as the user would, from where the program was started."""
    return os.path.relpath(folder)
