"""The model of a rank, as the loop calls it: the whole of it in each rank (`ddp`), or a part of it in each (`fsdp`)."""

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.interface import has_blocks
from train.ranks.exchange import EXCHANGE, GRAPH
from train.ranks.options import DDPConfig, Strategy

_PARAMETERS = inspect.signature(DistributedDataParallel).parameters
_BUFFERS_IN_FORWARD = "forward_sync_buffers" if "forward_sync_buffers" in _PARAMETERS else "broadcast_buffers"
"""Its name of today, and of releases before 2.14. It is off: `Ranks.same_buffers` sends them once for an evaluation."""

log = logging.getLogger(__name__)


class Replicated(DistributedDataParallel):
    """Each rank has the whole model, and exchanges nothing in evaluation."""

    _has_graph = False

    def forward(self, images: Tensor) -> Tensor:
        """Logits float [B, classes] of images [B, C, H, W], of which there may be none."""
        self._has_graph |= self.training
        return with_stand_in(super().forward if self.training else self.module, images)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Exchange no gradients, except in the very first step, in which a static graph is recorded."""
        with super().no_sync() if self._has_graph else nullcontext():
            yield


class Sharded(nn.Module):
    """Each rank keeps a part of every parameter, of its gradient and of the optimizer's state (`fully_shard`).

    A parameter is whole while its block computes, in evaluation and inference too: all ranks must call it as often.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        """Logits float [B, classes] of images [B, C, H, W], of which there may be none."""
        return with_stand_in(self.module, images)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Exchange no gradients."""
        sharded: Any = self.module
        sharded.set_requires_gradient_sync(False)
        yield
        sharded.set_requires_gradient_sync(True)


def with_stand_in(call: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The logits of `images`.

    A rank without a sample in the last batch of a pass must take part in the exchange of gradients: two empty images
    stand in, whose logits are dropped, so that its gradients are zero.
    """
    if len(images):
        return call(images)
    return call(images.new_zeros((2, *images.shape[1:])))[:0]


def own_parameters(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Name and values of each parameter; of one that ranks have divided, the part of this rank, if it has one."""
    for name, parameter in module.named_parameters():
        own: Tensor = parameter.to_local() if hasattr(parameter, "to_local") else parameter
        if own.numel():
            yield name, own


def replicate(module: nn.Module, ddp: DDPConfig) -> Replicated:
    """Give each rank the whole of `module`."""
    options: dict[str, Any] = {_BUFFERS_IN_FORWARD: False, **GRAPH[ddp.graph]}
    model = Replicated(module, bucket_cap_mb=ddp.bucket_mb, gradient_as_bucket_view=ddp.gradient_view, **options)
    EXCHANGE[ddp.exchange](model)
    return model


def shard(module: nn.Module, ddp: DDPConfig) -> Sharded:
    """Divide the parameters of `module`, in place: each of its blocks is a unit, and what is left is one."""
    from torch.distributed.fsdp import fully_shard  # imports much that `ddp` does not need

    if any(not parameter.is_contiguous() for parameter in module.parameters()):
        log.info("note: strategy=fsdp: weights are stored contiguous, as fully_shard asks; images are as before")
        module.to(memory_format=torch.contiguous_format)
    device = next(module.parameters()).device
    mesh = dist.device_mesh.init_device_mesh(device.type, (dist.get_world_size(),))
    for unit in (*(module.blocks if has_blocks(module) else ()), module):
        fully_shard(unit, mesh=mesh)
    return Sharded(module)


STRATEGY: Mapping[Strategy, Callable[[nn.Module, DDPConfig], Replicated | Sharded]] = {
    Strategy.ddp: replicate,
    Strategy.fsdp: shard,
}
