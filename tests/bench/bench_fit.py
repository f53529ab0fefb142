"""Training throughput against peers and against a single function: `python -m tests.bench.bench_fit`.

Five contenders train the same model from the same initial weights, in one process, and take turns epoch by epoch:

- `ours`     the default configuration through `fit`, timed phase by phase as in every run
- `plain`    a loop in the style of https://github.com/pytorch/examples/blob/main/mnist/main.py
- `lightning`, `accelerate`    typical user code; all their optional features are switched off
- `by_hand`  the optimizations of `ours` in one function, without recipe and capture

Equal for all: data, initial weights, batch size, epochs, learning rates, label smoothing, weight decay, dropout, shift
and noise of the images, and `keep_heap=false`, because that setting would affect all contenders of the process. The
peers call our vectorized preprocessing; they use a DataLoader over a TensorDataset, float32, NCHW, AdamW with its
defaults, and no metrics in training, which favors them. `ours` and `by_hand` use resident tensors, bf16, channels last,
fused AdamW and reused buffers, and compute the running loss, the confusion matrix and the check for non-finite loss at
every step; these two end with identical weights.

Timings within one process are correlated (docs/measurement.md), so all contenders share one. Every second round runs in
reverse, so that drift cancels in the paired ratio, and the first contender rotates. Building, two epochs of warm-up and
Lightning's set-up in each call of `fit` are not timed. Then `ours` and `by_hand` run with more seeds, because their
target needs a narrower interval, and with a second `by_hand`: the difference of the two `by_hand` is the noise floor.
"""

import copy
import dataclasses
import logging
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import accelerate  # type: ignore[import-untyped]
import hydra
import lightning
import msgspec
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from profiling.capture import TimedCapture
from profiling.verdict import stats
from tests.bench.targets import Finding, out_argument, ratio, report
from train import environment, session, variants
from train.config import cli
from train.config.compose import to_config
from train.config.options import Buffers, MemoryFormat, Precision
from train.config.schema import Config
from train.data import TensorSplit
from train.session import Session

SEEDS = range(3)  # of all contenders
DUEL_SEEDS = range(3, 17)  # of the contenders in DUEL
PEERS = ("plain", "lightning", "accelerate")
DUEL = ("ours", "by_hand", "by_hand_again")


class Contender(NamedTuple):
    """A model in training; `epoch` trains it for one pass and returns the seconds."""

    module: nn.Module
    epoch: Callable[[], float]


class Series(NamedTuple):
    """One contender over several seeds."""

    epoch_s: list[float]  # [seeds * epochs]
    accuracy: list[float]  # [seeds], held out
    weights: list[int]  # [seeds], fingerprints


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


def with_accelerate(parts: Session) -> Contender:
    accelerator = accelerate.Accelerator()
    module, optimizer, loader, preprocess = as_users_write(parts)
    model, optimizer, loader, schedule = accelerator.prepare(module, optimizer, loader, schedule_of(optimizer, parts))

    def epoch() -> None:
        model.train()
        for images, labels in loader:
            optimizer.zero_grad()
            loss = loss_of(model(preprocess(images)), labels, parts.config)
            accelerator.backward(loss)
            optimizer.step()
            schedule.step()

    return Contender(module, partial(seconds, parts.device, epoch))


class Lit(lightning.LightningModule):
    """The LightningModule of Lightning's own first example, with our model and preprocessing."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: AdamW,
        schedule: LambdaLR,
        preprocess: Callable[[Tensor], Tensor],
        parts: Session,
    ) -> None:
        super().__init__()
        self.module, self.optimizer, self.schedule, self.preprocess, self.parts = (
            module,
            optimizer,
            schedule,
            preprocess,
            parts,
        )

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        images, labels = batch
        return loss_of(self.module(self.preprocess(images)), labels, self.parts.config)

    def configure_optimizers(self) -> Any:
        return {"optimizer": self.optimizer, "lr_scheduler": {"scheduler": self.schedule, "interval": "step"}}


class Stopwatch(lightning.Callback):
    """Times the training of `Trainer.fit` without the set-up of each call."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        synchronize(pl_module.device)
        self.start = time.perf_counter()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        synchronize(pl_module.device)
        self.seconds = time.perf_counter() - self.start


def with_lightning(parts: Session) -> Contender:
    module, optimizer, loader, preprocess = as_users_write(parts)
    lit = Lit(module, optimizer, schedule_of(optimizer, parts), preprocess, parts)
    stopwatch = Stopwatch()
    trainer = lightning.Trainer(
        max_epochs=0,
        callbacks=[stopwatch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )

    def epoch() -> float:
        trainer.fit_loop.max_epochs = trainer.current_epoch + 1  # continue after the last call's epoch
        trainer.fit(lit, loader)
        return stopwatch.seconds

    return Contender(module, epoch)


CONTENDERS: Mapping[str, Callable[[Session], Contender]] = {
    "ours": ours,
    "by_hand": by_hand,
    "plain": plain,
    "lightning": with_lightning,
    "accelerate": with_accelerate,
    "by_hand_again": by_hand,
}


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


@torch.inference_mode()
def accuracy(module: nn.Module, parts: Session) -> float:
    """Accuracy on the test split, in float32 for every contender."""
    assert isinstance(parts.data.test, TensorSplit)
    module.eval()
    images, labels = parts.data.test.images.to(parts.device), parts.data.test.labels.to(parts.device)
    logits = module(parts.recipe.preprocess_eval(images))
    return float((logits.argmax(dim=1) == labels).float().mean())


def train_in_turns(config: Config, names: Sequence[str], seeds: Iterable[int]) -> dict[str, Series]:
    """Train the contenders from scratch with each seed, in turns of one epoch."""
    series = {name: Series([], [], []) for name in names}
    for seed in seeds:
        parts = session.prepare(dataclasses.replace(config, seed=seed))
        contenders = {name: CONTENDERS[name](parts) for name in names}
        for epoch in range(config.epochs):
            first = epoch // 2 % len(names)
            order = [*names[first:], *names[:first]]
            for name in order if epoch % 2 == 0 else reversed(order):
                torch.manual_seed(epoch)  # dropout draws from torch's default generator, which all contenders share
                series[name].epoch_s.append(contenders[name].epoch())
        for name, contender in contenders.items():
            series[name].accuracy.append(accuracy(contender.module, parts))
            series[name].weights.append(fingerprint(contender.module))
    return series


def run() -> tuple[list[Finding], dict[str, Any]]:
    """Train with every seed; returns the findings and the data that they were computed from."""
    cli.register()
    with hydra.initialize_config_module("configs", version_base="1.3"):
        config = to_config(hydra.compose("config", overrides=["keep_heap=false"]))
    parts = session.prepare(config)
    samples = len(parts.data.train)
    train_in_turns(dataclasses.replace(config, epochs=2), list(CONTENDERS), [config.seed])  # warm-up
    everyone = train_in_turns(config, [*PEERS, "ours", "by_hand"], SEEDS)
    duel = train_in_turns(config, DUEL, DUEL_SEEDS)
    same = all(rounds["ours"].weights == rounds["by_hand"].weights for rounds in (everyone, duel))
    findings = [
        ratio(f"samples/s, ours / {name}", faster(everyone["ours"], everyone[name]), at_least=1.8) for name in PEERS
    ]
    findings += [
        ratio("samples/s, ours / by_hand", faster(duel["ours"], duel["by_hand"]), at_least=0.97),
        ratio("samples/s, by_hand / itself: noise", faster(duel["by_hand"], duel["by_hand_again"])),
    ]
    details = {
        "samples_per_s": {name: samples / statistics.median(series.epoch_s) for name, series in everyone.items()},
        "held_out_accuracy": {name: series.accuracy for name, series in everyone.items()},
        "ours_and_by_hand_end_with_identical_weights": same,
        "samples_per_epoch": samples,
        "epoch_s": {name: series.epoch_s for name, series in everyone.items()},
        "duel_epoch_s": {name: series.epoch_s for name, series in duel.items()},
        "environment": msgspec.to_builtins(environment.describe(parts.device, parts.precision)),
    }
    return findings, details


def faster(first: Series, second: Series) -> stats.Effect:
    """Log ratio of the samples per second of `first` to those of `second`."""
    return stats.median_effect(first.epoch_s, second.epoch_s)


def fingerprint(module: nn.Module) -> int:
    """A hash of the weights."""
    return hash(tuple(value.detach().cpu().numpy().tobytes() for value in module.state_dict().values()))


def print_contenders(details: Mapping[str, Any]) -> None:
    """Print throughput and accuracy, one row per contender."""
    table = Table("contender", "samples/s", "held-out accuracy, each seed", title="Training", title_justify="left")
    for name, rate in details["samples_per_s"].items():
        table.add_row(name, f"{rate:,.0f}", " ".join(f"{share:.4f}" for share in details["held_out_accuracy"][name]))
    Console().print(table)
    same = details["ours_and_by_hand_end_with_identical_weights"]
    Console().print(f"ours and by_hand end with identical weights: {'yes' if same else 'NO'}")


def main() -> None:
    """Measure, print, write."""
    out: Path | None = out_argument(__doc__)
    warnings.filterwarnings("ignore", module="lightning")  # advice about loggers and the number of workers
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    findings, details = run()
    print_contenders(details)
    report("Default fit, paired by epoch", findings, details, out)


if __name__ == "__main__":
    main()
