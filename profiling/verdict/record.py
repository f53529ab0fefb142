"""ComparisonRecord: what one A/B leaves for the report and the TensorBoard tab, as versioned JSON.

It holds every timing, so that `profiling.verdict.judge.judge_comparison` gives the same comparison from the file alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from profiling.format import counted
from profiling.machine_load import BUSY_CORES, described
from profiling.run_record import Environment
from profiling.storage import read_json, write_json
from profiling.verdict.judge import Comparison
from profiling.verdict.timings import PhaseTimings
from profiling.verdict.wording import describe_estimators
from profiling.vocabulary import COMPARISON_FILE, STAGES, Estimator

COMPARISON_VERSION = 4


class ArmRecord(Struct, frozen=True, kw_only=True):
    """One arm of the comparison.

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


class ComparisonRecord(Struct, frozen=True, kw_only=True):
    """One A/B, complete.

    Attributes:
        partial: interrupted before the planned number of blocks.
        changed: dotted key -> [baseline's value, variant's].
        timings: phase -> every timing; empty where an arm failed or the experiment does not apply.
        arms: `baseline` and `variant`; without those that never ran.
        remarks: sentences on what the figures mean.
        others_before_cores: cores that other processes used before the comparison began; None if that is not known.
        others_cores: [launches] cores that they used during each launch; empty likewise.
        ranks: processes of each arm; `environment` is that of rank 0, and so are the arms' memory and traces.
        cores: numbers of the machine's cores that a job of a ladder had to itself; empty where it is no such job.
    """

    schema_version: int = COMPARISON_VERSION
    comparison: Comparison
    partial: bool
    started: str
    seconds: float
    budget_s: float
    configs: dict[str, dict[str, Any]]
    changed: dict[str, tuple[Any, Any]]
    environment: Environment
    timings: dict[str, PhaseTimings]
    arms: dict[str, ArmRecord]
    remarks: list[str] = []
    others_before_cores: float | None = None
    others_cores: list[float] = []
    ranks: int = 1
    cores: list[int] = []

    @property
    def notes(self) -> list[str]:
        """Sentences on what the figures mean, on what does not count as planned, or counts and should not."""
        notes = [*self.remarks]
        if self.ranks > 1:
            threads = counted(self.environment.threads, "thread")
            notes.append(
                f"Each arm is {self.ranks} ranks of {threads}: times are those of the slowest rank, for the samples of "
                "all; memory and causes are those of rank 0."
            )
        notes += ["Partial result. Interrupted before the planned number of blocks."] if self.partial else []
        whole = (*STAGES, self.comparison.hypothesis.phase)
        notes += [
            describe_estimators(effect)
            for effect in self.comparison.phases
            if effect.estimator is Estimator.mean or (effect.estimators_differ and effect.phase in whole)
        ]
        timings = next(iter(self.timings.values()), None)
        if timings is not None and timings.apart_launches.any():
            apart = timings.apart_launches
            launches = f"{apart.sum()} of {len(apart)} launches"
            others = [cores for cores, is_apart in zip(self.others_cores, apart.tolist(), strict=False) if is_apart]
            cause = _busy(others) or "the machine's cores were far from each other"
            notes.append(
                f"{launches} count though {cause}: too few others remain."
                if timings.counted_launches.all()
                else f"{launches} left out: {cause}."
            )
        elif (reason := _busy(self.others_cores)) is not None:
            notes.append(f"All launches count, though {reason}: the noise floor contains that.")
        return notes


def _busy(others_cores: Sequence[float]) -> str | None:
    """Say what other processes used in these launches on average; None if next to nothing, or not known."""
    cores = sum(others_cores) / len(others_cores) if others_cores else 0.0
    return f"other processes were using {described(cores)}" if cores >= BUSY_CORES else None


def write_comparison(record: ComparisonRecord, folder: Path) -> Path:
    """Write `comparison.json` into `folder`, whole or not at all."""
    return write_json(record, folder / COMPARISON_FILE)


def read_comparison(path: Path) -> ComparisonRecord:
    """Read a comparison: its file or its folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not a comparison, or of a version that this program does not know; the message is one line.
    """
    if path.is_dir():
        path = path / COMPARISON_FILE
    record = read_json(path, _KINDS, "a comparison")
    return _from_version_3(record) if isinstance(record, _Version3Record) else record


# --- version 3: other names, and no mark on launches whose cores were apart -------------------------------------------

_VERSION_3_APART_RATIO = 1.4


class _Version3Timings(Struct, frozen=True):
    baseline_s_per_sample: Sequence[float]
    variant_s_per_sample: Sequence[float]
    twin_s_per_sample: Sequence[float]
    rounds: int = 1
    reference_s: Sequence[float] = ()
    nearest_s: float | None = None


class _Version3Record(ComparisonRecord, frozen=True, kw_only=True):
    timings: dict[str, _Version3Timings] = field(name="samples")  # type: ignore[assignment]


def _from_version_3(old: _Version3Record) -> ComparisonRecord:
    values = {name: getattr(old, name) for name in ComparisonRecord.__struct_fields__}
    values |= {"schema_version": COMPARISON_VERSION}
    values |= {"timings": {phase: _marked(timings) for phase, timings in old.timings.items()}}
    return ComparisonRecord(**values)


def _marked(old: Any) -> PhaseTimings:
    best_s = min([*old.reference_s, *([old.nearest_s] if old.nearest_s else [])], default=0.0)
    return PhaseTimings(
        old.baseline_s_per_sample,
        old.variant_s_per_sample,
        old.twin_s_per_sample,
        old.rounds,
        probe_s=old.reference_s,
        cores_apart=[probe_s >= _VERSION_3_APART_RATIO * best_s for probe_s in old.reference_s],
    )


_KINDS: dict[int, type[ComparisonRecord]] = {3: _Version3Record, COMPARISON_VERSION: ComparisonRecord}
