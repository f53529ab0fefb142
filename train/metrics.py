"""What is reported while training and evaluating: running loss, confusion matrix, Brier score, and the slow twins."""

import torch
import torch.nn.functional as F
from torch import Tensor

# --- running loss: the plain cross-entropy, summed over samples; label smoothing stays out, so that training and
# --- evaluation report the same quantity


def loss_detached(total: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Add the batch's loss to `total` in place, without a graph and without waiting for the device."""
    return total.add_(F.cross_entropy(logits.detach(), labels, reduction="sum"))


def loss_attached(total: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Add it with its graph: every batch's graph stays reachable from the sum until the epoch ends."""
    return total + F.cross_entropy(logits, labels, reduction="sum")


def loss_item(total: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Fetch it as a Python number: the processor waits for the device at every step."""
    return total + F.cross_entropy(logits.detach(), labels, reduction="sum").item()


# --- confusion matrix: int64 [C, C], row = label, column = prediction; its trace counts the correct ones


def confusion_vectorized(matrix: Tensor, logits: Tensor, labels: Tensor) -> None:
    """Count a batch into `matrix` with one indexed addition."""
    cell = labels * len(matrix) + logits.argmax(dim=1)
    matrix.view(-1).index_add_(0, cell, torch.ones_like(cell))


def confusion_loop(matrix: Tensor, logits: Tensor, labels: Tensor) -> None:
    """Count sample by sample in Python; each `.item()` waits for the device."""
    for scores, label in zip(logits, labels, strict=True):
        matrix[int(label.item()), int(scores.argmax().item())] += 1


# --- Brier score: squared distance of the predicted probabilities from the one-hot label, 0 (sure and right) to 2
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
    """The same numbers through an accident: [N, 1, C] against [N, C] broadcasts to [N, N, C], of which N are wanted."""
    probabilities = logits.softmax(dim=1).unsqueeze(1)
    target = F.one_hot(labels, logits.shape[1])
    return (probabilities - target).square().sum(dim=-1).diagonal()
