"""One experiment from its configuration to its folder: measure, judge, record, show."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hydra
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from profiling import compare, comparison, report
from profiling.compare import Comparison, Expectation, Hypothesis, PeakMemory, Verdict
from profiling.comparison import Arm, ComparisonRecord
from train import cli
from train.ab import table
from train.ab.measure import BASELINE, VARIANT, Measured, Measurement, Side, VariantError
from train.compose import flat, plain, to_config
from train.config import Config
from train.errors import NotApplicableError, UserError
from train.options import STAGES

BUDGET_S, LADDER_BUDGET_S = 45.0, 15.0
DESCRIPTION = ("name", "hypothesis.", "output", "ab.")  # keys that say why and where to, not what is done
SHOWN_CHANGES = 8

# What `close` means after 8 steps, for weights, probabilities and metrics: relative error of each tensor. bf16 keeps
# 8 bits, and 8 steps multiply its rounding: channels_last_off and threads_1, which only add in another order, differ by
# 4.5 and 7.1 %, amp_off by 6.3 %; more noise on the images (0.06 for 0.05) differs by 11.7 %, another seed by 190 %.
# train/variants.py holds each switch to tighter bounds in float32.
CLOSE_RTOL, CLOSE_ATOL = 1e-1, 1e-3


def experiment(
    config: Config,
    changed: Mapping[str, tuple[Any, Any]],
    common: Sequence[str],
    before: Sequence[ComparisonRecord],
    *,
    is_ladder: bool,
    folder: Path,
) -> tuple[ComparisonRecord, BaseException | None]:
    """Measure `config` against the baseline with the overrides `common`; leave everything in `folder`.

    Args:
        config: the variant.
        changed: what differs from the plain baseline in it.
        common: overrides that apply to both arms.
        before: the ladder's earlier comparisons, which have seen how near this machine's cores can be.
        is_ladder: one of several, with a smaller budget.
        folder: where to.

    Returns:
        The record, and what interrupted the measurement, to be raised again; the record is then partial.

    Raises:
        UserError: the arms differ in nothing or in too much, or the baseline cannot run here.
    """
    composed = hydra.compose("ab", overrides=list(common))
    baseline = Side(to_config(composed), done_differently(cli.changed_from_baseline(composed)))
    sides = {BASELINE: baseline, VARIANT: Side(config, done_differently(changed))}
    difference = one_change(baseline.config, config)
    budget_s = config.ab.budget_s or (LADDER_BUDGET_S if is_ladder else BUDGET_S)
    started, start = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    console = table.new_console()
    with progress_bar(console, config.name) as progress:
        measured = Measurement(
            sides, config.hypothesis.phase, budget_s, folder, started, progress, nearest_s(before)
        ).run()
    stop = None if isinstance(measured.end, VariantError | NotApplicableError) else measured.end
    record = ComparisonRecord(
        comparison=judge(config, measured),
        partial=stop is not None,
        started=started,
        seconds=time.perf_counter() - start,
        budget_s=budget_s,
        configs={name: plain(side.config) for name, side in sides.items()},
        changed=difference,
        environment=measured.environment,
        samples=measured.samples,
        arms=arms(measured),
    )
    comparison.write(record, folder)
    report.write([record], [folder], folder / "report.html")
    table.show(console, record, measured.startup_s, measured.waited_s, folder)
    return record, stop


def nearest_s(before: Sequence[ComparisonRecord]) -> float | None:
    """The least reference of any launch (train.ab.arm.Arm.reference)."""
    references = [s for record in before for samples in record.samples.values() for s in samples.reference_s]
    return min(references, default=None)


def done_differently(changed: Mapping[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    """Leave out what says why and where to."""
    return {key: values for key, values in changed.items() if not key.startswith(DESCRIPTION)}


def one_change(baseline: Config, variant: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (baseline's value, variant's), after checking that it is one.

    Raises:
        UserError: it is more than one, and `ab.allow_many` is false; or none, though the experiment claims something.
    """
    ours, theirs = flat(plain(baseline)), flat(plain(variant))
    keys = [*ours, *(key for key in theirs if key not in ours)]
    both = {key: (ours.get(key), theirs.get(key)) for key in keys if ours.get(key) != theirs.get(key)}
    changed = done_differently(both)
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
    """What the measurement says of the hypothesis."""
    claim = config.hypothesis
    expect = Expectation(
        time=compare.Time(claim.expect.time.value) if claim.expect.time else None,
        memory=compare.Memory(claim.expect.memory.value) if claim.expect.memory else None,
    )
    hypothesis = Hypothesis(claim.claim, claim.because, claim.phase, expect)
    if isinstance(measured.end, NotApplicableError):
        return compare.not_applicable(config.name, hypothesis, str(measured.end))
    if isinstance(measured.end, VariantError):
        return compare.failed(config.name, hypothesis, str(measured.end))
    memory = peak_memory(claim.phase if claim.phase in STAGES else "train", measured)
    numerics = None
    if measured.difference is not None:
        declared = compare.Agreement(claim.numerics.value)
        numerics = compare.agreement(declared, *measured.difference, CLOSE_RTOL, CLOSE_ATOL)
    if not measured.samples:
        reason = "interrupted before there was enough for an interval"
        empty = compare.failed(config.name, hypothesis, reason)
        return msgspec.structs.replace(
            empty, verdict=Verdict.inconclusive, outcome=compare.Outcome.undecided, numerics=numerics
        )
    return compare.compare(config.name, hypothesis, measured.samples, memory, numerics)


def peak_memory(stage: str, measured: Measured) -> PeakMemory | None:
    """Peak memory of both arms in the stage that the hypothesis is about.

    On an accelerator, of its allocator in timed blocks. On a CPU, of live tensors in the traced window: the resident
    memory of the process is mostly torch itself, and moves with the allocator. Memory that grows from step to step
    (graph_accumulation) shows too, in proportion to the length of the window.
    """
    closings = [measured.arms[name].closing for name in (BASELINE, VARIANT) if name in measured.arms]
    if len(closings) < 2 or closings[0] is None or closings[1] is None:
        return None
    by_stage = [closing.peak_accelerator_bytes or closing.peak_allocated_bytes for closing in closings if closing]
    if not all(stage in peaks for peaks in by_stage):
        return None
    return PeakMemory(by_stage[0][stage], by_stage[1][stage])


def arms(measured: Measured) -> dict[str, Arm]:
    """What each arm has shown, as the record holds it."""
    shown = {}
    for name, arm in measured.arms.items():
        closing = arm.closing
        accelerator = list(closing.peak_accelerator_bytes.values()) if closing else []
        shown[name] = Arm(
            warmup_s=arm.warmup_s,
            peak_resident_bytes=closing.peak_resident_bytes if closing else 0,
            peak_allocated_bytes=dict(closing.peak_allocated_bytes) if closing else {},
            peak_accelerator_bytes=max(accelerator) if accelerator else None,
            results=dict(arm.results),
            traces={stage: f"{name}/{path}" for stage, path in closing.traces.items()} if closing else {},
            allocated_bytes_per_sample=dict(closing.allocated_bytes_per_sample) if closing else {},
        )
    return shown


@contextmanager
def progress_bar(console: Console, name: str) -> Iterator[Any]:
    """Tell it how many blocks of how many are done; nothing is drawn where the output is not a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} blocks"))
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True
    ) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
