"""One experiment from its configuration to its folder: measure, judge, record, show."""

import socket
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import hydra

from profiling.ab.comparison import BUDGET_S, arm_records, judge_measured, leave, shown_progress, warned_of_others
from profiling.ab.measure import Measured, Measurement, VariantError
from profiling.ab.time_limit import TimeUpError
from profiling.errors import NotApplicableError, UserError
from profiling.run_record import effective_changes
from profiling.terminal.comparisons import show_comparison
from profiling.terminal.streams import standard_output
from profiling.terminal.tables import wide_console
from profiling.verdict.hypothesis import Expectation, Hypothesis
from profiling.verdict.judge import Comparison, settled
from profiling.verdict.record import ComparisonRecord
from profiling.vocabulary import BASELINE, STAGES, VARIANT
from train.ab.arm_config import ArmConfig
from train.config import changes, cli
from train.config.compose import flat, plain, to_config
from train.config.schema import Config

LADDER_BUDGET_S = 15.0
SHOWN_CHANGES = 8


def run_experiment(
    config: Config,
    changed: Mapping[str, tuple[Any, Any]],
    common: Sequence[str],
    earlier: Sequence[ComparisonRecord],
    cores: Sequence[int],
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
        cores: that this job has to itself; none if it is the only one.
        is_ladder: one of several, with a smaller budget.
        folder: where to.

    Returns:
        The record, and what interrupted the measurement, to be raised again; the record is then partial.

    Raises:
        UserError: the arms differ in nothing or in too much, or the baseline cannot run here.
    """
    composed = hydra.compose("ab", overrides=list(common))
    baseline = ArmConfig(to_config(composed), effective_changes(changes.changed_from_baseline(composed)))
    arms = {BASELINE: baseline, VARIANT: ArmConfig(config, effective_changes(changed))}
    difference = one_change(baseline.config, config)
    budget_s = config.ab.budget_s or (LADDER_BUDGET_S if is_ladder else BUDGET_S)
    started, start = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    console = wide_console()
    others_cores = warned_of_others()
    with shown_progress(console, config.name) as progress:
        measured = Measurement(
            {name: arm.start for name, arm in arms.items()},
            config.hypothesis.phase,
            budget_s,
            folder,
            started,
            progress.block_done,
            settled=partial(settled, hypothesis_of(config), is_one_of_many=is_ladder),
            planned=progress.planned,
            best_probe_s=best_probe_s(earlier),
            max_s=config.ab.max_s,
            began_s=start,
        ).run()
    stop = None if isinstance(measured.stop, VariantError | NotApplicableError | TimeUpError) else measured.stop
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
        arms=arm_records(measured),
        remarks=[] if measured.end_note is None else [measured.end_note],
        others_before_cores=others_cores,
        others_cores=list(measured.others_cores),
        ranks=config.ranks or 1,
        cores=list(cores),
    )
    leave(record, folder)
    with standard_output(cli.fail, f"the comparison is complete: {folder}"):
        show_comparison(console, record, measured.startup_s, measured.waited_s, folder)
    return record, stop


def best_probe_s(earlier: Sequence[ComparisonRecord]) -> float | None:
    """Return the shortest probe of any launch on this machine so far (`profiling.ab.machine_state`), None without one.

    The jobs of a ladder may run on several machines.
    """
    here = [record for record in earlier if record.environment.host == socket.gethostname()]
    probes_s = [s for record in here for timings in record.timings.values() for s in timings.probe_s]
    return min(probes_s, default=None)


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
    stage = claim.phase if claim.phase in STAGES else "train"
    return judge_measured(config.name, hypothesis_of(config), stage, claim.numerics, measured)


def hypothesis_of(config: Config) -> Hypothesis:
    """What the experiment `config` claims."""
    claim = config.hypothesis
    return Hypothesis(claim.claim, claim.because, claim.phase, Expectation(**vars(claim.expect)), claim.estimator)
