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

import dataclasses
import logging
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
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from profiling.verdict import stats
from tests.bench.contenders import (
    Contender,
    as_users_write,
    by_hand,
    loss_of,
    ours,
    plain,
    schedule_of,
    seconds,
    synchronize,
)
from tests.bench.targets import Finding, out_argument, ratio, report
from train import environment, session
from train.config import cli
from train.config.compose import to_config
from train.config.schema import Config
from train.data import TensorSplit
from train.session import Session

SEEDS = range(3)  # of all contenders
DUEL_SEEDS = range(3, 17)  # of the contenders in DUEL
PEERS = ("plain", "lightning", "accelerate")
DUEL = ("ours", "by_hand", "by_hand_again")


class Series(NamedTuple):
    """One contender over several seeds."""

    epoch_s: list[float]  # [seeds * epochs]
    accuracy: list[float]  # [seeds], held out
    weights: list[int]  # [seeds], fingerprints


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
    return stats.paired_effect(first.epoch_s, second.epoch_s)


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
