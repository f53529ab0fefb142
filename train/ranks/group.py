"""A group of ranks: each trains with its share of every batch; gradients and metrics are those of whole batches."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from profiling.errors import UserError
from train.batches import Batch, Batches
from train.config.schema import DataConfig, DownloadDataConfig
from train.data import DataSet, load
from train.loop import EpochMetrics
from train.ranks.alone import Own
from train.ranks.exchange import ACCUMULATION, DIVISION, LOSS
from train.ranks.launch import Launch
from train.ranks.options import DDPConfig, Strategy
from train.ranks.order import Share, order_of
from train.ranks.rank_model import STRATEGY
from train.ranks.scratch import only_writer, scratch_folder
from train.ranks.state_dicts import STATE_DICTS
from train.ranks.store import Board
from train.variants import Recipe

BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl", "xpu": "cpu:gloo,xpu:xccl"}
"""Of each kind of device; with an accelerator, metrics may still be on the CPU."""

_SEEDS_APART = 0x9E3779B1  # an odd constant: no seed that a user types for another run


class Ranks:
    """The ranks that torchrun started, as one of them sees them: a `train.ranks.alone.RankGroup`."""

    def __init__(self, launch: Launch, board: Board, strategy: Strategy, ddp: DDPConfig) -> None:
        self.rank = launch.rank
        self.ranks = launch.ranks
        self.share: Share = partial(DIVISION[ddp.division], launch.rank, launch.ranks)
        self.agree = board.agree
        self.all_end_after = board.all_end_after
        self.state_dicts = STATE_DICTS[strategy]
        self._strategy = strategy
        self._launch = launch
        self._board = board
        self._ddp = ddp

    def device(self, device: torch.device) -> torch.device:
        """The accelerator with the number of this rank on its machine.

        Raises:
            UserError: there are fewer of them than ranks.
        """
        if device.type == "cpu":
            return device
        count = torch.accelerator.device_count()
        if count < self._launch.local_ranks:
            raise UserError(
                f"device={device.type}: {count} here for {self._launch.local_ranks} ranks; "
                f"start torchrun with --nproc-per-node {count}, or give device=cpu"
            )
        torch.accelerator.set_device_index(self._launch.local_rank)
        return torch.device(device.type, self._launch.local_rank)

    def load(self, data: DataConfig) -> DataSet:
        """Load the data set; the first rank of a machine downloads what is missing, and the others wait for it."""
        if not isinstance(data, DownloadDataConfig):
            return load(data)
        return self._board.in_turn("data", partial(load, data))

    def own_random(self, augmentation: torch.Generator) -> None:
        """Seed augmentation and dropout anew in all ranks but the first, which goes on as if it was alone."""
        if self.rank:
            seed = (augmentation.initial_seed() + self.rank * _SEEDS_APART) % 2**63
            augmentation.manual_seed(seed)
            torch.manual_seed(seed)

    def parallel(
        self, module: nn.Module, recipe: Recipe, train_batches: Batches, test_batches: Batches
    ) -> tuple[nn.Module, Recipe, Batches, Batches]:
        """Let the mean of the ranks' gradients be that of the whole batch, also where their shares differ in size."""
        ddp = self._ddp
        model = STRATEGY[self._strategy](module, ddp)
        between_exchanges = ACCUMULATION[ddp.accumulation]
        shares = Shares(train_batches)

        def loss(logits: Tensor, labels: Tensor, own_samples: int) -> Tensor:
            return recipe.loss(logits, labels, shares.batch_samples) * self.ranks

        def micro_batches(images: Tensor, labels: Tensor) -> Iterator[Batch]:
            # As many as rank 0 has, whose share is the largest: each may be an exchange, in which all take part.
            largest = labels.new_empty(len(DIVISION[ddp.division](0, self.ranks, range(shares.batch_samples))))
            count = len(list(recipe.micro_batches(largest, largest)))
            *first, last = [*recipe.micro_batches(images, labels), *repeat((images[:0], labels[:0]), count)][:count]
            for part in first:
                with between_exchanges(model):
                    yield part
            yield last

        running_loss = LOSS[ddp.loss](recipe.running_loss)
        of_ranks = replace(recipe, loss=loss, micro_batches=micro_batches, running_loss=running_loss)
        return model, of_ranks, shares, Shares(test_batches)

    def same_buffers(self, module: nn.Module) -> None:
        """Send the buffers of rank 0, such as batch norm's running statistics, to all others."""
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)

    def total(self, metrics: EpochMetrics) -> EpochMetrics:
        """Add up the metrics of all shares: counts exactly, sums in float64."""
        sums = torch.stack([metrics.loss.detach().double(), metrics.brier.double()])
        counts = torch.cat([metrics.confusion.flatten(), metrics.confusion.new_tensor([metrics.samples])])
        dist.all_reduce(sums)
        dist.all_reduce(counts)
        return EpochMetrics(
            loss=sums[0],
            brier=sums[1],
            confusion=counts[:-1].view_as(metrics.confusion),
            steps=metrics.steps,
            samples=int(counts[-1]),
        )

    def summed(self, figures: Mapping[str, float]) -> dict[str, float]:
        """The sums of all ranks' figures."""
        sums = torch.tensor(list(figures.values()), dtype=torch.float64)
        dist.all_reduce(sums)
        return dict(zip(figures, sums.tolist(), strict=True))

    def of_first(self, numbers: tuple[int, int]) -> tuple[int, int]:
        """The numbers that rank 0 gives, in all ranks."""
        sent = torch.tensor(numbers)
        dist.broadcast(sent, src=0)
        first, second = sent.tolist()
        return first, second

    def gathered(self, own: Own) -> list[Own]:
        """What all ranks give, in rank 0; nothing in the others."""
        objects: list[Any] = [None] * self.ranks
        dist.gather_object(own, None if self.rank else objects, dst=0)
        return [] if self.rank else objects

    def own_folder(self, folder: Path) -> AbstractContextManager[Path]:
        """`folder` for rank 0; for the others one that is removed: what they leave there is the same."""
        return scratch_folder() if self.rank else only_writer(folder)


class Shares:
    """This rank's shares of the batches of a pass.

    Attributes:
        batch_samples: size of the whole batch, of all ranks, whose share was yielded last.
    """

    def __init__(self, source: Batches) -> None:
        self.source = source
        self.order = order_of(source)
        self.batch_samples = self.order.batch_size

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[Batch]:
        for (images, labels), batch in zip(self.source, self.order.batches(), strict=True):
            self.batch_samples = len(batch)
            own = len(self.order.share(batch))
            yield images[:own], labels[:own]
