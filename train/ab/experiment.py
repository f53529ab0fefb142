"""One experiment from its configuration to its folder: measure, judge, record, show."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hydra
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from profiling.ab.measure import ArmResult, Measured, Measurement, VariantError
from profiling.errors import NotApplicableError, UserError
from profiling.report.page import write_report
from profiling.terminal.comparisons import show_comparison
from profiling.terminal.streams import standard_output
from profiling.terminal.tables import wide_console
from profiling.verdict.hypothesis import Expectation, Hypothesis, PeakMemory
from profiling.verdict.judge import Comparison, failed, inconclusive, judge_comparison, not_applicable
from profiling.verdict.numerics import NumericsCheck, check_numerics
from profiling.verdict.record import ArmRecord, ComparisonRecord, write_comparison
from profiling.vocabulary import BASELINE, COMPARED_ARMS, STAGES, VARIANT
from train.ab.arm_config import PRELOADED, ArmConfig
from train.config import cli
from train.config.compose import flat, plain, to_config
from train.config.schema import Config

BUDGET_S, LADDER_BUDGET_S = 45.0, 15.0
DESCRIPTION = ("name", "hypothesis.", "output", "ab.")  # keys that say why and where to, not what is done
SHOWN_CHANGES = 8

# What `close` means after 8 steps, for weights, probabilities and metrics. bf16 keeps 8 bits, and training multiplies
# its rounding (docs/measurement.md); train/variants.py holds each switch to tighter bounds in float32.
CLOSE_RTOL, CLOSE_ATOL = 1e-1, 1e-3


def run_experiment(
    config: Config,
    changed: Mapping[str, tuple[Any, Any]],
    common: Sequence[str],
    earlier: Sequence[ComparisonRecord],
    *,
    is_ladder: bool,
    folder: Path,
) -> tuple[ComparisonRecord, BaseException | None]:
    """Measure `config` against the baseline with the overrides `common`; leave everything in `folder`.

    Args:
        config: the variant.
        changed: what differs from the plain baseline in it.
        common: overrides that apply to both arms.
        earlier: the ladder's comparisons so far, which know how fast this machine's probe can be.
        is_ladder: one of several, with a smaller budget.
        folder: where to.

    Returns:
        The record, and what interrupted the measurement, to be raised again; the record is then partial.

    Raises:
        UserError: the arms differ in nothing or in too much, or the baseline cannot run here.
    """
    composed = hydra.compose("ab", overrides=list(common))
    baseline = ArmConfig(to_config(composed), effective_changes(cli.changed_from_baseline(composed)))
    arms = {BASELINE: baseline, VARIANT: ArmConfig(config, effective_changes(changed))}
    difference = one_change(baseline.config, config)
    budget_s = config.ab.budget_s or (LADDER_BUDGET_S if is_ladder else BUDGET_S)
    started, start = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    console = wide_console()
    with progress_bar(console, config.name) as progress:
        measured = Measurement(
            {name: arm.start for name, arm in arms.items()},
            PRELOADED,
            config.hypothesis.phase,
            budget_s,
            folder,
            started,
            progress,
            best_probe_s(earlier),
        ).run()
    stop = None if isinstance(measured.stop, VariantError | NotApplicableError) else measured.stop
    record = ComparisonRecord(
        comparison=judge(config, measured),
        partial=stop is not None,
        started=started,
        seconds=time.perf_counter() - start,
        budget_s=budget_s,
        configs={name: plain(arm.config) for name, arm in arms.items()},
        changed=difference,
        environment=measured.environment,
        timings=measured.timings,
        arms={name: arm_record(name, arm) for name, arm in measured.arms.items()},
    )
    write_comparison(record, folder)
    write_report([record], [folder], folder / "report.html")
    with standard_output(cli.fail, f"the comparison is complete: {folder}"):
        show_comparison(console, record, measured.startup_s, measured.waited_s, folder)
    return record, stop


def best_probe_s(earlier: Sequence[ComparisonRecord]) -> float | None:
    """Return the shortest probe of any launch so far (`profiling.ab.machine_state`); None if there was none."""
    probes_s = [s for record in earlier for timings in record.timings.values() for s in timings.probe_s]
    return min(probes_s, default=None)


def effective_changes(changed: Mapping[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    """Leave out the keys that say why and where to."""
    return {key: values for key, values in changed.items() if not key.startswith(DESCRIPTION)}


def one_change(baseline: Config, variant: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (baseline's value, variant's), after checking that it is one.

    Raises:
        UserError: it is more than one, and `ab.allow_many` is false; or none, though the experiment claims something.
    """
    ours, theirs = flat(plain(baseline)), flat(plain(variant))
    keys = [*ours, *(key for key in theirs if key not in ours)]
    both = {key: (ours.get(key), theirs.get(key)) for key in keys if ours.get(key) != theirs.get(key)}
    changed = effective_changes(both)
    if len(changed) > 1 and not variant.ab.allow_many:
        listed = [f"{key} ({before} -> {after})" for key, (before, after) in changed.items()]
        more = f" and {len(listed) - SHOWN_CHANGES} more" if len(listed) > SHOWN_CHANGES else ""
        raise UserError(
            f"{variant.name}: {len(changed)} lines differ, so no effect could be ascribed to one of them: "
            f"{', '.join(listed[:SHOWN_CHANGES])}{more}; ab.allow_many=true measures them together"
        )
    if not changed and variant.hypothesis.topic != "baseline":
        raise UserError(
            f"{variant.name}: both arms are the same; an override gives the baseline what the experiment sets"
        )
    return changed


def judge(config: Config, measured: Measured) -> Comparison:
    """Say what the measurement means for the hypothesis of `config`."""
    claim = config.hypothesis
    expect = Expectation(time=claim.expect.time, memory=claim.expect.memory)
    hypothesis = Hypothesis(claim.claim, claim.because, claim.phase, expect)
    if isinstance(measured.stop, NotApplicableError):
        return not_applicable(config.name, hypothesis, str(measured.stop))
    if isinstance(measured.stop, VariantError):
        return failed(config.name, hypothesis, str(measured.stop))
    numerics: NumericsCheck | None = None
    if measured.difference is not None:
        numerics = check_numerics(claim.numerics, *measured.difference, CLOSE_RTOL, CLOSE_ATOL)
    if not measured.timings:
        reason = "interrupted before there was enough for an interval"
        return inconclusive(config.name, hypothesis, reason, numerics)
    memory = peak_memory(claim.phase if claim.phase in STAGES else "train", measured)
    return judge_comparison(config.name, hypothesis, measured.timings, memory, numerics)


def peak_memory(stage: str, measured: Measured) -> PeakMemory | None:
    """Peak memory of both arms in the stage that the hypothesis is about; None where it was not measured.

    On an accelerator it is that of its allocator in timed blocks. On a CPU it is that of live tensors in the traced
    window: the resident memory of the process is mostly torch itself, and varies with the allocator. Memory that grows
    from step to step (graph_accumulation) shows in proportion to the length of the window.
    """
    outputs = [measured.arms[arm].output for arm in COMPARED_ARMS if arm in measured.arms]
    peaks = [output.peak_accelerator_bytes or output.peak_allocated_bytes for output in outputs if output is not None]
    if len(peaks) < len(COMPARED_ARMS) or not all(stage in of_arm for of_arm in peaks):
        return None
    return PeakMemory(*(of_arm[stage] for of_arm in peaks))


def arm_record(name: str, arm: ArmResult) -> ArmRecord:
    """What an arm has shown, as the comparison's record holds it."""
    output = arm.output
    results = {key: value for key, value in arm.results.items() if math.isfinite(value)}  # JSON has no other numbers
    if output is None:
        return ArmRecord(
            warmup_s=arm.warmup_s,
            peak_resident_bytes=0,
            peak_allocated_bytes={},
            peak_accelerator_bytes=None,
            results=results,
            traces={},
        )
    return ArmRecord(
        warmup_s=arm.warmup_s,
        peak_resident_bytes=output.peak_resident_bytes,
        peak_allocated_bytes=dict(output.peak_allocated_bytes),
        peak_accelerator_bytes=max(output.peak_accelerator_bytes.values(), default=None),
        results=results,
        traces={stage: f"{name}/{path}" for stage, path in output.traces.items()},
        allocated_bytes_per_sample=dict(output.allocated_bytes_per_sample),
    )


@contextmanager
def progress_bar(console: Console, name: str) -> Iterator[Any]:
    """Yield a function to tell how many blocks of how many are done; draws nothing where the output is no terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} blocks"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
