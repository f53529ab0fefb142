"""Metrics of training and evaluation: running loss, confusion matrix, Brier score. Each has fast and slow versions."""

import torch
import torch.nn.functional as F
from torch import Tensor

# --- running loss: cross-entropy summed over samples, without label smoothing: the same quantity in both stages


def loss_detached(total: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Add the batch's loss to `total` in place, without a graph and without waiting for the device."""
    return total.add_(F.cross_entropy(logits.detach(), labels, reduction="sum"))


def loss_attached(total: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Add the batch's loss with its graph: the sum keeps the graphs of all batches alive until the epoch ends."""
    return total + F.cross_entropy(logits, labels, reduction="sum")


def loss_item(total: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Add the batch's loss as a Python number: the CPU waits for the device at every step."""
    return total + F.cross_entropy(logits.detach(), labels, reduction="sum").item()


# --- confusion matrix: int64 [C, C], row = label, column = prediction; its trace is the number of correct predictions


def confusion_vectorized(matrix: Tensor, logits: Tensor, labels: Tensor) -> None:
    """Count a batch into `matrix` with one indexed addition."""
    cell = labels * len(matrix) + logits.argmax(dim=1)
    matrix.view(-1).index_add_(0, cell, torch.ones_like(cell))


def confusion_loop(matrix: Tensor, logits: Tensor, labels: Tensor) -> None:
    """Count a batch into `matrix`, sample by sample in Python; each `.item()` waits for the device."""
    for scores, label in zip(logits, labels, strict=True):
        matrix[int(label.item()), int(scores.argmax().item())] += 1


# --- Brier score: squared distance of the predicted probabilities from the one-hot label: 0 (best) to 2 (worst)
# --- Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78, 1950


def brier_matched(logits: Tensor, labels: Tensor) -> Tensor:
    """Score each sample against its own label.

    Args:
        logits: float [N, C].
        labels: int64 [N].

    Returns:
        float [N].
    """
    probabilities = logits.softmax(dim=1)
    target = F.one_hot(labels, logits.shape[1])
    return (probabilities - target).square().sum(dim=-1)


def brier_all_pairs(logits: Tensor, labels: Tensor) -> Tensor:
    """The same scores with an accidental broadcast: [N, 1, C] - [N, C] is [N, N, C]; only its diagonal is needed."""
    probabilities = logits.softmax(dim=1).unsqueeze(1)
    target = F.one_hot(labels, logits.shape[1])
    return (probabilities - target).square().sum(dim=-1).diagonal()
