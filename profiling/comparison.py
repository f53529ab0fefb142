"""ComparisonRecord: what one A/B leaves for the report and the TensorBoard tab, as versioned JSON.

It holds every sample, so `profiling.compare.compare` gives the same comparison again from the file alone.
"""

from pathlib import Path
from typing import Any

import msgspec

from profiling.compare import Comparison, PhaseSamples
from profiling.record import Environment, replacing

SCHEMA_VERSION = 3
FILE_NAME = "comparison.json"


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """One side of the comparison.

    Attributes:
        warmup_s: seconds before the first timed block; with torch.compile, mostly compilation.
        peak_resident_bytes: highest resident memory of the arm's process during timed blocks.
        peak_allocated_bytes: highest sum of live tensors in each stage's traced window; empty without a trace.
        allocated_bytes_per_sample: allocation traffic in each stage's traced window; empty likewise.
        peak_accelerator_bytes: highest memory of the accelerator's allocator; None without one.
        results: figures at the end, such as `accuracy` and `loss`.
        traces: stage -> path of its trace, relative to the comparison's folder.
    """

    warmup_s: float
    peak_resident_bytes: int
    peak_allocated_bytes: dict[str, int]
    peak_accelerator_bytes: int | None
    results: dict[str, float]
    traces: dict[str, str]
    allocated_bytes_per_sample: dict[str, float] = {}


class ComparisonRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One A/B, complete.

    Attributes:
        partial: interrupted before the planned number of blocks.
        changed: dotted key -> [baseline's value, variant's].
        samples: phase -> every timing; empty where an arm failed or the experiment does not apply.
        arms: `baseline` and `variant`; without those that never ran.
    """

    schema_version: int = SCHEMA_VERSION
    comparison: Comparison
    partial: bool
    started: str
    seconds: float
    budget_s: float
    configs: dict[str, dict[str, Any]]
    changed: dict[str, tuple[Any, Any]]
    environment: Environment
    samples: dict[str, PhaseSamples]
    arms: dict[str, Arm]

    @property
    def notes(self) -> list[str]:
        """Sentences on what was planned and does not count, or counts and should not."""
        notes = ["Partial result. Interrupted before the planned number of blocks."] if self.partial else []
        samples = next(iter(self.samples.values()), None)
        if samples is not None and samples.far.any():
            launches = f"{samples.far.sum()} of {len(samples.far)} launches"
            notes.append(
                f"{launches} count though the machine's cores were far from each other: too few others remain."
                if samples.counted.all()
                else f"{launches} left out: the machine's cores were far from each other."
            )
        return notes


class _Version(msgspec.Struct, frozen=True):
    """Read first: the rest may be named otherwise in another version."""

    schema_version: int = SCHEMA_VERSION


def write(record: ComparisonRecord, folder: Path) -> Path:
    """Write `comparison.json` into `folder`, whole or not at all."""
    path = folder / FILE_NAME
    with replacing(path) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1))
    return path


def read(path: Path) -> ComparisonRecord:
    """Read a comparison: its file or its folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not a comparison, or of a version that this program does not know; the message is one line.
    """
    if path.is_dir():
        path = path / FILE_NAME
    content = path.read_bytes()
    try:
        version = msgspec.json.decode(content, type=_Version).schema_version
        if version == SCHEMA_VERSION:
            return msgspec.json.decode(content, type=ComparisonRecord)
    except (ValueError, RecursionError) as error:  # also bytes that are no text, and brackets nested too deep
        raise ValueError(f"{path}: not a comparison: {error}") from error
    raise ValueError(f"{path}: schema version {version}, this program reads {SCHEMA_VERSION}")
