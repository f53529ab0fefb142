"""An arm in a process of its own, as its parent sees it: start, ask, end. Imports no torch.

Processes come from multiprocessing's fork server where the system has one: it imports what arms need once, so that a
dozen launches for one comparison are affordable (docs/measurement.md).
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

import psutil

from profiling.ab.messages import (
    Answer,
    AnswerRequest,
    Arm,
    ArmError,
    ArmOutput,
    BlockRequest,
    BlockTimings,
    Failure,
    FinishRequest,
    ProbeRequest,
    Ready,
    Request,
)
from profiling.errors import NotApplicableError, UserError

REPLY_TIMEOUT_S = 300.0  # of one request; the longest is starting with torch.compile
GRACE_S = 5.0  # between closing an arm's pipe and killing its process

Reply = TypeVar("Reply")


class ArmProcess:
    """A context manager around one arm's process; leaving it leaves no process behind. It is an `Arm` itself.

    Args:
        start: makes the arm, in its process; must be picklable, under spawn too.
        preload: modules that the fork server imports before the first arm is started.

    Attributes:
        ready: what the arm said when it had warmed up.

    Raises:
        UserError, NotApplicableError: as raised in the arm.
        ArmError: anything else went wrong there, here and in every request.
    """

    def __init__(self, start: Callable[[], Arm], preload: Sequence[str]) -> None:
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        multiprocessing.set_forkserver_preload(list(preload))
        self._pipe, theirs = context.Pipe()
        # Not a daemon: daemons may have no children, and the workers of a DataLoader are children.
        self._process = context.Process(target=_serve, args=(theirs, start), daemon=False)
        self._process.start()
        theirs.close()
        try:
            self.ready = self._receive(Ready)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "ArmProcess":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        self.close(GRACE_S if error is None else 0.0)

    def answer(self) -> Answer:
        """As `Arm.answer`."""
        return self._ask(AnswerRequest(), Answer)

    def probe(self) -> float:
        """As `Arm.probe`."""
        return self._ask(ProbeRequest(), float)

    def block(self, steps: Mapping[str, int]) -> BlockTimings:
        """As `Arm.block`."""
        return self._ask(BlockRequest(steps), BlockTimings)

    def finish(self, folder: Path, started: str, results: Mapping[str, float]) -> ArmOutput:
        """As `Arm.finish`."""
        return self._ask(FinishRequest(folder, started, results), ArmOutput)

    def _ask(self, request: Request, kind: type[Reply]) -> Reply:
        try:
            self._pipe.send(request)
        except OSError as error:
            raise ArmError(self._death()) from error
        return self._receive(kind)

    def _receive(self, kind: type[Reply]) -> Reply:
        # The sentinel too: children of an arm that was killed can hold its end of the pipe open.
        if not wait([self._pipe, self._process.sentinel], REPLY_TIMEOUT_S):
            raise ArmError(f"no answer within {REPLY_TIMEOUT_S:.0f} s")
        try:
            reply = self._pipe.recv() if self._pipe.poll() else None
        except (EOFError, OSError) as error:
            raise ArmError(self._death()) from error
        if reply is None:
            raise ArmError(self._death())
        if isinstance(reply, Failure):
            raise reply.kind(reply.message)
        assert isinstance(reply, kind)
        return reply

    def _death(self) -> str:
        self._process.join(GRACE_S)
        return describe_exit(self._process.exitcode)

    def close(self, grace_s: float = GRACE_S) -> None:
        """End the process: it leaves by itself when its pipe closes, or is killed with its children after `grace_s`."""
        self._pipe.close()
        self._process.join(grace_s)
        if self._process.is_alive():
            for child in psutil.Process(self._process.pid).children(recursive=True):
                child.kill()
            self._process.kill()
            self._process.join()
        self._process.close()


def describe_exit(status: int | None) -> str:
    """Say in one line how a process ended, from its exit status; that of a signal is negative."""
    if status is None or status >= 0:
        return f"the process ended with exit status {status}"
    name = signal.Signals(-status).name
    hint = "; the kernel does that when memory runs out" if name == "SIGKILL" else ""
    return f"the process was ended by {name}{hint}"


# --- in the arm's process ---------------------------------------------------------------------------------------------


def _serve(pipe: Connection, start: Callable[[], Arm]) -> None:
    """Answer requests until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what ends
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Python's default for the workers of a DataLoader, as in a run: they would inherit the fork server otherwise, and
    # each arm would start one more.
    multiprocessing.set_start_method(None, force=True)
    try:
        arm = start()
        reply: object = arm.ready
        while True:
            pipe.send(reply)
            reply = _reply(arm, pipe.recv())
    except (EOFError, ConnectionError):
        return
    except Exception as error:  # whatever it is, the report tells it
        pipe.send(_failure(error))


def _reply(arm: Arm, request: Request) -> object:
    match request:
        case AnswerRequest():
            return arm.answer()
        case ProbeRequest():
            return arm.probe()
        case BlockRequest(steps):
            return arm.block(steps)
        case FinishRequest(folder, started, results):
            return arm.finish(folder, started, results)


def _failure(error: Exception) -> Failure:
    if isinstance(error, UserError | NotApplicableError):
        return Failure(type(error), str(error))
    if isinstance(error, OSError) and error.filename and error.strerror:
        return Failure(ArmError, f"{error.filename}: {error.strerror}")
    lines = str(error).strip().splitlines()
    return Failure(ArmError, f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
