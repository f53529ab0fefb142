"""Whole commands as processes, for the kinds of input that need one; the machine may be busy, so work is counted."""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.conftest import ROOT
from tests.fuzz.case import LIMIT_BYTES, LIMIT_S, Hang, expect
from train import checkpoint

WAITING_LIMIT_S = 150.0
"""Time of a case, of one or several commands, which wait for other processes of a busy machine."""
BASE = (
    "data=synthetic", "data.train_samples=40", "data.test_samples=12", "data.channels=1", "data.image_size=8",
    "batch_size=10", "epochs=2", "model=mlp", "model.width=4", "threads=1", "profiler.wait=0", "profiler.active=1",
    "output=runs",
)  # fmt: skip
LONGER = (
    "epochs", "execution", "compile", "samples", "wait", "mnist", "cifar", "jpeg", "hydra", "torch", "~", "--",
    "download", "task", "root",
)  # fmt: skip
"""Overrides with one of these may let a run last long, name a place, or print something else."""
PATIENCE_S = 10
"""`rank_timeout_s`, which counts as no work."""


class Ended(NamedTuple):
    """What a command left: its status, what it said, processor time, and the largest process' resident memory."""

    status: int
    output: str
    errors: str
    work_s: float
    peak_bytes: int


def ended(command: Sequence[str], folder: Path, kill: tuple[signal.Signals, float] | None = None) -> Ended:
    """Run `python COMMAND` in `folder`; `kill`: a signal, and how many seconds after a first state is saved."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp")}
    environment.pop("OMP_NUM_THREADS", None)
    (folder / "tmp").mkdir(exist_ok=True)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        resource.prlimit(process.pid, resource.RLIMIT_AS, (hard, hard))  # that of a case is of its own process
        try:
            if kill:
                while process.poll() is None and not any(folder.glob("runs/*/*/states/epoch-*.pt")):
                    time.sleep(0.02)
                time.sleep(kill[1])
                process.send_signal(kill[0])
            if process.returncode is None:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            else:
                usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        except Hang:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        for stream in (output, errors):
            stream.seek(0)
        work_s = usage.ru_utime + usage.ru_stime
        return Ended(process.returncode, output.read(), errors.read(), work_s, usage.ru_maxrss * 1024)


def check(end: Ended, plain: Ended, folder: Path) -> None:
    """A complete run, or one line that says why not; bounded work and memory beyond those of a plain run.

    Raises FaultError.
    """
    expect("Traceback" not in end.errors, f"traceback: {end.errors}")
    expect(end.work_s < plain.work_s + LIMIT_S, f"{end.work_s:.1f} s of work; a plain run has {plain.work_s:.1f} s")
    most_bytes = plain.peak_bytes + LIMIT_BYTES
    expect(end.peak_bytes < most_bytes, f"{end.peak_bytes >> 20} MiB; a plain run has {plain.peak_bytes >> 20} MiB")
    if end.status:
        expect(end.status in (1, 2), f"status {end.status}: {end.errors}")
        expect(end.errors.count("\n") == 1, f"not one line: {end.errors}")
        return
    expect(not end.errors, f"written to standard error: {end.errors}")
    for file in folder.glob(f"runs/*/*/{checkpoint.FILE_NAME}"):
        checkpoint.load(file)
