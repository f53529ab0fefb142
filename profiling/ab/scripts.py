"""One comparison of two scripts, from the command line to its folder: measure, judge, record, show."""

import argparse
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.console import Console

from profiling.ab.comparison import BUDGET_S, arm_records, judge_measured, leave, shown_progress, warned_of_others
from profiling.ab.measure import Measured, Measurement, VariantError
from profiling.ab.messages import Ready
from profiling.ab.script_pair import ScriptPair, script_pair
from profiling.ab.script_process import ScriptError, ScriptProcess
from profiling.ab.time_limit import TimeUpError
from profiling.errors import Terminated, UserError
from profiling.format import visible
from profiling.heap import has_glibc
from profiling.terminal.arguments import UNREADABLE
from profiling.terminal.comparisons import show_comparison
from profiling.terminal.early_signals import exit_status, raise_exceptions
from profiling.terminal.json_output import write_json
from profiling.terminal.streams import print_line
from profiling.terminal.tables import wide_console
from profiling.verdict.hypothesis import Expectation, Hypothesis
from profiling.verdict.judge import Comparison, settled
from profiling.verdict.record import ComparisonRecord
from profiling.vocabulary import ARMS, BASELINE, VARIANT, Agreement, Verdict

OUTPUT = Path("runs") / "ab"
SHOWN_LINES = 10  # of what a script printed before it failed
UNDECIDED = 2
MANY_PAGE_FAULTS = 100  # in a step; fewer are hidden by the noise of most steps


def run(options: argparse.Namespace) -> int:
    """Compare the scripts of `options` (`profiling.ab.options`); return the exit status."""
    raise_exceptions()
    try:
        with ExitStack() as stack:
            pair = script_pair(options, stack)
            return _compare(pair, options)
    except UserError as error:
        print_line(f"error: {error}")
        _show_output(error.__cause__)
        return UNREADABLE
    except (KeyboardInterrupt, Terminated) as stop:
        print_line("interrupted before the first launch")
        return exit_status(stop)


def _compare(pair: ScriptPair, options: argparse.Namespace) -> int:
    started = datetime.now(UTC)
    start = time.perf_counter()
    others_cores = warned_of_others()
    folder = OUTPUT / pair.label / started.strftime("%Y-%m-%d_%H-%M-%S.%f")
    folder.mkdir(parents=True)
    budget_s = options.budget_s or BUDGET_S
    console = Console(stderr=True) if options.json else wide_console()
    try:
        with shown_progress(console, pair.name) as progress:
            measured = Measurement(
                {arm: partial(_started, pair, arm, folder) for arm in ARMS},
                "train",
                budget_s,
                folder,
                started.isoformat(timespec="seconds"),
                progress.block_done,
                warmed_up=_check_arms,
                settled=partial(settled, _hypothesis(pair, "train")),
                planned=progress.planned,
                max_s=options.max_s,
                began_s=start,
            ).run()
    except BaseException:
        if not any(file.stat().st_size for file in folder.iterdir()):
            shutil.rmtree(folder)
        raise
    stop = None if isinstance(measured.stop, VariantError | TimeUpError) else measured.stop
    record = ComparisonRecord(
        comparison=_judge(pair, measured),
        partial=stop is not None,
        started=started.isoformat(timespec="seconds"),
        seconds=time.perf_counter() - start,
        budget_s=budget_s,
        configs={arm: pair.arms[arm].configuration for arm in (BASELINE, VARIANT)},
        changed=pair.changed | _changed_versions(measured),
        environment=measured.environment,
        timings=measured.timings,
        arms=arm_records(measured),
        remarks=remarks(measured, keeps_heap=options.keep_heap or not has_glibc()),
        others_before_cores=others_cores,
        others_cores=list(measured.others_cores),
    )
    leave(record, folder)
    if options.json:
        write_json(record)
    else:
        show_comparison(console, record, measured.startup_s, measured.waited_s, folder)
    if isinstance(measured.stop, VariantError):
        _show_output(measured.stop.__cause__)
        return UNREADABLE
    if stop is not None:
        print_line(f"interrupted; what was written is whole: {folder}")
        return exit_status(stop)
    return 0 if options.fail_slower is None else gate(record.comparison, options.fail_slower, strict=options.strict)


def _started(pair: ScriptPair, arm: str, folder: Path, scratch: Path) -> ScriptProcess:
    script = pair.arms[VARIANT if arm == VARIANT else BASELINE]
    return ScriptProcess(script, folder / f"{arm}.output.txt", pair.changed if arm == VARIANT else {}, scratch)


def _check_arms(arms: Mapping[str, Ready]) -> None:
    """Refuse arms whose times cannot be compared.

    Raises:
        UserError: they end their steps in different ways, or only one knows how many samples a step has.
    """
    stages = [next(iter(arms[arm].settle_steps)) for arm in (BASELINE, VARIANT)]
    if stages[0] != stages[1]:
        raise UserError("a step ends with an optimizer in one arm only; end it with profiling.step() in both")
    samples = [arms[arm].samples_per_step for arm in (BASELINE, VARIANT)]
    if (samples[0] is None) != (samples[1] is None):
        raise UserError("the samples in a step are known of one arm only; --samples tells them")


def _judge(pair: ScriptPair, measured: Measured) -> Comparison:
    stage = next(iter(measured.arms[BASELINE].ready.settle_steps), "train") if measured.arms else "train"
    return judge_measured(pair.name, _hypothesis(pair, stage), stage, Agreement.different, measured)


def _hypothesis(pair: ScriptPair, stage: str) -> Hypothesis:
    return Hypothesis(f"compared with {pair.baseline_name}", "no claim is made", stage, Expectation())


def _changed_versions(measured: Measured) -> dict[str, tuple[str | None, str | None]]:
    """Python and torch, where the arms have two releases."""
    if not {BASELINE, VARIANT} <= measured.arms.keys():
        return {}
    ours, theirs = (measured.arms[arm].ready.environment.versions for arm in (BASELINE, VARIANT))
    return {name: (ours.get(name), theirs.get(name)) for name in ours | theirs if ours.get(name) != theirs.get(name)}


def remarks(measured: Measured, *, keeps_heap: bool) -> list[str]:
    """What a reader must know of the figures."""
    sentences = [] if measured.end_note is None else [measured.end_note]
    if not measured.arms:
        return sentences
    samples = [arm.ready.samples_per_step for arm in measured.arms.values()]
    if None in samples:
        sentences.append("The samples in a step are not known: times are per step.")
    elif len(set(samples)) > 1:
        sentences.append(f"A step has {samples[0]} samples in the baseline and {samples[1]} in the variant.")
    else:
        sentences.append(f"A step has {samples[0]} samples.")
    faults = [arm.output.page_faults_per_step or 0.0 for arm in measured.arms.values() if arm.output is not None]
    if max(faults, default=0.0) >= MANY_PAGE_FAULTS and not keeps_heap:
        counts = " and ".join(f"{number:,.0f}" for number in faults)
        sentences.append(
            f"A step has {counts} page faults: its memory is returned to the system and taken again, which takes "
            "another time in each process. With --keep-heap both arms keep it."
        )
    if measured.twin_difference is None:
        sentences.append("There are no parameters of an optimizer: the answers are not compared.")
    elif measured.twin_difference != (0.0, 0.0):
        sentences.append(
            "The script is not reproducible: from one seed, the baseline and its twin differ by "
            f"{measured.twin_difference[1]:.2g} of the largest tensor's norm, so the results say little."
        )
    return sentences


def gate(comparison: Comparison, share: float, *, strict: bool) -> int:
    """Return the exit status: 1 if a slowdown of `share` is called; if strict, UNDECIDED if it is not excluded."""
    effect = comparison.declared_effect
    if effect is None:
        return UNDECIDED if strict else 0
    if effect.verdict is Verdict.slower and effect.ratio >= 1 + share:
        return 1
    return UNDECIDED if strict and max(effect.ratio_high, effect.floor_ratio) >= 1 + share else 0


def _show_output(cause: BaseException | None) -> None:
    """Show the last lines that a script printed before it failed."""
    if not isinstance(cause, ScriptError) or not cause.output.is_file():
        return
    lines = cause.output.read_text(errors="replace").splitlines()[-SHOWN_LINES:]
    if lines:
        sys.stderr.write(f"the last lines of {cause.output}:\n")
        sys.stderr.writelines(f"  {visible(line)}\n" for line in lines)
