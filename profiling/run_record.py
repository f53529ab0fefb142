"""RunRecord: the results of a run, as versioned JSON. Imports neither torch nor train/.

`record.json` contains the resolved configuration, the environment, the timings of the unprofiled steps and the paths of
the traces. Every figure about a run can be computed again from its folder.
"""

import statistics
from bisect import bisect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from profiling.storage import decode_json, read_json, write_json
from profiling.vocabulary import DESCRIPTION_KEYS

SCHEMA_VERSION = 2
FILE_NAME = "record.json"


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and the software versions of a run."""

    host: str
    platform: str
    processor: str
    cores: int
    memory_bytes: int
    device: str
    device_name: str
    precision: str
    threads: int
    versions: dict[str, str]


class TimeTotals(msgspec.Struct, frozen=True):
    """In how many steps something was timed, the sum, and the extremes."""

    steps: int
    sum_s: float
    min_s: float
    max_s: float


class StepTotals(msgspec.Struct, frozen=True, kw_only=True):
    """All steps of one stage: their images, their time, and the time of each phase."""

    samples: int
    step: TimeTotals
    phases: dict[str, TimeTotals]


class StepTimings(msgspec.Struct, frozen=True, kw_only=True):
    """Unprofiled steps of one stage: all, or a random sample (`profiling.step_sample`); lists have one entry per step.

    Attributes:
        samples: images in the step.
        step_s: seconds from the end of the previous step to the end of this step.
        phase_s: seconds in each phase; intervals of one phase in a step (micro-batches) are summed.
        numbers: number of the step in its stage, from 0; empty if the lists have every step, see `step_numbers`.
        totals: exact figures over all steps; None if the lists have every step.
    """

    samples: list[int]
    step_s: list[float]
    phase_s: dict[str, list[float]]
    numbers: list[int] = []
    totals: StepTotals | None = None

    @property
    def steps(self) -> int:
        """Number of steps, also of those that are not in the lists."""
        return len(self.step_s) if self.totals is None else self.totals.step.steps

    @property
    def step_numbers(self) -> Sequence[int]:
        """Number of each step of the lists."""
        return self.numbers or range(len(self.step_s))

    @property
    def samples_per_s(self) -> float:
        """Throughput over all steps."""
        if self.totals is None:
            return sum(self.samples) / sum(self.step_s)
        return self.totals.samples / self.totals.step.sum_s

    @property
    def sample_note(self) -> str:
        """` (of 4,000 random steps of 100,000)` where the lists do not have every step, else nothing."""
        return "" if self.totals is None else f" (of {len(self.step_s):,} random steps of {self.steps:,})"


class TraceFile(msgspec.Struct, frozen=True, kw_only=True):
    """One exported torch.profiler window.

    Attributes:
        path: relative to the run's folder.
        samples: images in each traced step.
        step_s: seconds of each traced step; used only for the profiler's overhead, never as a timing.
        peak_allocated_bytes: highest allocated memory on the run's device in the window, on a CPU relative to the start
            of the window; None without `profile_memory`.
        allocated_bytes: sum of all allocations on that device in the window; None without `profile_memory`.
    """

    path: str
    samples: list[int]
    step_s: list[float]
    peak_allocated_bytes: int | None
    allocated_bytes: int | None = None


class StageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Training, evaluation or inference.

    Attributes:
        timed: the unprofiled steps.
        trace: the profiled steps; None if the profiler is off or the run ended before them.
        peak_resident_bytes: highest resident memory of the process in the timed steps.
        resident_is_per_stage: False if the platform reports only the peak since the start of the process.
        peak_accelerator_bytes: highest memory of the accelerator's allocator in timed steps; None unless CUDA or XPU.
    """

    timed: StepTimings
    trace: TraceFile | None
    peak_resident_bytes: int
    resident_is_per_stage: bool
    peak_accelerator_bytes: int | None

    def profiler_overhead(self) -> float | None:
        """Median traced over median unprofiled seconds per image, minus 1; None without a trace."""
        if self.trace is None:
            return None
        return _median_per_image(self.trace) / _median_per_image(self.timed) - 1

    def measurable_overhead(self) -> float | None:
        """As `profiler_overhead`; None also where the traced steps are no slower than the slowest 5 % of the others."""
        if self.trace is None:
            return None
        rank = bisect(sorted(_seconds_per_image(self.timed)), _median_per_image(self.trace))
        return self.profiler_overhead() if rank / len(self.timed.step_s) > 0.95 else None


def _seconds_per_image(steps: StepTimings | TraceFile) -> list[float]:
    return [s / n for s, n in zip(steps.step_s, steps.samples, strict=True)]


def _median_per_image(steps: StepTimings | TraceFile) -> float:
    return statistics.median(_seconds_per_image(steps))


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is recorded of one run.

    Attributes:
        status: `complete`, `interrupted` or `failed`; unless complete, `error` says why.
        stages: the stages that ended, by name.
        changed: key -> [baseline's value, this run's] for every configuration value that differs.
        results: figures such as `accuracy` (0 to 1), `loss` (nats), `train_samples_per_s`, `compile_s`.
        ranks: processes that trained one model together; `results` are those of all, `stages` and `environment` those
            of rank 0; in an arm of an A/B, timings are those of all, too.
        others_before_cores: cores that other processes used while this one started; None if that is not known.
    """

    schema_version: int = SCHEMA_VERSION
    name: str
    status: str
    error: str | None
    started: str
    config: dict[str, Any]
    changed: dict[str, tuple[Any, Any]]
    environment: Environment
    stages: dict[str, StageRecord]
    results: dict[str, float]
    ranks: int = 1
    others_before_cores: float | None = None


def write(record: RunRecord, folder: Path) -> Path:
    """Write `record.json` into `folder`, whole or not at all."""
    return write_json(record, folder / FILE_NAME)


def read(folder: Path) -> RunRecord:
    """Read the record of a run.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not a record, or its version is unknown; the message is one line.
    """
    try:
        return read_json(folder / FILE_NAME, _KINDS, "a run record")
    except NotADirectoryError as error:  # the "folder" of a trace in a zip file
        raise FileNotFoundError(*error.args) from error


def decode(content: bytes) -> RunRecord:
    """Decode the content of a `record.json`.

    Raises:
        ValueError: as `read`.
    """
    return decode_json(content, _KINDS, "a run record")


_KINDS = {1: RunRecord, SCHEMA_VERSION: RunRecord}  # version 1 lacks the fields of samples: it has every step


def effective_changes(changed: Mapping[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    """Leave out the keys that say why, how it is measured and where to."""
    return {key: both for key, both in changed.items() if not key.startswith(DESCRIPTION_KEYS)}
