"""Non-finite loss: found, and explained by what is non-finite or absurd at that step."""

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from profiling.errors import UserError

STEPS_BETWEEN_CHECKS = 50  # on an accelerator: reading the loss waits for the device


class Check(Protocol):
    """Looks at a step's loss, before the backward pass."""

    def __call__(self, step: int, model: nn.Module, images: Tensor, logits: Tensor, loss: Tensor) -> None:
        """Raise UserError if the loss is not finite."""


def check_for(device: torch.device) -> Check:
    """Every step on the CPU, where reading a number costs 2 us; every 50 steps where it costs a synchronization."""
    return check_every_step if device.type == "cpu" else check_sometimes


def check_every_step(step: int, model: nn.Module, images: Tensor, logits: Tensor, loss: Tensor) -> None:
    """Raise UserError if the loss is not finite."""
    if not math.isfinite(loss.item()):
        phase, cause = explain(model, images, logits)
        raise UserError(f"the loss is {loss.item()} at step {step}, phase {phase}: {cause}")


def check_sometimes(step: int, model: nn.Module, images: Tensor, logits: Tensor, loss: Tensor) -> None:
    """Raise UserError if the loss is not finite, at one step in 50: it stays so once the parameters are spoilt."""
    if step % STEPS_BETWEEN_CHECKS == 0:
        check_every_step(step, model, images, logits, loss)


def explain(model: nn.Module, images: Tensor, logits: Tensor) -> tuple[str, str]:
    """Name the phase that went wrong and its likely cause."""
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            return (
                "optimizer",
                f"an earlier update left {name} non-finite; likely too large a learning rate (optimizer.lr)",
            )
    if not images.isfinite().all():
        return "preprocess", "the images are not finite; likely the data, or data whose deviation is 0"
    largest = max(parameter.abs().max().item() for parameter in model.parameters())
    if not logits.isfinite().all():
        return "forward", (
            f"the logits are not finite, the largest weight is {largest:.3g}; likely too large a learning rate "
            "(optimizer.lr), or too narrow a data type (precision=fp32)"
        )
    return "loss", "the logits are finite; likely labels outside the classes"
