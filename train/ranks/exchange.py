"""How ranks exchange gradients and metrics, and divide batches: implementations side by side, the fast one first."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch.distributed as dist
from torch import Tensor
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from train.ranks.options import Accumulation, Division, GradientExchange, LossExchange, StepGraph

RunningLoss = Callable[[Tensor, Tensor, Tensor], Tensor]

# --- gradients --------------------------------------------------------------------------------------------------------

GRAPH: Mapping[StepGraph, Mapping[str, bool]] = {
    StepGraph.static: {"static_graph": True},  # what the first step has found holds for all
    StepGraph.dynamic: {},
    StepGraph.searched: {"find_unused_parameters": True},  # every step walks through its graph
}


def when_ready(model: DistributedDataParallel) -> None:
    """Exchange each bucket of gradients as soon as backward has filled it: what torch does."""


def after_backward(model: DistributedDataParallel) -> None:
    """Exchange the same buckets, but only once backward has filled the last one."""
    model.register_comm_hook([], _exchange_with_the_last)


def _exchange_with_the_last(
    waiting: list[tuple[Tensor, Future[Tensor]]],
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> Future[Tensor]:
    """A hook of DistributedDataParallel, which calls it for one bucket after the other, as these are filled."""
    buffer = bucket.buffer()
    mean: Future[Tensor] = Future(devices=[] if buffer.device.type == "cpu" else [buffer.device])
    waiting.append((buffer, mean))
    if bucket.is_last():
        for filled, future in waiting:
            dist.all_reduce(filled.div_(dist.get_world_size()))
            future.set_result(filled)
        waiting.clear()
    return mean


EXCHANGE: Mapping[GradientExchange, Callable[[DistributedDataParallel], None]] = {
    GradientExchange.overlapped: when_ready,
    GradientExchange.after_backward: after_backward,
}


class HasNoSync(Protocol):
    """A model of several ranks."""

    def no_sync(self) -> AbstractContextManager[Any]:
        """Within it, gradients stay on their rank and add up."""


def add_up(model: HasNoSync) -> AbstractContextManager[Any]:
    """Gradients of a micro-batch stay on their rank."""
    return model.no_sync()


def exchange_each(model: HasNoSync) -> AbstractContextManager[Any]:
    """Gradients of every micro-batch are exchanged: the same sum, for more messages."""
    return nullcontext()


ACCUMULATION: Mapping[Accumulation, Callable[[HasNoSync], AbstractContextManager[Any]]] = {
    Accumulation.local: add_up,
    Accumulation.exchanged: exchange_each,
}

# --- metrics ----------------------------------------------------------------------------------------------------------


def own_loss(running_loss: RunningLoss) -> RunningLoss:
    """Each rank adds up its own loss; a pass ends with the sum of all."""
    return running_loss


def loss_of_all(running_loss: RunningLoss) -> RunningLoss:
    """Learn the loss of all ranks in each step, as code does that shows it: the same sums, and a wait in each step."""

    def add(total: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        own = running_loss(total, logits, labels)
        of_all = own.detach().clone()
        dist.all_reduce(of_all)
        of_all.item()
        return own

    return add


LOSS: Mapping[LossExchange, Callable[[RunningLoss], RunningLoss]] = {
    LossExchange.every_pass: own_loss,
    LossExchange.every_step: loss_of_all,
}

# --- batches ----------------------------------------------------------------------------------------------------------


def equal_part(rank: int, ranks: int, batch: range) -> range:
    """The part of a batch that `rank` takes: the parts follow each other, and differ by at most one sample."""
    return batch[_cut(rank, ranks, batch) : _cut(rank + 1, ranks, batch)]


def unequal_part(rank: int, ranks: int, batch: range) -> range:
    """Likewise, but rank 0 takes twice what each of the others does."""
    first = rank + 1 if rank else 0
    return batch[_cut(first, ranks + 1, batch) : _cut(rank + 2, ranks + 1, batch)]


def _cut(number: int, parts: int, batch: range) -> int:
    return -(-number * len(batch) // parts)


DIVISION: Mapping[Division, Callable[[int, int, range], range]] = {
    Division.equal: equal_part,
    Division.unequal: unequal_part,
}
