"""Which samples each batch of a pass has, and which of them this process takes."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

Share = Callable[[range], range]
"""From the places of a batch in the order of a pass to those that this process takes."""


def whole(batch: range, /) -> range:
    """All of the batch, where one process trains."""
    return batch


class Order(Sampler[list[int]]):
    """Which samples each batch of a pass has: DataLoader's `batch_sampler`.

    Args:
        samples: size of the split.
        batch_size: samples per batch, of all processes together; the last batch of a pass may be smaller.
        generator: draws a new order for each pass; None keeps the order of the split.
        share: the part of each batch that is yielded; where it is empty, one sample stands in.

    Attributes:
        skipped: batches at the beginning of a pass that are not yielded, since an interrupted run has had them.
        state_of_pass: state of the generator before it drew the order of the pass in progress.
    """

    def __init__(self, samples: int, batch_size: int, generator: torch.Generator | None, share: Share) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.generator = generator
        self.share = share
        self.skipped = 0
        self.state_of_pass: Tensor | None = None

    def __len__(self) -> int:
        return math.ceil(self.samples / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = self.draw()
        for part in self.parts():
            yield list(part) if order is None else order[part.start : part.stop].tolist()

    def draw(self) -> Tensor | None:
        """A new order, int64 [samples]; None for that of the split."""
        if self.generator is None:
            return None
        self.state_of_pass = self.generator.get_state()
        return torch.randperm(self.samples, generator=self.generator)

    def parts(self) -> Iterator[range]:
        """The places of this process' samples in the order, batch by batch."""
        for batch in self.batches():
            yield self.share(batch) or batch[:1]

    def batches(self) -> Iterator[range]:
        """The places of each batch of a pass, of all processes together."""
        for start in range(self.skipped * self.batch_size, self.samples, self.batch_size):
            yield range(start, min(start + self.batch_size, self.samples))

    def sizes(self) -> list[int]:
        """The size of this process' share of a batch, and that of the last one, if that batch is smaller."""
        first, last = min(self.batch_size, self.samples), self.samples % self.batch_size
        return [len(self.share(range(size))) for size in (first, last % first) if size]


def order_of(batches: Any) -> Order:
    """The order of a source that `train.batches.make_batches` made, or that holds one."""
    order = batches.batch_sampler if isinstance(batches, DataLoader) else batches.order
    assert isinstance(order, Order)
    return order
