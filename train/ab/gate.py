"""Has an optimization lost what it was worth?"""

from pathlib import Path

from profiling.errors import UserError
from profiling.verdict.judge import Comparison, PhaseEffect
from profiling.verdict.record import ComparisonRecord, read_comparison


def read(path: Path) -> ComparisonRecord:
    """Read the recorded comparison.

    Raises:
        UserError: it is none.
        FileNotFoundError: there is none.
    """
    try:
        return read_comparison(path)
    except ValueError as error:
        raise UserError(f"ab.gate: {error}") from error


def check(now: ComparisonRecord, recorded: ComparisonRecord) -> None:
    """Hold a new comparison against a recorded one of the same experiment.

    Raises:
        UserError: the ratio of the hypothesis' phase is below the recorded interval by more than the new noise floor;
            or there is no ratio to hold.
    """
    if now.comparison.experiment != recorded.comparison.experiment:
        raise UserError(
            f"ab.gate: that is a comparison of {recorded.comparison.experiment}, not of {now.comparison.experiment}"
        )
    before, new = _declared(recorded.comparison, "recorded"), _declared(now.comparison, "new")
    if new.ratio * new.floor_ratio < before.ratio_low:
        raise UserError(
            f"gate: {now.comparison.experiment} in {new.phase}: variant / baseline is {new.ratio:.3f} (floor "
            f"{new.floor_ratio:.3f}), below the recorded {before.ratio_low:.3f} to {before.ratio_high:.3f}: the "
            "baseline has become slower against its variant"
        )


def _declared(comparison: Comparison, which: str) -> PhaseEffect:
    if comparison.declared_effect is not None:
        return comparison.declared_effect
    raise UserError(
        f"ab.gate: the {which} comparison has no timing of {comparison.hypothesis.phase}: {comparison.verdict.value}"
        + (f": {comparison.reason}" if comparison.reason else "")
    )
