"""The loop: fit, train_step, evaluate, infer. Both arms of every comparison run these lines.

Every operation that has several implementations is a callable of the recipe; the capture measures steps and phases.
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
    """Metrics of one pass over a split, accumulated step by step on the device where metrics are computed.

    Attributes:
        loss: float32 [], sum of the cross-entropy over all images, in nats.
        brier: float32 [], sum of the Brier score over all images; only evaluation computes it.
        confusion: int64 [C, C], row = label, column = prediction.
        steps: number of updates in training, of batches in evaluation.
        samples: number of images.
    """

    loss: Tensor
    brier: Tensor
    confusion: Tensor
    steps: int = 0
    samples: int = 0

    def mean_loss(self) -> float:
        """Cross-entropy per image, in nats; waits for the device."""
        return self.loss.item() / self.samples

    def mean_brier(self) -> float:
        """Brier score per image, 0 to 2."""
        return self.brier.item() / self.samples

    def accuracy(self) -> float:
        """Share of images whose prediction is their label, 0 to 1."""
        return self.confusion.trace().item() / self.samples


def new_metrics(recipe: Recipe, device: torch.device, classes: int) -> EpochMetrics:
    """Metrics of zeros, on the device where the recipe computes metrics."""
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
        optimizer: updates the parameters once per batch.
        schedule: advances the learning rate once per batch.
        batches: the pass.
        recipe: the implementation of each operation.
        capture: measures each step and its phases.
        new_metrics: creates the metrics of the pass.
        after_step: called after every update, as part of the step.

    Returns:
        The metrics of the pass.

    Raises:
        UserError: the loss is not finite.
    """
    model.train()
    metrics = new_metrics()
    for batch in timed_batches(batches, capture):
        train_step(model, optimizer, schedule, batch, recipe, capture, metrics)
        after_step(metrics)
        _, labels = batch
        capture.step(len(labels))
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
    """Update the parameters with one batch, images uint8 [B, C, H, W] and labels int64 [B]; add to `metrics`."""
    with capture.phase("transfer"):
        images, labels = recipe.transfer(batch)
    with capture.phase("preprocess"):
        inputs = recipe.preprocess_train(images)  # float32 [B, C, H, W]
    for micro_inputs, micro_labels in recipe.micro_batches(inputs, labels):
        with capture.phase("forward"), recipe.autocast():
            logits = model(micro_inputs).float()  # [micro-batch, classes]
        with capture.phase("loss"):
            loss = recipe.loss(logits, micro_labels, len(labels))
            recipe.check_finite(metrics.steps, model, micro_inputs, logits, loss)
        with capture.phase("backward"):
            recipe.backward(loss)
        with capture.phase("metrics"):
            metric_logits, metric_labels = recipe.to_metrics(logits), recipe.to_metrics(micro_labels)
            metrics.loss = recipe.running_loss(metrics.loss, metric_logits, metric_labels)
            recipe.confusion(metrics.confusion, metric_logits.detach(), metric_labels)
    with capture.phase("optimizer"):
        recipe.update(optimizer)
        schedule.step()
    metrics.steps += 1
    metrics.samples += len(labels)


def evaluate(
    model: nn.Module, batches: Batches, recipe: Recipe, capture: Capture, new_metrics: Callable[[], EpochMetrics]
) -> EpochMetrics:
    """Metrics of the model over one pass: loss, Brier score and confusion matrix."""
    model.eval()
    metrics = new_metrics()
    with recipe.eval_context():
        for batch in timed_batches(batches, capture):
            with capture.phase("evaluate"):
                logits, labels = predict(model, batch, recipe, capture)
                with capture.phase("metrics"):
                    metric_logits, metric_labels = recipe.to_metrics(logits), recipe.to_metrics(labels)
                    metrics.loss = recipe.running_loss(metrics.loss, metric_logits, metric_labels)
                    metrics.brier.add_(recipe.brier(metric_logits, metric_labels).detach().sum())
                    recipe.confusion(metrics.confusion, metric_logits, metric_labels)
            metrics.steps += 1
            metrics.samples += len(labels)
            capture.step(len(labels))
    return metrics


def infer(model: nn.Module, batches: Batches, recipe: Recipe, capture: Capture) -> Tensor:
    """Class probabilities float32 [N, classes] of one pass. A step is one request: from images to probabilities."""
    model.eval()
    probabilities = []
    with recipe.eval_context():
        for batch in timed_batches(batches, capture):
            with capture.phase("infer"):
                logits, labels = predict(model, batch, recipe, capture)
                probabilities.append(recipe.to_metrics(logits.softmax(dim=1)).detach())
            capture.step(len(labels))
    return torch.cat(probabilities)


def predict(model: nn.Module, batch: Batch, recipe: Recipe, capture: Capture) -> Batch:
    """Logits float32 [B, classes] and labels int64 [B] of one batch, on the model's device."""
    with capture.phase("transfer"):
        images, labels = recipe.transfer(batch)
    with capture.phase("preprocess"):
        inputs = recipe.preprocess_eval(images)
    with capture.phase("forward"), recipe.autocast():
        logits = model(inputs).float()
    return logits, labels


def timed_batches(batches: Batches, capture: Capture) -> Iterator[Batch]:
    """Yield the batches; the phase `load` is the wait for each of them."""
    iterator = iter(batches)
    while True:
        with capture.phase("load"):
            batch = next(iterator, None)
        if batch is None:
            return
        yield batch
