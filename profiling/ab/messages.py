"""What the measurement and an arm's process say to each other. Every message is a dataclass that can be pickled."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from profiling.run_record import Environment

# --- requests ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AnswerRequest:
    """Compute the results that both arms must agree on; sent before any block."""


@dataclass(frozen=True)
class ProbeRequest:
    """Time the probe that tells whether the machine's cores share a cache (`profiling.ab.machine_state`)."""


@dataclass(frozen=True)
class BlockRequest:
    """Time `steps` of each stage: stage -> number of steps, in the order in which they are to run."""

    steps: Mapping[str, int]


@dataclass(frozen=True)
class FinishRequest:
    """Trace one window of each stage, and leave record and traces in `folder`, which does not exist yet.

    Attributes:
        started: when the comparison began, ISO 8601.
        results: the figures of the arm's answer.
    """

    folder: Path
    started: str
    results: Mapping[str, float]


Request = AnswerRequest | ProbeRequest | BlockRequest | FinishRequest

# --- replies ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ready:
    """The arm has started and warmed up.

    Attributes:
        warmup_s: seconds that took; mostly compilation, where something is compiled.
        settle_steps: each stage that the arm has -> steps that do not count yet; they are run twice.
        samples_per_step: where the arm had to find that out; None if it could not.
    """

    warmup_s: float
    environment: Environment
    settle_steps: Mapping[str, int]
    samples_per_step: int | None = None


@dataclass(frozen=True)
class Answer:
    """What an arm computes from the first seed: equal in both arms if the change affects nothing but time.

    Attributes:
        tensors: name -> float64 array, such as the weights and the probabilities of fixed images.
        results: figures such as `accuracy_after_8_steps`.
    """

    tensors: Mapping[str, npt.NDArray[np.float64]]
    results: Mapping[str, float]


@dataclass(frozen=True)
class BlockTimings:
    """The timings of one block of work.

    Attributes:
        s_per_sample: phase or stage -> seconds per sample in the block's fastest step.
        step_s: stage -> mean seconds of all its steps.
        mean_s_per_sample: phase or stage -> seconds per sample over all steps of the block.
    """

    s_per_sample: Mapping[str, float]
    step_s: Mapping[str, float]
    mean_s_per_sample: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ArmOutput:
    """What an arm leaves at the end; fields as in `profiling.verdict.record.ArmRecord`.

    Attributes:
        peak_accelerator_bytes: stage -> bytes; empty without an accelerator.
        traces: stage -> path of its trace, relative to the arm's own folder.
        page_faults_per_step: of timed blocks, in one process; None where they were not counted.
    """

    peak_resident_bytes: int
    peak_allocated_bytes: Mapping[str, int]
    allocated_bytes_per_sample: Mapping[str, float]
    peak_accelerator_bytes: Mapping[str, int]
    traces: Mapping[str, str]
    page_faults_per_step: float | None = None


@dataclass(frozen=True)
class Failure:
    """The arm stopped with an error of class `kind`; the message is one line."""

    kind: type[Exception]
    message: str


class ArmError(Exception):
    """An arm stopped, or its process did; the message is one line."""


class Arm(Protocol):
    """Whatever answers the requests: one method for each."""

    @property
    def ready(self) -> Ready:
        """What the arm says of itself once it has warmed up."""

    def answer(self) -> Answer:
        """Answer an AnswerRequest."""

    def probe(self) -> float:
        """Answer a ProbeRequest, in seconds."""

    def block(self, steps: Mapping[str, int]) -> BlockTimings:
        """Answer a BlockRequest."""

    def finish(self, folder: Path, started: str, results: Mapping[str, float]) -> ArmOutput:
        """Answer a FinishRequest."""
