"""RunRecord: what a run leaves for analysis, as versioned JSON. Knows neither torch nor train/.

`record.json` holds the resolved configuration, the environment, the timing of every unprofiled step and the paths of
the traces, so that any figure that is shown about a run can be computed again from its folder.
"""

import statistics
from pathlib import Path
from typing import Any

import msgspec

from profiling.storage import decode_json, read_json, write_json

SCHEMA_VERSION = 1
FILE_NAME = "record.json"


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and the versions that a figure belongs to."""

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


class StepTimings(msgspec.Struct, frozen=True, kw_only=True):
    """Unprofiled steps of one stage; all lists have one entry a step.

    Attributes:
        samples: images in the step.
        step_s: seconds from the end of the step before to the end of this one.
        phase_s: seconds in each phase; a phase that ran several times in a step (micro-batches) is summed.
    """

    samples: list[int]
    step_s: list[float]
    phase_s: dict[str, list[float]]

    @property
    def samples_per_s(self) -> float:
        """Throughput over all steps."""
        return sum(self.samples) / sum(self.step_s)


class TraceFile(msgspec.Struct, frozen=True, kw_only=True):
    """One exported torch.profiler window.

    Attributes:
        path: relative to the run's folder.
        samples: images in each traced step.
        step_s: seconds of each traced step: never a timing, only the measure of the profiler's own overhead.
        peak_allocated_bytes: highest sum of live tensors on the run's device that the window saw, counted on a CPU from
            what was alive when it began; None without `profile_memory`.
        allocated_bytes: allocation traffic, the sum of all that was allocated on that device in the window; None
            likewise.
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
        trace: the profiled ones; None where the profiler is off or the run ended before.
        peak_resident_bytes: highest resident memory of the process in the timed steps.
        resident_is_per_stage: False where the platform only tells the peak since the process began.
        peak_accelerator_bytes: highest memory of the accelerator's allocator in the timed steps; None without one.
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
        return _seconds_per_image(self.trace) / _seconds_per_image(self.timed) - 1


def _seconds_per_image(steps: StepTimings | TraceFile) -> float:
    return statistics.median(s / n for s, n in zip(steps.step_s, steps.samples, strict=True))


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One run, complete.

    Attributes:
        status: `complete`, or `interrupted` or `failed`; then `error` says why, and the stages are those that ended.
        changed: key -> [baseline's value, this run's] for every line that differs from the baseline.
        results: figures such as `accuracy` (0 to 1), `loss` (nats), `train_samples_per_s`, `compile_s`.
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


def write(record: RunRecord, folder: Path) -> Path:
    """Write `record.json` into `folder`, whole or not at all."""
    return write_json(record, folder / FILE_NAME)


def read(folder: Path) -> RunRecord:
    """Read the record of a run.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not a record, or of a version that this program does not know; the message is one line.
    """
    return read_json(folder / FILE_NAME, _KINDS, "a run record")


def decode(content: bytes) -> RunRecord:
    """Decode the content of a `record.json`.

    Raises:
        ValueError: as `read`.
    """
    return decode_json(content, _KINDS, "a run record")


_KINDS = {SCHEMA_VERSION: RunRecord}
