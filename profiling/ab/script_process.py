"""A user's script as an arm: its processes, as their parent sees them. Imports no torch.

The script runs in its own interpreter under `profiling.ab.script_arm`, in a process group of its own. Between its turns
the whole group is stopped (SIGSTOP): a held script does not work, nor do its threads and the workers of its loaders.
The group stays in this process' session, so that the kernel ends stopped processes if this one is killed (setpgid(2)).
With `torchrun` every rank is such a process, in a group of its own: they get each request, and are stopped, together.
"""

import gzip
import json
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

from profiling import machine, run_record
from profiling.ab.messages import Answer, ArmError, ArmOutput, BlockTimings, Ready
from profiling.ab.process import describe_exit
from profiling.ab.script_events import write_events
from profiling.analysis.memory import window_memory
from profiling.format import duration
from profiling.run_record import RunRecord, StageRecord, TraceFile
from profiling.step_sample import StepSample
from profiling.storage import atomic_write
from profiling.trace.trace import read_trace

TORCHRUN = "torchrun"
SCRIPT_ARM = Path(__file__).with_name("script_arm.py")
STEP_TIMEOUT_S = 300.0  # of one request; the longest is starting, with all that the script does before its first steps
LOOK_S = 1.0  # while waiting: whether the process still runs, and how much it has written
GRACE_S = 5.0  # between the end of a process' pipe and its own
SETTLE_STEPS = 1
TRACED_STEPS = 4
MAX_OUTPUT_BYTES, KEPT_OUTPUT_BYTES = 4 << 20, 1 << 16  # of what the script prints: the end is kept


@dataclass(frozen=True)
class Script:
    """What an arm runs.

    Attributes:
        command: path of a script, or `-m` and a module; then its arguments.
        is_torchrun: the command consists of torchrun's arguments.
        python: the interpreter.
        environment: all variables.
        folder: where the script runs.
        seed: of random, numpy and torch.
        samples: in a step; None lets the arm find out.
        foreign: the other arm's tree, of which nothing may be loaded; None if both arms have one tree.
    """

    command: tuple[str, ...]
    python: str
    environment: Mapping[str, str]
    folder: Path
    seed: int
    samples: int | None
    foreign: Path | None
    is_torchrun: bool = False

    @property
    def text(self) -> str:
        """The command line."""
        return shlex.join((TORCHRUN, *self.command) if self.is_torchrun else self.command)

    @property
    def configuration(self) -> dict[str, Any]:
        """What a record says of it."""
        return {"command": self.text, "python": self.python, "folder": str(self.folder), "seed": self.seed}


class ScriptError(ArmError):
    """A script failed; the message is one line, and `output` is the file with what it printed."""

    def __init__(self, message: str, output: Path) -> None:
        super().__init__(message)
        self.output = output


class _RankProcess:
    """A connection to one process that runs the script; `received` is what it said that was not yet dealt with."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = b""

    def fileno(self) -> int:
        """For `select`."""
        return self.connection.fileno()

    def message(self) -> dict[str, Any] | None:
        """The next message; None if it has not come as a whole."""
        line, end, rest = self.received.partition(b"\n")
        if not end:
            return None
        self.received = rest
        message: dict[str, Any] = json.loads(line)
        return message


class ScriptProcess:
    """A context manager around a script's process; leaving it leaves no process behind. It is an `Arm` itself.

    `ready` waits until the script has warmed up. A script that ends before the measurement does is started again.

    Args:
        script: what to run.
        output: the file that gets what the script prints.
        changed: what differs in this arm, for its record: name -> [baseline's value, this arm's].
        scratch: a folder for what is needed for a short time.

    Raises:
        ArmError: the script failed, here and in every request.
    """

    def __init__(self, script: Script, output: Path, changed: Mapping[str, tuple[Any, Any]], scratch: Path) -> None:
        self._script = script
        self._output = output
        self._changed = changed
        self._scratch = scratch
        self._steps = StepSample()
        self._resident_bytes = 0
        self._accelerator_bytes: int | None = None
        self._stage = ""
        self._page_faults: list[float] = []
        self._start()

    def __enter__(self) -> "ScriptProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- requests

    @property
    def ready(self) -> Ready:
        """As `Arm.ready`."""
        return self._wait_until_ready()

    def answer(self) -> Answer:
        """As `Arm.answer`: the parameters of all optimizers, after the steps of the warm-up."""
        path = self._scratch / f"answer-{self._process.pid}"
        index = self._ask({"answer": str(path)}, None)[0]["tensors"]
        tensors = {}
        with path.open("rb") as file:
            for name, kind, shape in index:
                tensors[name] = np.fromfile(file, kind, count=int(np.prod(shape))).astype(np.float64).reshape(shape)
        path.unlink()
        return Answer(tensors, {})

    def probe(self) -> float:
        """As `Arm.probe`."""
        return float(self._ask({"probe": True}, None)[0]["probe_s"])

    def block(self, steps: Mapping[str, int]) -> BlockTimings:
        """As `Arm.block`. Of several ranks the slowest counts, and the samples of all."""
        request = {"steps": steps[next(iter(self.ready.settle_steps))]}
        replies = self._ask(request, request)
        timed = []
        for of_ranks in zip(*(reply["steps"] for reply in replies), strict=False):  # a script's end cuts blocks short
            samples, _, phase_s = of_ranks[0]
            timed.append(((samples or 1) * self._samples_factor, max(row[1] for row in of_ranks), phase_s))
            self._steps.add(*timed[-1])
        self._page_faults += [reply["page_faults"] / len(reply["steps"]) for reply in replies]
        self._resident_bytes = max(self._resident_bytes, sum(reply["resident_bytes"] for reply in replies))
        accelerator_bytes = [self._accelerator_bytes, *(reply["accelerator_bytes"] for reply in replies)]
        self._accelerator_bytes = max((peak for peak in accelerator_bytes if peak is not None), default=None)
        of_each = [reply["s_per_sample"] for reply in replies]
        phases = [name for name in of_each[0] if all(name in s_per_sample for s_per_sample in of_each)]
        return BlockTimings(
            {name: max(seconds[name] for seconds in of_each) / self._samples_factor for name in phases},
            {self._stage: max(reply["step_s"][self._stage] for reply in replies)},
            _means(self._stage, timed),
        )

    def finish(self, folder: Path, started: str, results: Mapping[str, float]) -> ArmOutput:
        """As `Arm.finish`. Of several ranks the first is traced."""
        folder.mkdir(parents=True)
        exported = self._scratch / f"trace-{self._process.pid}.pt.trace.json"
        untraced = {"traced": TRACED_STEPS, "path": None}
        traced = self._ask({**untraced, "path": str(exported)}, untraced)[0]["traced"]
        name = f"{socket.gethostname()}_{self._process.pid}_{self._stage}.{time.time_ns()}.pt.trace.json.gz"
        peak_bytes, traffic_bytes = window_memory(read_trace(exported), self.ready.environment.device)
        with atomic_write(folder / name) as packed, exported.open("rb") as text, gzip.open(packed, "wb") as file:
            shutil.copyfileobj(text, file)
        exported.unlink()
        samples, step_s = [row[0] or 1 for row in traced], [row[1] for row in traced]
        trace = TraceFile(
            path=name, samples=samples, step_s=step_s, peak_allocated_bytes=peak_bytes, allocated_bytes=traffic_bytes
        )
        timed = self._steps.timings()
        stage = StageRecord(
            timed=timed,
            trace=trace,
            peak_resident_bytes=self._resident_bytes,
            resident_is_per_stage=True,
            peak_accelerator_bytes=self._accelerator_bytes,
        )
        record = RunRecord(
            name=self._script.text,
            status="complete",
            error=None,
            started=started,
            config=self._script.configuration,
            changed=dict(self._changed),
            environment=self.ready.environment,
            stages={self._stage: stage},
            results={**results, f"{self._stage}_samples_per_s": timed.samples_per_s},
        )
        run_record.write(record, folder)
        write_events(record, folder)
        accelerator_bytes = {} if self._accelerator_bytes is None else {self._stage: self._accelerator_bytes}
        return ArmOutput(
            peak_resident_bytes=self._resident_bytes,
            peak_allocated_bytes={} if peak_bytes is None else {self._stage: peak_bytes},
            allocated_bytes_per_sample={} if traffic_bytes is None else {self._stage: traffic_bytes / sum(samples)},
            peak_accelerator_bytes=accelerator_bytes,
            traces={self._stage: name},
            page_faults_per_step=median(self._page_faults),
        )

    # --- the process

    def _start(self) -> None:
        """Start the script."""
        address = self._scratch / f"arm-{time.monotonic_ns()}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(address))
        self._listener.listen()
        self._ready: Ready | None = None
        self._ranks: list[_RankProcess] = []
        self._groups: set[int] = set()
        output = os.open(self._output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
        try:
            self._process = subprocess.Popen(
                [self._script.python, str(SCRIPT_ARM), str(address), json.dumps(self._task())],
                cwd=self._script.folder,
                env=dict(self._script.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
            )
        finally:
            os.close(output)
        self._groups.add(self._process.pid)

    def _wait_until_ready(self) -> Ready:
        if self._ready is None:
            try:
                self._ready = self._described(self._receive(None))
            except _ScriptEndedError as ended:
                raise self._error(_too_short(ended.steps)) from ended
        return self._ready

    def _task(self) -> dict[str, Any]:
        script = self._script
        return {
            "role": TORCHRUN if script.is_torchrun else "script",
            "command": script.command,
            "seed": script.seed,
            "samples": script.samples,
            "foreign": None if script.foreign is None else str(script.foreign),
        }

    def _described(self, replies: Mapping[_RankProcess, Mapping[str, Any]]) -> Ready:
        """What the script's arm says of itself once it has warmed up."""
        self._ranks.sort(key=lambda rank: int(replies[rank]["rank"]))
        reply = replies[self._ranks[0]]
        if foreign := reply["foreign"]:
            raise self._error(
                f"it loaded {foreign[0]} ({len(foreign)} files of the other arm's tree), so both arms would run the "
                "same code; set PYTHONPATH to where it lies in the tree, such as PYTHONPATH=. or PYTHONPATH=src"
            )
        self._stage = reply["stage"]
        samples = reply["samples"]
        self._samples_factor = 1 if samples is None else len(self._ranks)
        environment = machine.environment(
            reply["device"], reply["device_name"], reply["precision"], reply["threads"], reply["versions"]
        )
        in_all_ranks = None if samples is None else samples * self._samples_factor
        return Ready(reply["warmup_s"], environment, {self._stage: SETTLE_STEPS}, in_all_ranks)

    def _ask(self, first: Mapping[str, Any], others: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        """Let the script work until it has an answer; start it again if it ends before.

        Args:
            first: what the first rank is asked; a script without ranks is its only one.
            others: what all other ranks are asked; None asks them nothing.
        """
        self._wait_until_ready()
        try:
            return self._exchange(first, others)
        except _ScriptEndedError:
            self.close()
            self._start()
        self._wait_until_ready()
        try:
            return self._exchange(first, others)
        except _ScriptEndedError as ended:
            raise self._error(_too_short(ended.steps)) from ended

    def _exchange(self, first: Mapping[str, Any], others: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        asked = self._ranks if others is not None else self._ranks[:1]
        self._signal(signal.SIGCONT)
        for rank in asked:
            request = first if rank is self._ranks[0] else others
            with suppress(ConnectionError):  # what it said before its end is still to be read
                rank.connection.sendall(f"{json.dumps(request)}\n".encode())
        replies = self._receive(asked)
        return [replies[rank] for rank in asked]

    def _receive(self, asked: Sequence[_RankProcess] | None) -> dict[_RankProcess, dict[str, Any]]:
        """Return the next message of each rank that was asked; None for all, while their number is not known."""
        deadline = time.monotonic() + STEP_TIMEOUT_S
        messages: dict[_RankProcess, dict[str, Any]] = {}
        while True:
            for rank in asked or self._ranks:
                if rank not in messages and (message := rank.message()) is not None:
                    if "failure" in message:
                        raise self._error(message["failure"])
                    if "ended" in message:
                        raise _ScriptEndedError(message["ended"])
                    messages[rank] = message
            if messages and len(messages) == (len(asked) if asked else next(iter(messages.values()))["ranks"]):
                break
            if not self._read():
                self._shorten_output()
                if time.monotonic() > deadline:
                    raise self._error(f"no step within {duration(STEP_TIMEOUT_S * 1e6)}")
        if not asked:
            for process in self._descendants():  # ranks, and children that have left the group
                with suppress(ProcessLookupError):
                    self._groups.add(os.getpgid(process.pid))
        self._signal(signal.SIGSTOP)
        self._shorten_output()
        return messages

    def _read(self) -> bool:
        """Read what ranks say, or wait for LOOK_S; tell whether there was anything.

        Raises:
            ArmError: a process has ended.
        """
        # Before reading: children of a process that has ended can hold its connection open.
        has_ended = self._process.poll() is not None
        sources: list[socket.socket | _RankProcess] = [self._listener, *self._ranks]
        readable, _, _ = select.select(sources, [], [], 0 if has_ended else LOOK_S)
        is_closed = has_ended and not readable
        for ready in readable:
            if isinstance(ready, socket.socket):
                self._ranks.append(_RankProcess(ready.accept()[0]))
                continue
            part = b""
            with suppress(ConnectionError):
                part = ready.connection.recv(1 << 20)
            ready.received += part
            is_closed |= not part
        if is_closed and not any(b"\n" in rank.received for rank in self._ranks):
            raise self._error(self._death())
        return bool(readable)

    def _death(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        return describe_exit(self._process.returncode)

    def _error(self, message: str) -> "ScriptError":
        return ScriptError(message, self._output)

    def _signal(self, number: signal.Signals) -> None:
        for group in self._groups:
            with suppress(ProcessLookupError):
                os.killpg(group, number)

    def _shorten_output(self) -> None:
        """Keep the end of a long output."""
        if self._output.stat().st_size > MAX_OUTPUT_BYTES:
            with self._output.open("r+b") as file:
                file.seek(-KEPT_OUTPUT_BYTES, os.SEEK_END)
                end = file.read()
                file.seek(0)
                file.write(end)
                file.truncate()

    def close(self) -> None:
        """Kill the process and all that it has started."""
        children = self._descendants()
        self._signal(signal.SIGKILL)
        for child in children:  # also those in groups of their own
            with suppress(psutil.Error):
                child.kill()
        self._process.wait()
        for connection in (self._listener, *(rank.connection for rank in self._ranks)):
            connection.close()

    def _descendants(self) -> list[psutil.Process]:
        with suppress(psutil.Error):
            return psutil.Process(self._process.pid).children(recursive=True)
        return []


def _means(stage: str, steps: Sequence[tuple[int, float, Mapping[str, float]]]) -> dict[str, float]:
    """Seconds per sample of the stage, and of each phase that all `steps` have: samples, seconds, those of phases."""
    if not steps:
        return {}
    all_samples = sum(samples for samples, _, _ in steps)
    phases = [name for name in steps[0][2] if all(name in phase_s for _, _, phase_s in steps)]
    means = {name: sum(phase_s[name] for _, _, phase_s in steps) / all_samples for name in phases}
    return {**means, stage: sum(seconds for _, seconds, _ in steps) / all_samples}


class _ScriptEndedError(Exception):
    """The script came to its end after so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps


def _too_short(steps: int) -> str:
    if not steps:
        return "the script ended without a step: no optimizer has stepped, and it did not call profiling.step()"
    return f"the script ended after {steps} steps: too few, let it run longer"
