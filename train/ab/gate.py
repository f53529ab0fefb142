"""Has an optimization lost what it was worth?"""

from pathlib import Path

from profiling import comparison
from profiling.compare import Comparison, PhaseEffect
from profiling.comparison import ComparisonRecord
from train.errors import UserError


def read(path: Path) -> ComparisonRecord:
    """Read the recorded comparison.

    Raises:
        UserError: it is none.
        FileNotFoundError: there is none.
    """
    try:
        return comparison.read(path)
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
    allowed, found = _declared(recorded.comparison, "recorded"), _declared(now.comparison, "new")
    if found.ratio * found.floor_ratio < allowed.ratio_low:
        raise UserError(
            f"gate: {now.comparison.experiment} in {found.phase}: variant / baseline is {found.ratio:.3f} (floor "
            f"{found.floor_ratio:.3f}), below the recorded {allowed.ratio_low:.3f} to {allowed.ratio_high:.3f}: the "
            "baseline has become slower against its variant"
        )


def _declared(comparison: Comparison, which: str) -> PhaseEffect:
    for effect in comparison.phases:
        if effect.phase == comparison.hypothesis.phase:
            return effect
    raise UserError(
        f"ab.gate: the {which} comparison has no timing of {comparison.hypothesis.phase}: {comparison.verdict.value}"
        + (f": {comparison.reason}" if comparison.reason else "")
    )
