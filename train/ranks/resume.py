"""Going on with a run that was ended, from the newest state in its folder."""

import logging
from pathlib import Path

from profiling.errors import UserError
from profiling.format import visible
from train.config.compose import flat, plain
from train.ranks import event_files
from train.ranks.alone import facts_of
from train.ranks.command import MAY_DIFFER
from train.ranks.launch import is_first, launched
from train.ranks.state import FOLDER, TrainingState, newest
from train.session import Session

log = logging.getLogger(__name__)


def saved_state(parts: Session, folder: Path) -> TrainingState | None:
    """The state in the run's `folder` to begin with: with `resume`, and where torchrun has started the ranks again.

    What was written after that state is removed: events, and traces.

    Raises:
        UserError: there is none that is whole, or it is of another configuration, data set or number of ranks.
    """
    config, group, launch = parts.config, parts.group, launched()
    if config.resume is None and (launch is None or launch.restarts == 0):
        return None
    saved = newest(folder)
    if saved is None and config.resume is not None:
        raise UserError(f"resume={config.resume}: no state in its {FOLDER}/ is whole; start the run again")
    if saved is not None:
        _check(saved, parts)
    place = {"epoch": saved.epoch, "step": saved.step} if saved else {}
    group.agree("the state to go on from", place)
    if is_first():
        event_files.cut(folder, saved.events if saved else {})
        for trace in folder.glob("*.pt.trace.json.gz"):
            trace.unlink()
        log.info("goes on in %s%s", folder, f": epoch {saved.epoch + 1}, after {saved.step} steps" if saved else "")
    return saved


def _check(saved: TrainingState, parts: Session) -> None:
    config, group = parts.config, parts.group
    now, then = flat(plain(config)), flat(saved.config)
    for key in {**then, **now}:
        if key not in MAY_DIFFER and now.get(key) != then.get(key):
            was = visible(str(then.get(key)))
            raise UserError(
                f"resume={config.resume}: {key} was {was} when the run began, and is {now.get(key)} now; the files of "
                "configs/ must be as they were"
            )
    for fact, value in facts_of(parts.data).items():
        if (before := saved.data.get(fact)) != value:
            raise UserError(
                f"resume={config.resume}: the data set has changed since the run began: {fact} was "
                f"{visible(str(before))}, and is {value} now"
            )
    if saved.epoch >= config.epochs:
        raise UserError(f"resume={config.resume}: not a state of this run: in epoch {saved.epoch + 1}")
    if len(saved.ranks) != group.ranks:
        raise UserError(
            f"resume={config.resume}: the run had {len(saved.ranks)} ranks, and there are {group.ranks} now; start it "
            "with as many as before"
        )
