"""The one folder of a run that several ranks share. Imports no torch before it is needed."""

from datetime import datetime

from train.ranks.launch import launched
from train.ranks.options import check_timeout

TIME_FORMAT = "%Y-%m-%d_%H-%M-%S-%f"


def time_of_run(timeout_s: float) -> str:
    """The time in the name of the run's folder: now; with ranks, the one that rank 0 has told the others.

    Ranks that torchrun starts again get the same time, and so the same folder.

    Raises:
        UserError: rank 0 does not answer within `timeout_s`, which may be out of range.
    """
    now = datetime.now().strftime(TIME_FORMAT)
    launch = launched()
    if launch is None:
        return now
    from train.ranks.store import named_once  # imports torch

    check_timeout(timeout_s)
    return named_once(launch, "time_of_run", now, timeout_s)
