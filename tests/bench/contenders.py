"""One training by three hands, without a package beyond our own: `ours`, `plain` and `by_hand`, see `bench_fit`."""

import copy
import dataclasses
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from profiling.capture import TimedCapture
from train import session, variants
from train.config.options import Buffers, MemoryFormat, Precision
from train.config.schema import Config
from train.data import TensorSplit
from train.session import Session


class Contender(NamedTuple):
    """A model in training; `epoch` trains it for one pass and returns the seconds."""

    module: nn.Module
    epoch: Callable[[], float]


def ours(parts: Session) -> Contender:
    capture = TimedCapture(parts.device)

    def epoch() -> None:
        with capture:
            parts.fit(parts.train_batches, capture).mean_loss()

    return Contender(parts.module, partial(seconds, parts.device, epoch))


def by_hand(parts: Session) -> Contender:
    config, data, device = parts.config, parts.data, parts.device
    module = copy.deepcopy(parts.module).to(memory_format=torch.channels_last)
    optimizer = AdamW(module.parameters(), **optimizer_fields(config), fused=True)
    schedule = schedule_of(optimizer, parts)
    split = tensors(parts)
    images, labels = split.images.to(device), split.labels.to(device)
    size, pad, classes = data.image_size, config.augment.shift, len(data.classes)
    order = torch.Generator().manual_seed(config.seed)
    random = torch.Generator(device).manual_seed(config.seed)
    mean = torch.tensor(data.mean, device=device).mul(255).view(-1, 1, 1)
    deviation = torch.tensor(data.std, device=device).mul(255).view(-1, 1, 1)
    window = (torch.arange(size)[:, None] * (size + 2 * pad) + torch.arange(size)).flatten().to(device)
    shape = (config.batch_size or len(labels), data.channels, size, size)
    all_noise = torch.empty(shape, device=device)
    all_inputs = torch.empty(shape, device=device, memory_format=torch.channels_last)

    def epoch() -> None:
        module.train()
        loss_sum = torch.zeros((), device=device)
        confusion = torch.zeros(classes * classes, dtype=torch.int64, device=device)
        for index in torch.split(torch.randperm(len(labels), generator=order).to(device), shape[0]):
            pixels, truth, batch = images[index], labels[index], len(index)
            offset = torch.randint(0, 2 * pad + 1, (batch, 2), generator=random, device=device)
            noise = all_noise[:batch].normal_(generator=random)
            corner = offset[:, 0] * (size + 2 * pad) + offset[:, 1]
            gathered = (corner[:, None] + window)[:, None].expand(-1, data.channels, -1)
            shifted = F.pad(pixels, (pad,) * 4).flatten(2).gather(2, gathered).view(batch, *shape[1:])
            inputs = torch.sub(shifted, mean, out=all_inputs[:batch])
            inputs.div_(deviation).add_(noise, alpha=config.augment.noise)
            with torch.autocast(device.type, torch.bfloat16):
                logits = module(inputs).float()
            loss = F.cross_entropy(logits, truth, reduction="sum", label_smoothing=config.label_smoothing) / batch
            if not math.isfinite(loss.item()):
                raise FloatingPointError(f"the loss is {loss.item()}")
            loss.backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                loss_sum += F.cross_entropy(logits, truth, reduction="sum")
                cell = truth * classes + logits.argmax(dim=1)
                confusion.index_add_(0, cell, torch.ones_like(cell))
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        loss_sum.item()

    return Contender(module, partial(seconds, device, epoch))


def plain(parts: Session) -> Contender:
    device = parts.device
    module, optimizer, loader, preprocess = as_users_write(parts)
    schedule = schedule_of(optimizer, parts)

    def epoch() -> None:
        module.train()
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = loss_of(module(preprocess(images)), labels, parts.config)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()

    return Contender(module, partial(seconds, device, epoch))


def as_users_write(
    parts: Session,
) -> tuple[nn.Module, AdamW, DataLoader[tuple[Tensor, ...]], Callable[[Tensor], Tensor]]:
    """Model, optimizer, batches and preprocessing of the peers, without optimizations."""
    config = parts.config
    module = copy.deepcopy(parts.module).to(memory_format=torch.contiguous_format)
    optimizer = AdamW(module.parameters(), **optimizer_fields(config))
    split = tensors(parts)
    order = torch.Generator().manual_seed(config.seed)
    loader = DataLoader(
        TensorDataset(split.images, split.labels), batch_size=config.batch_size, shuffle=True, generator=order
    )
    switches = dataclasses.replace(config.switches, buffers=Buffers.fresh, memory_format=MemoryFormat.contiguous)
    random = variants.random_generator(config, parts.device)
    recipe = variants.resolve(
        dataclasses.replace(config, switches=switches), Precision.fp32, parts.device, parts.data, random
    )
    return module, optimizer, loader, recipe.preprocess_train


def tensors(parts: Session) -> TensorSplit:
    assert isinstance(parts.data.train, TensorSplit)
    return parts.data.train


def optimizer_fields(config: Config) -> dict[str, Any]:
    return {"lr": config.optimizer.lr, "weight_decay": config.optimizer.weight_decay, "betas": config.optimizer.betas}


def schedule_of(optimizer: AdamW, parts: Session) -> LambdaLR:
    steps = parts.config.epochs * len(parts.train_batches)
    return LambdaLR(optimizer, partial(session.lr_factor, parts.config.schedule, steps))


def loss_of(logits: Tensor, labels: Tensor, config: Config) -> Tensor:
    return F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()


def seconds(device: torch.device, work: Callable[[], None]) -> float:
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start
