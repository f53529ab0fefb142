"""Going on with a run that was ended, from the newest state in its folder."""

import logging
from pathlib import Path

from profiling.errors import UserError
from profiling.format import visible
from train.config.compose import flat, plain
from train.config.schema import Config
from train.ranks import event_files
from train.ranks.alone import RankGroup
from train.ranks.command import MAY_DIFFER
from train.ranks.launch import is_first, launched
from train.ranks.state import FOLDER, TrainingState, newest

log = logging.getLogger(__name__)


def saved_state(config: Config, folder: Path, group: RankGroup) -> TrainingState | None:
    """The state to begin with in the run's `folder`: with `resume`, and where torchrun has started the ranks again.

    What was written after that state is removed: events, and traces.

    Raises:
        UserError: there is none that is whole, or it is of another configuration or number of ranks.
    """
    launch = launched()
    if config.resume is None and (launch is None or launch.restarts == 0):
        return None
    saved = newest(folder)
    if saved is None and config.resume is not None:
        raise UserError(f"resume={config.resume}: no state in its {FOLDER}/ is whole; start the run again")
    if saved is not None:
        _check(saved, config, group)
    place = {"epoch": saved.epoch, "step": saved.step} if saved else {}
    group.agree("the state to go on from", place)
    if is_first():
        event_files.cut(folder, saved.events if saved else {})
        for trace in folder.glob("*.pt.trace.json.gz"):
            trace.unlink()
        log.info("goes on in %s%s", folder, f": epoch {saved.epoch + 1}, after {saved.step} steps" if saved else "")
    return saved


def _check(saved: TrainingState, config: Config, group: RankGroup) -> None:
    now, then = flat(plain(config)), flat(saved.config)
    for key in {**then, **now}:
        if key not in MAY_DIFFER and now.get(key) != then.get(key):
            was = visible(str(then.get(key)))
            raise UserError(
                f"resume={config.resume}: {key} was {was} when the run began, and is {now.get(key)} now; the files of "
                "configs/ must be as they were"
            )
    if saved.epoch >= config.epochs:
        raise UserError(f"resume={config.resume}: not a state of this run: in epoch {saved.epoch + 1}")
    if len(saved.ranks) != group.ranks:
        raise UserError(
            f"resume={config.resume}: the run had {len(saved.ranks)} ranks, and there are {group.ranks} now; start it "
            "with as many as before"
        )
