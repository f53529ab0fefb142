"""Running many cases, in a process of their own, so that a crash or a hang in C ends none but that process."""

import faulthandler
import importlib
import multiprocessing
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import msgspec

from tests.fuzz.case import Case, Kind, run
from tests.fuzz.processes import WAITING_LIMIT_S as LONGEST_WAITING_S

CASES = 10_000
KINDS = {
    "traces": CASES, "configs": CASES, "checkpoints": CASES, "states": CASES, "images": CASES, "requests": CASES,
    "runs": 200, "ranks": 40, "resumes": 40,
}  # fmt: skip
"""Modules of this package, each with a class `Inputs` -> how many cases `make fuzz` has; of processes, fewer."""
START_S = 120  # imports and the inputs that all cases share, on a busy machine
STUCK_S = 2 * LONGEST_WAITING_S  # the limit of a case stops Python code alone


class Failure(msgspec.Struct, frozen=True):
    """A case, and what was wrong."""

    case: Case
    fault: str


def fuzz(kind: str, seed: int, cases: range) -> Iterator[Failure]:
    """Run cases of a kind, by their numbers; a process that dies is replaced for the cases after the deadly one."""
    while cases:
        done = 0
        with _worker(kind, seed, cases) as (process, answers):
            death = None
            while done < len(cases) and not death:
                if not answers.poll(STUCK_S if done else START_S + STUCK_S):
                    death = f"hang: the process did not answer within {STUCK_S:g} s"
                    continue
                try:
                    failure = answers.recv()
                except EOFError:
                    process.join()
                    death = f"the process ended with status {process.exitcode}"
                    continue
                done += 1
                if failure:
                    yield failure
        if death:
            yield Failure(make(kind, seed, cases[done]), death)
        cases = cases[done + 1 :]


def again(case: Case) -> str | None:
    """Run a saved case, in this process; return its fault."""
    with tempfile.TemporaryDirectory() as shared, tempfile.TemporaryDirectory() as folder:
        return run(_inputs(case.kind, Path(shared)), case, Path(folder))


def make(kind: str, seed: int, number: int) -> Case:
    """Make the input of a case."""
    with tempfile.TemporaryDirectory() as shared:
        return _make(_inputs(kind, Path(shared)), kind, seed, number)


def _make(inputs: Kind, kind: str, seed: int, number: int) -> Case:
    steps, files = inputs.make(random.Random(f"{kind}/{seed}/{number}"))
    return Case(kind, seed, number, steps, files)


def _inputs(kind: str, shared: Path) -> Kind:
    inputs: Kind = importlib.import_module(f"tests.fuzz.{kind}").Inputs(shared)
    return inputs


@contextmanager
def _worker(kind: str, seed: int, cases: range) -> Iterator[tuple[SpawnProcess, Connection]]:
    """A process that runs cases, and the connection that its answers come from."""
    context = multiprocessing.get_context("spawn")  # fork copies threads of torch in an unknown state
    answers, sending = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(kind, seed, cases, sending))
    process.start()
    sending.close()
    try:
        yield process, answers
    finally:
        process.kill()
        process.join()


def _work(kind: str, seed: int, cases: range, sending: Connection) -> None:
    """Run cases; send what was wrong with each, None if nothing was."""
    faulthandler.enable()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # hides the profiler's messages at its start and stop
    with tempfile.TemporaryDirectory() as shared:
        inputs = _inputs(kind, Path(shared))
        for number in cases:
            case = _make(inputs, kind, seed, number)
            with tempfile.TemporaryDirectory() as folder:
                fault = run(inputs, case, Path(folder))
            sending.send(Failure(case, fault) if fault else None)
