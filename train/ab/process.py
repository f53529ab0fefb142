"""One arm in a process of its own, seen from the parent: ask, wait, and clear away. Imports no torch.

Processes come from multiprocessing's fork server where there is one: it imports torch once, without using it, and an
arm is then ready in 0.15 s, where a spawned interpreter takes 5 s on a 2-core machine. That is what makes a dozen
launches for one comparison affordable (train/ab/measure.py says why they are needed).
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from profiling.record import Environment
from train.config import Config
from train.errors import NotApplicableError, UserError, hush_event_writers

ANSWER_TIMEOUT_S = 300.0  # of one request; the longest is starting with torch.compile: a minute on two cores
GRACE_S = 5.0  # between closing an arm's pipe and killing it

# torch._inductor, with torch._dynamo, is what a first optimizer or deterministic algorithms import: 1.4 s in every arm.
PRELOADED = ["train.ab.__main__", "train.ab.arm", "sklearn.datasets", "torch._inductor"]


class ArmError(Exception):
    """An arm could not go on; the message is one line."""


@dataclass(frozen=True)
class Ready:
    """An arm has started and warmed up. `warmup_s`: mostly compilation, where something is compiled."""

    warmup_s: float
    environment: Environment


@dataclass(frozen=True)
class Answer:
    """What an arm computes from the first seed: equal in both arms, if the switch changes nothing but time.

    Attributes:
        tensors: the weights by name, and `probabilities` of fixed test images.
        results: figures such as `accuracy_after_8_steps`.
    """

    tensors: Mapping[str, npt.NDArray[np.float64]]
    results: Mapping[str, float]


@dataclass(frozen=True)
class Block:
    """One block of work.

    Attributes:
        s_per_sample: phase, or stage -> seconds per sample, in the fastest step of the block (train.ab.arm.fastest).
        step_s: stage -> mean seconds of all steps.
    """

    s_per_sample: Mapping[str, float]
    step_s: Mapping[str, float]


@dataclass(frozen=True)
class Closing:
    """What an arm leaves behind; as in profiling.comparison.Arm, but that paths are relative to its own folder."""

    peak_resident_bytes: int
    peak_allocated_bytes: Mapping[str, int]
    allocated_bytes_per_sample: Mapping[str, float]
    peak_accelerator_bytes: Mapping[str, int]
    traces: Mapping[str, str]


@dataclass(frozen=True)
class _Failure:
    kind: type[Exception]
    message: str


class Process:
    """A context manager around one arm's process; leaving it leaves no process behind.

    Args:
        config: what the arm runs.
        scratch: a folder for what is written while timing, such as histograms.

    Attributes:
        ready: what the arm said when it had warmed up.

    Raises:
        UserError, NotApplicableError: as raised in the arm.
        ArmError: anything else went wrong there, here and in `ask`.
    """

    def __init__(self, config: Config, scratch: Path) -> None:
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        multiprocessing.set_forkserver_preload(PRELOADED)
        self._pipe, theirs = context.Pipe()
        # Not a daemon: those may have no children, and a DataLoader's workers are children.
        self._process = context.Process(target=_serve, args=(theirs, config, scratch), daemon=False)
        self._process.start()
        theirs.close()
        try:
            self.ready: Ready = self._receive()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, request: str, *arguments: object) -> Any:
        """Call the arm's method `request` and wait for what it returns."""
        try:
            self._pipe.send((request, arguments))
        except OSError as error:
            raise ArmError(self._death()) from error
        return self._receive()

    def _receive(self) -> Any:
        # The sentinel too: children of an arm that was killed can hold its end of the pipe open.
        if not wait([self._pipe, self._process.sentinel], ANSWER_TIMEOUT_S):
            raise ArmError(f"no answer within {ANSWER_TIMEOUT_S:.0f} s")
        try:
            answer = self._pipe.recv() if self._pipe.poll() else None
        except (EOFError, OSError) as error:
            raise ArmError(self._death()) from error
        if answer is None:
            raise ArmError(self._death())
        if isinstance(answer, _Failure):
            raise answer.kind(answer.message)
        return answer

    def _death(self) -> str:
        self._process.join(GRACE_S)
        status = self._process.exitcode
        if status is None or status >= 0:
            return f"the process ended with exit status {status}"
        name = signal.Signals(-status).name
        hint = "; the kernel does that when memory runs out" if name == "SIGKILL" else ""
        return f"the process was ended by {name}{hint}"

    def close(self) -> None:
        """End the process: it leaves by itself when its pipe closes, or is killed with its children."""
        self._pipe.close()
        self._process.join(GRACE_S)
        if self._process.is_alive():
            for child in psutil.Process(self._process.pid).children(recursive=True):
                child.kill()
            self._process.kill()
            self._process.join()
        self._process.close()


# --- in the arm's process ---------------------------------------------------------------------------------------------


def _serve(pipe: Connection, config: Config, scratch: Path) -> None:
    """Answer requests until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what ends
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    hush_event_writers()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Python's default for DataLoader workers, as in a run; a child of a fork server would start one more for its own.
    multiprocessing.set_start_method(None, force=True)
    try:
        from train.ab.arm import Arm

        arm = Arm(config, scratch)
        answer: Any = arm.ready
        while True:
            pipe.send(answer)
            request, arguments = pipe.recv()
            answer = getattr(arm, request)(*arguments)
    except (EOFError, ConnectionError):
        return
    except Exception as error:  # whatever it is belongs into the report
        pipe.send(_failure(error))


def _failure(error: Exception) -> _Failure:
    if isinstance(error, UserError | NotApplicableError):
        return _Failure(type(error), str(error))
    if isinstance(error, OSError) and error.filename and error.strerror:
        return _Failure(ArmError, f"{error.filename}: {error.strerror}")
    lines = str(error).strip().splitlines()
    return _Failure(ArmError, f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
