"""The worker processes of loaders: no signal ends them but that of the process that they work for."""

import multiprocessing
import signal
from multiprocessing.util import Finalize

from profiling.terminal.early_signals import ENDING

JOIN_S = 1.0


def ignore_signals(worker: int) -> None:
    """Let the worker of this number outlive a Ctrl-C, and a SIGTERM to all processes of a job, as Slurm sends it.

    It would end before the step in progress, which waits for its batch, does.
    """
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def kill_at_exit() -> None:
    """Kill the workers when this process exits, before multiprocessing sends them SIGTERM and waits for them."""
    Finalize(None, kill_workers, exitpriority=0)


def kill_workers() -> None:
    """Kill all workers: they lose nothing, and one that reads a slow file would be waited for."""
    of_torch = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # raises an error for a killed worker
    workers = [process for process in multiprocessing.active_children() if process.daemon]
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join(JOIN_S)
    signal.signal(signal.SIGCHLD, of_torch)
