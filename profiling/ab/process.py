"""An arm in a process of its own, as its parent sees it: start, ask, end. Imports no torch.

An arm may also be a group of processes that work together, its ranks. They get each request at the same time, and the
arm has its turn until all have answered; between turns all wait for a request.

Processes come from multiprocessing's fork server where the system has one: it imports what arms need once, so that a
dozen launches for one comparison are affordable (docs/measurement.md).
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
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
    """A context manager around one arm's process, or processes; leaving it leaves none behind. It is an `Arm` itself.

    Args:
        starts: each makes the arm in a process, in that of rank 0 first; must be picklable, under spawn too. Rank 0
            answers for all.
        preload: modules that the fork server imports before the first arm is started.

    Attributes:
        ready: what the arm said when it had warmed up.

    Raises:
        UserError, NotApplicableError: as raised in the arm.
        ArmError: anything else went wrong there, here and in every request.
    """

    def __init__(self, starts: Sequence[Callable[[], Arm]], preload: Sequence[str]) -> None:
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        multiprocessing.set_forkserver_preload(list(preload))
        self._ranks = [_RankOfArm(context, start) for start in starts]
        try:
            self.ready = self._receive(self._ranks, Ready)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "ArmProcess":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        self.close(GRACE_S if error is None else 0.0)

    def answer(self) -> Answer:
        """As `Arm.answer`."""
        return self._ask(self._ranks, AnswerRequest(), Answer)

    def probe(self) -> float:
        """As `Arm.probe`, of rank 0 alone."""
        return self._ask(self._ranks[:1], ProbeRequest(), float)

    def block(self, steps: Mapping[str, int]) -> BlockTimings:
        """As `Arm.block`."""
        return self._ask(self._ranks, BlockRequest(steps), BlockTimings)

    def finish(self, folder: Path, started: str, results: Mapping[str, float]) -> ArmOutput:
        """As `Arm.finish`."""
        return self._ask(self._ranks, FinishRequest(folder, started, results), ArmOutput)

    def _ask(self, asked: Sequence["_RankOfArm"], request: Request, kind: type[Reply]) -> Reply:
        for rank in asked:
            try:
                rank.pipe.send(request)
            except OSError as error:
                raise self._error(rank, rank.death()) from error
        return self._receive(asked, kind)

    def _receive(self, asked: Sequence["_RankOfArm"], kind: type[Reply]) -> Reply:
        """The reply of rank 0, once all have replied; the first failure of any rank, which the others only notice."""
        end_s = time.monotonic() + REPLY_TIMEOUT_S
        replies: dict[_RankOfArm, object] = {}
        while len(replies) < len(asked):
            waiting = [rank for rank in asked if rank not in replies]
            # The sentinels too: children of an arm that was killed can hold its end of the pipe open.
            sources = [source for rank in waiting for source in (rank.pipe, rank.process.sentinel)]
            ready = wait(sources, max(0.0, end_s - time.monotonic()))
            if not ready:
                raise self._error(waiting[0], f"no answer within {REPLY_TIMEOUT_S:.0f} s")
            for rank in waiting:
                if rank.pipe in ready or rank.process.sentinel in ready:
                    replies[rank] = reply = rank.reply()
                    if isinstance(reply, Failure):
                        raise self._error(rank, reply.message, reply.kind)
        first = replies[asked[0]]
        assert isinstance(first, kind)
        return first

    def _error(self, rank: "_RankOfArm", message: str, kind: type[Exception] = ArmError) -> Exception:
        """An error of this rank; its number matters where the others do not have the same error."""
        is_alone = len(self._ranks) == 1 or kind is not ArmError
        return kind(message if is_alone else f"rank {self._ranks.index(rank)}: {message}")

    def close(self, grace_s: float = GRACE_S) -> None:
        """End all processes: they leave when their pipes close, or are killed with their children after `grace_s`."""
        for rank in self._ranks:
            rank.pipe.close()
        for rank in self._ranks:
            rank.end(grace_s)


class _RankOfArm:
    """One process of an arm, and the pipe to it."""

    def __init__(self, context: Any, start: Callable[[], Arm]) -> None:
        self.pipe, theirs = context.Pipe()
        # Not a daemon: daemons may have no children, and the workers of a DataLoader are children.
        self.process = context.Process(target=_serve, args=(theirs, start), daemon=False)
        self.process.start()
        theirs.close()

    def reply(self) -> object:
        """What the process has sent; that it has ended is a failure."""
        try:
            reply = self.pipe.recv() if self.pipe.poll() else None
        except (EOFError, OSError):
            reply = None
        return Failure(ArmError, self.death()) if reply is None else reply

    def death(self) -> str:
        """How the process ended."""
        self.process.join(GRACE_S)
        return describe_exit(self.process.exitcode)

    def end(self, grace_s: float) -> None:
        """Wait for the process, whose pipe is closed; kill it with its children if it does not end by itself."""
        self.process.join(grace_s)
        if self.process.is_alive():
            for child in psutil.Process(self.process.pid).children(recursive=True):
                child.kill()
            self.process.kill()
            self.process.join()
        self.process.close()


def describe_exit(status: int | None) -> str:
    """Say in one line how a process ended, from its exit status; that of a signal is negative."""
    if status is None or status >= 0:
        return f"the process ended with exit status {status}"
    name = signal.Signals(-status).name
    hint = "; the kernel does that if memory runs out" if name == "SIGKILL" else ""
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
        with suppress(ConnectionError):  # the failure of another rank was first
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
