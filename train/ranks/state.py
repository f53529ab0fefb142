"""The state of training after one of its steps, as a file: what a run needs to go on after it was ended."""

import io
import logging
import shutil
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from msgspec import Meta
from torch import Tensor

from profiling.errors import UserError
from profiling.format import visible
from profiling.storage import atomic_write
from train.checkpoint import CONVERSION_ERRORS, is_plain, unpickled

FOLDER = "states"  # in the folder of a run that is not complete
KEPT = 2  # the newest may be damaged where the machine has lost power
FORMAT = 3
NotNegative = Annotated[int, Meta(ge=0)]

log = logging.getLogger(__name__)


class RankState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What each rank has of its own.

    Attributes:
        random: state of torch's generator of the CPU.
        accelerator_random: that of the accelerator; None if the rank computes on the CPU.
        augmentation: state of the generator of augmentation.
        loss, brier, confusion, steps, samples: the rank's metrics of the pass so far, see `train.loop.EpochMetrics`.
    """

    random: Tensor
    accelerator_random: Tensor | None
    augmentation: Tensor
    loss: Tensor
    brier: Tensor
    confusion: Tensor
    steps: int
    samples: int


class TrainingState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that the rest of a run depends on.

    Attributes:
        config: the run's configuration.
        data: what its data set was, see `train.ranks.alone.facts_of`.
        epoch, step: passes that are complete, and steps of the next one.
        epoch_s: seconds that those steps took.
        weights, optimizer, schedule, scaler: their `state_dict`; the last is that of gradients in float16, or empty.
        order: state of the generator before it drew the order of the pass.
        timings: the timed steps of each stage, on rank 0, as JSON: see `profiling.step_sample.StepSample.state`.
        events: name -> length in bytes of each event file.
        curves: stage -> how far its curves are, see `train.events.EventFile`.
        ranks: of each rank.
    """

    config: dict[str, Any]
    data: dict[str, int | list[str]]
    epoch: NotNegative
    step: NotNegative
    epoch_s: float
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    scaler: dict[str, Any]
    order: Tensor
    timings: dict[str, str]
    events: dict[str, NotNegative]
    curves: dict[str, tuple[int, int]]
    ranks: list[RankState]


def save(state: TrainingState, folder: Path) -> None:
    """Write `state` into the run's `folder`, whole or not at all; keep KEPT: this one, and the newest of the others."""
    states = folder / FOLDER
    states.mkdir(exist_ok=True)
    content = io.BytesIO()  # not to the file: torch.save reports a full disk as an internal error
    ranks = [msgspec.structs.asdict(rank) for rank in state.ranks]
    torch.save({"format": FORMAT, **msgspec.structs.asdict(state), "ranks": ranks}, content)
    written = states / f"epoch-{state.epoch:06}-step-{state.step:09}.pt"
    with atomic_write(written) as temporary:
        temporary.write_bytes(content.getbuffer())
    others = [file for file in files(folder) if file != written]  # of a later step, if these were damaged
    for old in others[KEPT - 1 :]:
        old.unlink(missing_ok=True)


def files(folder: Path) -> list[Path]:
    """The states in the folder of a run, the newest first."""
    return sorted((folder / FOLDER).glob("epoch-*.pt"), reverse=True)


def discard(folder: Path) -> None:
    """Remove the states of a run that is complete."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def newest(folder: Path) -> TrainingState | None:
    """The newest state in the folder of a run that is whole, with a line for each that is not; None without any."""
    for path in files(folder):
        try:
            return load(path)
        except UserError as error:
            log.info("note: %s; the one before is used", error)
    return None


def load(path: Path) -> TrainingState:
    """Read the file `path`; its tensors are on the CPU. Executes no code of the file.

    Raises:
        UserError: it is damaged, or not a state that this program wrote.
    """
    content = unpickled(path, str(path), "state of training", "")
    version = content.pop("format", None) if isinstance(content, dict) else None
    if type(version) is not int or version != FORMAT or not is_plain(content.get("config")):
        raise UserError(f"{path}: not a state of training of this program's format {FORMAT}")
    try:
        return msgspec.convert(content, TrainingState)
    except CONVERSION_ERRORS as error:
        raise UserError(f"{path}: not a state of training: {visible(str(error))}") from error
