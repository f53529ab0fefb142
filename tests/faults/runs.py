"""Starting `python -m train`, alone or by torchrun, as a user does, and looking at what it leaves."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from tests.conftest import ROOT
from train import checkpoint
from train.ranks.state import files

SMALL = (
    "data=synthetic", "data.train_samples=600", "data.test_samples=40", "data.channels=1", "data.image_size=12",
    "batch_size=20", "epochs=40", "model=cnn", "model.width=4", "model.dropout=0.5", "profiler=off", "precision=fp32",
    "threads=1", "checkpoint_every=25",
)  # fmt: skip
"""1,200 steps, with all that draws random numbers."""
START_S = 180.0  # of processes, on a busy machine


def start(arguments: Sequence[str], ranks: int = 1, **options: str) -> "subprocess.Popen[str]":
    """Start a run, in a process group of its own; `options` are environment variables."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "train", *arguments],
        cwd=ROOT,
        env={**os.environ, **options},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: "subprocess.Popen[str]", timeout_s: float = START_S) -> tuple[int, str, list[str]]:
    """Wait for the end; status, standard output, and what the program itself said on standard error.

    Raises:
        subprocess.TimeoutExpired: it did not end; it is killed, with its ranks and their workers.
    """
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        to_all(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, output, own_lines(errors)


def to_all(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process and all below it: torchrun's ranks are in sessions of their own."""
    process = psutil.Process(pid)
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            each.send_signal(number)


def own_lines(errors: str) -> list[str]:
    """The lines of this program among those of torchrun, and tracebacks of any."""
    starts = ("error: ", "interrupted", "Traceback", "warning: ", "note: ", "not applicable")
    return [line for line in errors.splitlines() if line.startswith(starts)]


def run_folder(output: Path) -> Path | None:
    """The only folder of a run below `output`; None before there is one."""
    found = [path for path in output.glob("*/*") if path.is_dir()]
    return found[0] if len(found) == 1 else None


def wait_for_state(output: Path, steps: int, process: "subprocess.Popen[str]", steps_per_epoch: int) -> None:
    """Wait until a state after at least `steps` steps is saved, or the run has ended."""
    end_s = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < end_s:
        folder = run_folder(output)
        if folder and any(steps_of(file, steps_per_epoch) >= steps for file in files(folder)):
            return
        time.sleep(0.01)


def steps_of(state: Path, steps_per_epoch: int) -> int:
    """The number of steps after which a state was saved, by the name of its file."""
    _, epoch, _, step = state.stem.split("-")
    return int(epoch) * steps_per_epoch + int(step)


def different_weights(one: Path, other: Path) -> list[str]:
    """Names of the weights in which the checkpoints of two runs differ in a bit."""
    first, second = (checkpoint.load(folder / checkpoint.FILE_NAME).weights for folder in (one, other))
    return [name for name in {**first, **second} if not torch.equal(first[name], second[name])]
