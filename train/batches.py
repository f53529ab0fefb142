"""Batch sources: the whole split on the device, or torch's DataLoader.

Both yield the same batches in the same order for the same seed, so runs with different sources are comparable.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Protocol

import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from profiling.errors import UserError
from train.config.options import Source
from train.config.schema import Loader
from train.data import FileSplit, TensorSplit
from train.ranks.launch import cores_of_rank

Batch = tuple[Tensor, Tensor]  # images uint8 [B, C, H, W], labels int64 [B]
Split = TensorSplit | FileSplit


class Batches(Protocol):
    """One pass over a split for each `iter()`."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Batch]: ...


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
    """

    def __init__(self, samples: int, batch_size: int, generator: torch.Generator | None, share: Share) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.generator = generator
        self.share = share

    def __len__(self) -> int:
        return math.ceil(self.samples / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = self.draw()
        for part in self.parts():
            yield list(part) if order is None else order[part.start : part.stop].tolist()

    def draw(self) -> Tensor | None:
        """A new order, int64 [samples]; None for that of the split."""
        return None if self.generator is None else torch.randperm(self.samples, generator=self.generator)

    def parts(self) -> Iterator[range]:
        """The places of this process' samples in the order, batch by batch."""
        for batch in self.batches():
            yield self.share(batch) or batch[:1]

    def batches(self) -> Iterator[range]:
        """The places of each batch of a pass, of all processes together."""
        for start in range(0, self.samples, self.batch_size):
            yield range(start, min(start + self.batch_size, self.samples))

    def sizes(self) -> list[int]:
        """The size of this process' share of a batch, and that of the last one, if that batch is smaller."""
        first, last = min(self.batch_size, self.samples), self.samples % self.batch_size
        return [len(self.share(range(size))) for size in (first, last % first) if size]


class Resident:
    """The whole split as tensors on the device; a batch is one indexing operation, or a view in the split's order."""

    def __init__(self, split: TensorSplit, device: torch.device, order: Order) -> None:
        self.images = split.images.to(device)
        self.labels = split.labels.to(device)
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        order = self.order.draw()
        order = order if order is None else order.to(self.images.device)
        for part in self.order.parts():
            places = slice(part.start, part.stop)
            indices = places if order is None else order[places]
            yield self.images[indices], self.labels[indices]


def order_of(batches: Batches) -> Order:
    """The order of a source that `make_batches` made."""
    order = batches.batch_sampler if isinstance(batches, DataLoader) else getattr(batches, "order", None)
    assert isinstance(order, Order)
    return order


def dataloader(split: Split, loader: Loader, workers: int, device: torch.device, order: Order) -> DataLoader[Batch]:
    """torch.utils.data.DataLoader over single samples, in the same order as `Resident` for the same generator.

    https://docs.pytorch.org/docs/stable/data.html
    """
    # More workers than cores are allowed, since they may wait for files. torch warns here and at every new iterator.
    warnings.filterwarnings("ignore", "This DataLoader will create")
    return DataLoader(
        split,
        batch_sampler=order,
        num_workers=workers,
        pin_memory=loader.pin_memory and device.type != "cpu",
        persistent_workers=loader.persistent_workers and workers > 0,
        prefetch_factor=loader.prefetch_factor if workers > 0 else None,
        # Seeds the workers. Otherwise torch's default generator would, which also drives dropout.
        generator=torch.Generator(),
    )


def make_batches(
    split: Split,
    loader: Loader,
    device: torch.device,
    batch_size: int,
    generator: torch.Generator | None = None,
    share: Share = whole,
) -> Batches:
    """The batch source that `loader` configures.

    Raises:
        UserError: `loader.source` is resident, and the split is not in memory or does not fit on the device.
    """
    workers, order = worker_count(split, loader), Order(len(split), batch_size, generator, share)
    if source_of(split, loader, device) is Source.dataloader:
        return dataloader(split, loader, workers, device, order)
    if isinstance(split, FileSplit):
        raise UserError("loader.source=resident: the images are files that are decoded batch by batch; use dataloader")
    if not _fits(split, device):
        raise UserError(f"loader.source=resident: {split.images.nbytes:,} bytes do not fit on {device}; use dataloader")
    return Resident(split, device, order)


def source_of(split: Split, loader: Loader, device: torch.device) -> Source:
    """`loader.source` with `auto` resolved: resident if the split is in memory, fits, and `workers` is null or 0."""
    if loader.source is not Source.auto:
        return loader.source
    resident = isinstance(split, TensorSplit) and not loader.workers and _fits(split, device)
    return Source.resident if resident else Source.dataloader


def worker_count(split: Split, loader: Loader) -> int:
    """`loader.workers` with null resolved: one per core if files must be decoded, else 0."""
    if loader.workers is not None:
        return loader.workers
    return cores_of_rank() if isinstance(split, FileSplit) else 0


def _fits(split: TensorSplit, device: torch.device) -> bool:
    """Whether the split takes at most half of the device's free memory; the model needs the rest."""
    if device.type == "cpu":
        free = psutil.virtual_memory().available
    elif device.type in ("cuda", "xpu"):
        free = torch.accelerator.get_memory_info(device)[0]
    else:
        return True  # unified memory already holds the split
    return split.images.nbytes <= free / 2
