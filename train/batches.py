"""Batch sources: the whole split on the device, or torch's DataLoader.

Both yield the same batches in the same order for the same seed, so runs with different sources are comparable.
"""

import math
import os
import warnings
from collections.abc import Iterator
from typing import Protocol

import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, SequentialSampler

from profiling.errors import UserError
from train.config.options import Source
from train.config.schema import Loader
from train.data import FileSplit, TensorSplit

Batch = tuple[Tensor, Tensor]  # images uint8 [B, C, H, W], labels int64 [B]
Split = TensorSplit | FileSplit


class Batches(Protocol):
    """One pass over a split for each `iter()`."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Batch]: ...


class Resident:
    """The whole split as tensors on the device; a batch is one indexing operation.

    Args:
        split: images and labels in memory.
        device: device of the batches.
        batch_size: samples per batch; the last batch of a pass may be smaller.
        generator: draws a new order for each pass; None keeps the order of the split.
    """

    def __init__(
        self, split: TensorSplit, device: torch.device, batch_size: int, generator: torch.Generator | None
    ) -> None:
        self.images = split.images.to(device)
        self.labels = split.labels.to(device)
        self.batch_size = batch_size
        self.generator = generator

    def __len__(self) -> int:
        return math.ceil(len(self.labels) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        starts = range(0, len(self.labels), self.batch_size)
        if self.generator is None:
            yield from ((self.images[i : i + self.batch_size], self.labels[i : i + self.batch_size]) for i in starts)
            return
        order = torch.randperm(len(self.labels), generator=self.generator).to(self.images.device)
        for start in starts:
            indices = order[start : start + self.batch_size]
            yield self.images[indices], self.labels[indices]


class Shuffled(Sampler[int]):
    """A new order for each pass, drawn as in `Resident`; torch's RandomSampler would advance the generator further."""

    def __init__(self, samples: int, generator: torch.Generator) -> None:
        self.samples = samples
        self.generator = generator

    def __len__(self) -> int:
        return self.samples

    def __iter__(self) -> Iterator[int]:
        yield from torch.randperm(self.samples, generator=self.generator).tolist()


def dataloader(
    split: Split, loader: Loader, workers: int, device: torch.device, batch_size: int, generator: torch.Generator | None
) -> DataLoader[Batch]:
    """torch.utils.data.DataLoader over single samples, in the same order as `Resident` for the same generator.

    https://docs.pytorch.org/docs/stable/data.html
    """
    sampler = SequentialSampler(split) if generator is None else Shuffled(len(split), generator)
    # More workers than cores are allowed, since they may wait for files. torch warns here and at every new iterator.
    warnings.filterwarnings("ignore", "This DataLoader will create")
    return DataLoader(
        split,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        pin_memory=loader.pin_memory and device.type != "cpu",
        persistent_workers=loader.persistent_workers and workers > 0,
        prefetch_factor=loader.prefetch_factor if workers > 0 else None,
        # Seeds the workers. Otherwise torch's default generator would, which also drives dropout.
        generator=torch.Generator(),
    )


def make_batches(
    split: Split, loader: Loader, device: torch.device, batch_size: int, generator: torch.Generator | None = None
) -> Batches:
    """The batch source that `loader` configures.

    Raises:
        UserError: `loader.source` is resident, and the split is not in memory or does not fit on the device.
    """
    workers = worker_count(split, loader)
    if source_of(split, loader, device) is Source.dataloader:
        return dataloader(split, loader, workers, device, batch_size, generator)
    if isinstance(split, FileSplit):
        raise UserError("loader.source=resident: the images are files that are decoded batch by batch; use dataloader")
    if not _fits(split, device):
        raise UserError(f"loader.source=resident: {split.images.nbytes:,} bytes do not fit on {device}; use dataloader")
    return Resident(split, device, batch_size, generator)


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
    return usable_cores() if isinstance(split, FileSplit) else 0


def usable_cores() -> int:
    """Cores that this process may use: fewer than the machine has under taskset, in a container or on a cluster."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fits(split: TensorSplit, device: torch.device) -> bool:
    """Whether the split takes at most half of the device's free memory; the model needs the rest."""
    if device.type == "cpu":
        free = psutil.virtual_memory().available
    elif device.type in ("cuda", "xpu"):
        free = torch.accelerator.get_memory_info(device)[0]
    else:
        return True  # unified memory already holds the split
    return split.images.nbytes <= free / 2
