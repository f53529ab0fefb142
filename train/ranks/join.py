"""Joining the group of ranks that torchrun started, and leaving it: an error on one rank is one line and ends all."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from profiling.errors import NotApplicableError, Terminated, UserError
from profiling.terminal.early_signals import exit_status
from train.config.compose import plain
from train.config.options import Execution, Histograms, Need
from train.config.schema import Config
from train.ranks.alone import ALONE, RankGroup
from train.ranks.launch import Launch, launched
from train.ranks.options import Accumulation, Division, GradientExchange, LossExchange, StepGraph, Strategy

if TYPE_CHECKING:
    from train.ranks.store import Board

IN_BASELINE = {
    "strategy": Strategy.ddp,
    "ddp.bucket_mb": None,
    "ddp.gradient_view": True,
    "ddp.exchange": GradientExchange.overlapped,
    "ddp.graph": StepGraph.static,
    "ddp.accumulation": Accumulation.local,
    "ddp.loss": LossExchange.every_pass,
    "ddp.division": Division.equal,
}
"""Keys that do nothing in one process, as the baseline has them."""

ALONE_IN_DDP = ("bucket_mb", "gradient_view", "exchange", "graph")
"""Keys of `ddp` that `fully_shard` has nothing for."""

log = logging.getLogger(__name__)


@contextmanager
def joined(config: Config) -> Iterator[RankGroup]:
    """The group that torchrun started this process in; `ALONE` if it did not.

    Raises:
        UserError: the ranks differ in their configuration, one of them has ended or does not answer within
            `rank_timeout_s`, or the configuration has something that ranks do not support.
        SystemExit: another rank tells why all end.
    """
    launch = launched()
    if config.ranks not in (None, launch.ranks if launch else 1):
        raise UserError(
            f"ranks={config.ranks}: for train.ab, which starts them; here torchrun does: "
            f"torchrun --nproc-per-node {config.ranks} -m train"
        )
    if launch is None:
        refuse_alone(config)
        yield ALONE
        return
    import torch.distributed as dist

    from train.device import choose_device
    from train.ranks.group import BACKENDS, Ranks
    from train.ranks.store import Board

    device = choose_device(config.device)
    refuse_unsupported(config, launch, device.type, BACKENDS)
    board = Board(launch, config.rank_timeout_s)
    try:
        board.agree("the configuration", plain(config))
        dist.init_process_group(
            BACKENDS[device.type],
            store=board.store,
            rank=launch.rank,
            world_size=launch.ranks,
            timeout=timedelta(seconds=config.rank_timeout_s),
        )
        log.info("%s", describe(config, launch, device.type))
        yield Ranks(launch, board, config.strategy, config.ddp)
        dist.destroy_process_group()
    except (KeyboardInterrupt, Terminated) as stop:
        if launch.rank or board.has_error():
            raise SystemExit(exit_status(stop)) from stop
        raise
    except Exception as error:
        if (mistake := mistake_behind(error, config)) is not None:
            raise mistake from error
        if not lost_contact(error):
            raise
        raise explained_loss(board) from error


def describe(config: Config, launch: Launch, device: str) -> str:
    """What the ranks do together, in a line: no number of the configuration is scaled by their number."""
    batch = "the training split" if config.batch_size is None else f"batch_size={config.batch_size}"
    return (
        f"{launch.ranks} ranks, {launch.local_ranks} on this machine ({device}), {config.strategy}: an update takes "
        f"{batch}, which they divide among them, with optimizer.lr={config.optimizer.lr:g} as for one"
    )


def refuse_alone(config: Config) -> None:
    """Raise NotApplicableError for options of several ranks, which would do nothing."""
    if Need.ranks in config.hypothesis.needs:  # its own line says how to start it
        return
    given = {"strategy": config.strategy, **{f"ddp.{key}": value for key, value in vars(config.ddp).items()}}
    for key, value in given.items():
        if value != IN_BASELINE[key]:
            raise NotApplicableError(
                f"not applicable here: {key}={value} is of several ranks: start it with torchrun, or give ranks=2 to "
                "train.ab"
            )


def refuse_unsupported(config: Config, launch: Launch, device: str, backends: Mapping[str, str]) -> None:
    """Raise UserError for what cannot be done, or has not been built, with several ranks."""
    if device not in backends:
        raise UserError(f"device={device}: takes no ranks; start it without torchrun, or with device=cpu")
    if HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN:  # not so in an arm of train.ab
        raise UserError("a multirun (-m): not with ranks; start each of its runs by a torchrun of its own")
    if config.strategy is Strategy.fsdp:
        refuse_beside_fsdp(config)
    if config.switches.execution is Execution.compiled:
        raise UserError("switches.execution=compiled: not with ranks; start it without torchrun, or leave it out")
    if config.batch_size is not None and config.batch_size < launch.ranks:
        raise UserError(f"batch_size={config.batch_size}: that of all ranks together; allowed: {launch.ranks} or more")
    if config.eval_batch_size < launch.ranks:
        raise UserError(
            f"eval_batch_size={config.eval_batch_size}: that of all ranks together; allowed: {launch.ranks} or more"
        )


def refuse_beside_fsdp(config: Config) -> None:
    """Raise UserError or NotApplicableError for what parts of a model cannot do, or what is of whole models alone."""
    if config.switches.execution is not Execution.eager:
        raise UserError(f"switches.execution={config.switches.execution}: not with strategy=fsdp; leave it out")
    if config.switches.histograms is not Histograms.never:
        raise UserError("switches.histograms=every_step: not with strategy=fsdp, where no rank has a whole parameter")
    for key in ALONE_IN_DDP:
        if (given := getattr(config.ddp, key)) != IN_BASELINE[f"ddp.{key}"]:
            raise NotApplicableError(
                f"not applicable here: ddp.{key}={given} is of DistributedDataParallel: add strategy=ddp"
            )


def mistake_behind(error: Exception, config: Config) -> UserError | None:
    """What the user can correct, where torch's own message for it is of several lines or of its inner parts."""
    text = str(error)
    if "Expected to have finished reduction" in text:
        return UserError(
            f"model={config.model._target_}: a parameter takes no part in a step; with ranks, each must get a "
            "gradient in every step: remove it, or set its requires_grad to False"
        )
    if "Expected more than 1 value per channel" in text:
        return UserError(
            f"batch_size={config.batch_size}: a rank gets a single image of a batch, perhaps of the last one, which "
            "batch norm cannot normalize; give another batch_size"
        )
    if config.strategy is not Strategy.fsdp:
        return None
    reason = text.partition("\n")[0].partition(". ")[0]
    if any(word in text for word in ("sharding strategy", "placement", "DTensor")):
        fused = "switches.optimizer=foreach, " if "_fused_" in text else ""
        return UserError(
            f"strategy=fsdp: torch cannot do this with parts of parameters: {reason} "
            f"(optimizer={config.optimizer._target_}); give {fused}another optimizer, or strategy=ddp"
        )
    if isinstance(error, ValueError) and any(word in text for word in ("fully_shard", "FSDP group")):
        return UserError(f"model={config.model._target_}: not with strategy=fsdp: {reason}; give strategy=ddp")
    return None


def lost_contact(error: Exception) -> bool:
    """Whether `error` says that another rank did not take part in an exchange."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and "gloo/" in str(error))


def explained_loss(board: "Board") -> BaseException:
    """The error that ends this rank after it lost contact to others: an exit, if one of them tells why."""
    from torch.distributed import DistNetworkError

    try:
        lost = board.lost_ranks()
        if board.has_error():
            return SystemExit(1)
    except DistNetworkError:
        return UserError("torchrun has ended, through which the ranks agree on how to go on; resume=PATH goes on")
    names = ", ".join(map(str, lost)) or "(unknown)"
    return UserError(f"rank {names} has ended, or hangs: no answer within rank_timeout_s={board.timeout_s:g}")
