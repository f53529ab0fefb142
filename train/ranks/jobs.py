"""Jobs of a multirun that a launcher of Hydra's starts in processes of their own, here or on a cluster. No torch.

Hydra's plugin for submitit (extra `cluster`) pickles a job, runs it elsewhere, and ends in
`[job.results()[0] for job in jobs]`: one job that was killed would hide the results of all others.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from profiling.errors import Terminated
from profiling.terminal.early_signals import exit_status
from profiling.terminal.streams import print_line
from train.config import cli, folders

IN_THIS_PROCESS = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher."


class JobsElsewhere(Callback):
    """Prepares a multirun for its launcher; configs/config.yaml names this class among Hydra's callbacks.

    https://hydra.cc/docs/1.3/experimental/callbacks/
    """

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In the process of a job, which Hydra's plugin gives the callbacks: what composing the configuration needs."""
        cli.register()
        logging.getLogger("submitit").setLevel(logging.WARNING)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, but not empty: only then is `__setstate__` called."""
        return {"version": 1}

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Let jobs of submitit be reported one by one; refuse launchers that would let jobs time each other."""
        launcher = str(config.hydra.launcher._target_)
        if launcher.startswith(SUBMITIT):
            report_each_job()
        elif launcher != IN_THIS_PROCESS:
            print_line(
                f"error: hydra/launcher={config.hydra.runtime.choices['hydra/launcher']}: its jobs share cores, so "
                "each would slow the others; use basic (one after the other), submitit_local or submitit_slurm"
            )
            raise SystemExit(1)  # Hydra makes a warning of any other exception

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Let the errors of a job, which it has told in lines of its own, reach the process that waits for it."""
        if config.hydra.launcher._target_.startswith(SUBMITIT):
            job_return.return_value = list(cli.failures)


def report_each_job() -> None:
    """Let submitit's executors hand out jobs that report their own failure."""
    import submitit

    start: Callable[..., list[Any]] = submitit.core.core.Executor.map_array

    def start_reported(executor: Any, function: Any, *arguments: Sequence[Any]) -> list[Any]:
        jobs = start(executor, function, *arguments)
        return [ReportedJob(job, overrides, jobs) for job, overrides in zip(jobs, arguments[0], strict=True)]

    submitit.AutoExecutor.map_array = start_reported


class ReportedJob:
    """A job of submitit. What became of it is told when it is asked for results, in which it never raises an error.

    Args:
        job: a `submitit.Job`.
        overrides: its part of the command line.
        jobs: all jobs of the multirun, which an interrupt ends.
    """

    def __init__(self, job: Any, overrides: Sequence[str], jobs: Sequence[Any]) -> None:
        self._job, self._overrides, self._jobs = job, list(overrides), jobs

    def results(self) -> list[JobReturn]:
        """Wait for the job; print what it printed, and how it failed."""
        try:
            self._job.wait()
            done: JobReturn = self._job.results()[0]
            errors = list(done.return_value)
        except (KeyboardInterrupt, Terminated) as stop:
            for job in self._jobs:
                job.cancel(check=False)
            print_line("interrupted; the jobs end, and what they wrote is whole")
            for job in self._jobs:
                job.wait()
            raise SystemExit(exit_status(stop)) from stop
        except Exception as error:
            done = JobReturn(overrides=self._overrides)
            errors = [_reason(error, self._job)]
        for line in (self._job.stdout() or "").splitlines():
            if not line.startswith("submitit "):
                print_line(line, sys.stdout)
        for message in errors:
            cli.fail(f"job {self._job.job_id} ({' '.join(self._overrides)}): {message}")
        folder = Path(done.hydra_cfg.hydra.runtime.output_dir) if done.hydra_cfg else self._job.paths.folder
        folders.jobs.append((self._overrides, folder))
        done.status, done.return_value = JobStatus.COMPLETED, None
        return [done]


def _reason(error: Exception, job: Any) -> str:
    state = "killed, or lost with its machine" if "has not produced any output" in str(error) else "failed"
    return f"{state}; what it printed: {job.paths.stderr}"
