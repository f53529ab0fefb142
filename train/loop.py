"""fit, train_step, evaluate, infer: the loop, as prose. Both arms of every comparison run these lines.

Whatever can be done in more than one way is a callable of the recipe; whatever is measured goes through the capture.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from profiling.capture import Capture
from train.batches import Batch, Batches
from train.variants import Recipe


@dataclass
class EpochMetrics:
    """What an epoch adds up, on the metrics' device.

    Attributes:
        loss: float32 [], summed cross-entropy in nats.
        brier: float32 [], summed Brier score.
        confusion: int64 [C, C], row = label, column = prediction.
        steps: updates, or batches in evaluation.
        samples: images.
    """

    loss: Tensor
    brier: Tensor
    confusion: Tensor
    steps: int = 0
    samples: int = 0

    def mean_loss(self) -> float:
        """Nats per image."""
        return self.loss.item() / self.samples

    def mean_brier(self) -> float:
        """Brier score per image, 0 to 2."""
        return self.brier.item() / self.samples

    def accuracy(self) -> float:
        """Share of images whose label was predicted, 0 to 1."""
        return self.confusion.trace().item() / self.samples


def new_metrics(recipe: Recipe, device: torch.device, classes: int) -> EpochMetrics:
    """Zeros, where the recipe computes metrics."""
    zero = recipe.to_metrics(torch.zeros((), device=device))
    return EpochMetrics(zero, zero.clone(), torch.zeros((classes, classes), dtype=torch.int64, device=zero.device))


def fit(
    model: nn.Module,
    optimizer: Optimizer,
    schedule: LRScheduler,
    batches: Batches,
    recipe: Recipe,
    capture: Capture,
    new_metrics: Callable[[], EpochMetrics],
    after_step: Callable[[EpochMetrics], None],
) -> EpochMetrics:
    """Train for one pass over `batches`.

    Args:
        model: float images [B, C, H, W] -> logits [B, classes].
        optimizer: updated once a batch.
        schedule: advanced once a batch.
        batches: the pass.
        recipe: how each thing is done.
        capture: what is measured.
        new_metrics: makes the metrics that the pass adds to.
        after_step: told after every update, as part of the step.

    Raises:
        UserError: the loss became non-finite.
    """
    model.train()
    metrics = new_metrics()
    for batch in timed_batches(batches, capture):
        train_step(model, optimizer, schedule, batch, recipe, capture, metrics)
        after_step(metrics)
        capture.step(len(batch[1]))
    return metrics


def train_step(
    model: nn.Module,
    optimizer: Optimizer,
    schedule: LRScheduler,
    batch: Batch,
    recipe: Recipe,
    capture: Capture,
    metrics: EpochMetrics,
) -> None:
    """One update of the parameters, from one batch: images uint8 [B, C, H, W], labels int64 [B]."""
    with capture.phase("transfer"):
        images, labels = recipe.transfer(batch)
    with capture.phase("preprocess"):
        inputs = recipe.preprocess_train(images)  # float32 [B, C, H, W]
    for part_inputs, part_labels in recipe.micro_batches(inputs, labels):
        with capture.phase("forward"), recipe.autocast():
            logits = model(part_inputs).float()  # [B, classes]
        with capture.phase("loss"):
            loss = recipe.loss(logits, part_labels, len(labels))
            recipe.check_finite(metrics.steps, model, part_inputs, logits, loss)
        with capture.phase("backward"):
            recipe.backward(loss)
        with capture.phase("metrics"):
            scored, truth = recipe.to_metrics(logits), recipe.to_metrics(part_labels)
            metrics.loss = recipe.running_loss(metrics.loss, scored, truth)
            recipe.confusion(metrics.confusion, scored.detach(), truth)
    with capture.phase("optimizer"):
        recipe.update(optimizer)
        schedule.step()
    metrics.steps += 1
    metrics.samples += len(labels)


def evaluate(
    model: nn.Module, batches: Batches, recipe: Recipe, capture: Capture, new_metrics: Callable[[], EpochMetrics]
) -> EpochMetrics:
    """Loss, Brier score and confusion matrix of the model over one pass."""
    model.eval()
    metrics = new_metrics()
    with recipe.eval_context():
        for batch in timed_batches(batches, capture):
            with capture.phase("evaluate"):
                logits, labels = predict(model, batch, recipe, capture)
                with capture.phase("metrics"):
                    scored, truth = recipe.to_metrics(logits), recipe.to_metrics(labels)
                    metrics.loss = recipe.running_loss(metrics.loss, scored, truth)
                    metrics.brier.add_(recipe.brier(scored, truth).detach().sum())
                    recipe.confusion(metrics.confusion, scored, truth)
            metrics.steps += 1
            metrics.samples += len(labels)
            capture.step(len(labels))
    return metrics


def infer(model: nn.Module, batches: Batches, recipe: Recipe, capture: Capture) -> Tensor:
    """Class probabilities float32 [N, classes] of a pass; a step is one request, from images to probabilities."""
    model.eval()
    answers = []
    with recipe.eval_context():
        for batch in timed_batches(batches, capture):
            with capture.phase("infer"):
                logits, labels = predict(model, batch, recipe, capture)
                answers.append(recipe.to_metrics(logits.softmax(dim=1)).detach())
            capture.step(len(labels))
    return torch.cat(answers)


def predict(model: nn.Module, batch: Batch, recipe: Recipe, capture: Capture) -> Batch:
    """Logits [B, classes] and labels [B] of one batch."""
    with capture.phase("transfer"):
        images, labels = recipe.transfer(batch)
    with capture.phase("preprocess"):
        inputs = recipe.preprocess_eval(images)
    with capture.phase("forward"), recipe.autocast():
        logits = model(inputs).float()
    return logits, labels


def timed_batches(batches: Batches, capture: Capture) -> Iterator[Batch]:
    """The batches, with the wait for each as phase `load`."""
    source = iter(batches)
    while True:
        with capture.phase("load"):
            batch = next(source, None)
        if batch is None:
            return
        yield batch
