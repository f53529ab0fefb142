"""Batch sources: the whole split on the device, or torch's DataLoader.

Both yield the same batches in the same order for the same seed, so runs with different sources are comparable.
"""

import warnings
from collections.abc import Iterator
from typing import Protocol

import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from profiling.errors import UserError
from train.config.options import Source
from train.config.schema import Loader
from train.data import FileSplit, TensorSplit
from train.ranks.launch import cores_of_rank
from train.ranks.order import Order, Share, whole
from train.ranks.workers import ignore_signals, kill_at_exit

Batch = tuple[Tensor, Tensor]  # images uint8 [B, C, H, W], labels int64 [B]
Split = TensorSplit | FileSplit


class Batches(Protocol):
    """One pass over a split for each `iter()`."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Batch]: ...


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


def dataloader(split: Split, loader: Loader, workers: int, device: torch.device, order: Order) -> DataLoader[Batch]:
    """torch.utils.data.DataLoader over single samples, in the same order as `Resident` for the same generator.

    https://docs.pytorch.org/docs/stable/data.html
    """
    # More workers than cores are allowed, since they may wait for files. torch warns here and at every new iterator.
    warnings.filterwarnings("ignore", "This DataLoader will create")
    kill_at_exit()
    return DataLoader(
        split,
        batch_sampler=order,
        num_workers=workers,
        pin_memory=loader.pin_memory and device.type != "cpu",
        persistent_workers=loader.persistent_workers and workers > 0,
        prefetch_factor=loader.prefetch_factor if workers > 0 else None,
        # Seeds the workers. Otherwise torch's default generator would, which also drives dropout.
        generator=torch.Generator(),
        worker_init_fn=ignore_signals,
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
