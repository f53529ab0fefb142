"""End runs at random moments, let them go on, and compare their weights with those of a run that was not ended."""

import random
import signal
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table

from tests.faults.runs import SMALL, different_weights, finish, run_folder, start, to_all, wait_for_state
from train.ranks.state import files

STEPS_PER_EPOCH, STEPS = 30, 1200
MARGIN_STEPS = 300  # the run should not be complete when the signal comes
SETUPS: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("resident", 1, ()),
    ("2 workers", 1, ("loader.workers=2",)),
    ("resident", 2, ()),
    ("2 workers", 2, ("loader.workers=2",)),
    ("resident, fsdp", 2, ("strategy=fsdp",)),
)


class Outcome(NamedTuple):
    """What one kill cost.

    Attributes:
        end_s: from the signal until the process had ended.
        lost_s: between the last state and the signal: what is trained again.
        differences: weights that are not those of the uninterrupted run.
    """

    batches: str
    ranks: int
    status: int
    end_s: float
    lost_s: float
    said: str
    differences: list[str]


def kill(number: signal.Signals, output: Path, whole: Path, setup: int, source: random.Random) -> Outcome:
    """End one run by a signal to all of its processes; let it go on, and compare."""
    batches, ranks, overrides = SETUPS[setup]
    process = start((*SMALL, *overrides, f"output={output}"), ranks)
    wait_for_state(output, source.randrange(1, STEPS - MARGIN_STEPS), process, STEPS_PER_EPOCH)
    time.sleep(source.uniform(0, 0.3))
    asked_s, asked_at = time.monotonic(), time.time()
    if number == signal.SIGKILL or ranks == 1:
        to_all(process.pid, number)
    else:
        process.send_signal(number)  # torchrun, which tells its ranks
    status, _, said = finish(process)
    end_s = time.monotonic() - asked_s
    folder = run_folder(output)
    assert folder is not None
    saved = files(folder)
    if not saved:
        return Outcome(batches, ranks, status, end_s, 0.0, "complete before the signal came", [])
    saved_at = saved[0].stat().st_mtime
    resumed = start((f"resume={folder}",), ranks)
    again, _, errors = finish(resumed)
    differences = different_weights(folder, whole) if again == 0 else [f"status {again}: {errors}"]
    return Outcome(batches, ranks, status, end_s, max(0.0, asked_at - saved_at), " ".join(said), differences)


def main(count: int, number: signal.Signals, seed: int) -> int:
    """Kill `count` runs of all SETUPS in turn; print a table; return 1 if weights differ."""
    source = random.Random(seed)
    outcomes = []
    with tempfile.TemporaryDirectory() as temporary:
        wholes = {}
        for setup, (batches, ranks, overrides) in enumerate(SETUPS[:count]):
            output = Path(temporary) / f"whole-{setup}"
            status, _, errors = finish(start((*SMALL, *overrides, f"output={output}"), ranks))
            assert status == 0, errors
            wholes[setup] = run_folder(output)
            print(f"uninterrupted: {batches}, {ranks} ranks", flush=True)
        for case in range(count):
            setup = case % len(SETUPS)
            outcome = kill(number, Path(temporary) / str(case), wholes[setup], setup, source)
            outcomes.append(outcome)
            print(msgspec.json.encode(outcome._asdict()).decode(), flush=True)
    show(outcomes, number)
    return 1 if any(outcome.differences for outcome in outcomes) else 0


def show(outcomes: list[Outcome], number: signal.Signals) -> None:
    """Print the table."""
    table = Table("batches", "ranks", "status", "ended after", "trained again", "weights", title=number.name)
    for outcome in outcomes:
        table.add_row(
            outcome.batches,
            str(outcome.ranks),
            str(outcome.status),
            f"{outcome.end_s:.1f} s",
            f"{outcome.lost_s:.2f} s",
            ", ".join(outcome.differences) or "identical",
        )
    Console(width=110).print(table)
