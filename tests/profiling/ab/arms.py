"""Arms that know nothing of train/, for tests of the measurement: they say what they are told to say."""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from profiling.ab.messages import Answer, ArmError, ArmOutput, BlockTimings, Ready
from profiling.run_record import Environment
from profiling.vocabulary import STAGES

ENVIRONMENT = Environment(
    host="h", platform="p", processor="c", cores=2, memory_bytes=1, device="cpu", device_name="c", precision="fp32",
    threads=1, versions={},
)  # fmt: skip


class ToyArm:
    """Sleeps `step_s` for each step; appends each request to `log`. `probes_s` are its probes, then 1 s."""

    ready = Ready(0.0, ENVIRONMENT, dict.fromkeys(STAGES, 1))

    def __init__(self, log: Path, name: str, step_s: float, probes_s: Sequence[float], scratch: Path) -> None:
        self.log, self.name, self.step_s, self.probes_s = log, name, step_s, list(probes_s)
        self._note("start")

    def __enter__(self) -> "ToyArm":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to be ended."""

    def _note(self, request: str) -> None:
        with self.log.open("a") as file:
            file.write(f"{self.name} {request}\n")

    def answer(self) -> Answer:
        self._note("answer")
        return Answer({"w": np.ones(2)}, {"loss": 1.0})

    def probe(self) -> float:
        self._note("probe")
        return self.probes_s.pop(0) if self.probes_s else 1.0

    def block(self, steps: Mapping[str, int]) -> BlockTimings:
        self._note("block")
        start = time.perf_counter()
        time.sleep(self.step_s * sum(steps.values()))
        spent_s = (time.perf_counter() - start) / sum(steps.values())
        means = dict.fromkeys(STAGES, 3 * self.step_s)
        return BlockTimings(dict.fromkeys(STAGES, self.step_s), dict.fromkeys(steps, spent_s), means)

    def finish(self, folder: Path, started: str, results: Mapping[str, float]) -> ArmOutput:
        self._note("finish")
        return ArmOutput(1, {}, {}, {}, {})


class LostArm(ToyArm):
    """Its process has ended before it can trace a window."""

    def finish(self, folder: Path, started: str, results: Mapping[str, float]) -> ArmOutput:
        raise ArmError("the process was ended by SIGKILL")


class DyingArm(ToyArm):
    """Its process is killed in its first block."""

    def block(self, steps: Mapping[str, int]) -> BlockTimings:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("not reached")
