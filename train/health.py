"""Detection of a non-finite loss, and its likely cause: what else is non-finite at that step."""

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from profiling.errors import UserError
from train.ranks.rank_model import own_parameters

STEPS_BETWEEN_CHECKS = 50  # on an accelerator, where reading the loss waits for the device


class Check(Protocol):
    """Checks the loss of a step, before the backward pass."""

    def __call__(self, step: int, model: nn.Module, images: Tensor, logits: Tensor, loss: Tensor) -> None:
        """Raise UserError if the loss is not finite."""


def check_for(device: torch.device) -> Check:
    """The check for `device`: every step on the CPU, every 50 steps where reading the loss waits for the device."""
    return check_every_step if device.type == "cpu" else check_sometimes


def check_every_step(step: int, model: nn.Module, images: Tensor, logits: Tensor, loss: Tensor) -> None:
    """Raise UserError if the loss is not finite."""
    if not math.isfinite(loss.item()):
        phase, cause = explain(model, images, logits)
        raise UserError(f"the loss is {loss.item()} at step {step}, phase {phase}: {cause}")


def check_sometimes(step: int, model: nn.Module, images: Tensor, logits: Tensor, loss: Tensor) -> None:
    """Raise UserError if the loss is not finite, at every 50th step: non-finite parameters keep it non-finite."""
    if step % STEPS_BETWEEN_CHECKS == 0:
        check_every_step(step, model, images, logits, loss)


def check_pass(model: nn.Module, what: str, values: Tensor) -> None:
    """Check a result of a whole pass, which is complete when this is called; `what` names it.

    Raises:
        UserError: one of `values` is not finite.
    """
    if not values.isfinite().all():
        raise UserError(f"{what} is not finite: {_explain_parameters(model) or _explain_largest(model)}")


def _explain_parameters(model: nn.Module) -> str | None:
    """The first parameter that is not finite, with the likely cause; None if all are."""
    for name, parameter in own_parameters(model):
        if not parameter.isfinite().all():
            return f"an update left {name} non-finite; likely too large a learning rate (optimizer.lr)"
    return None


def _explain_largest(model: nn.Module) -> str:
    largest = max(parameter.abs().max().item() for _, parameter in own_parameters(model))
    return (
        f"the largest weight is {largest:.3g}; likely too large a learning rate (optimizer.lr), or too narrow a data "
        "type (precision=fp32)"
    )


def explain(model: nn.Module, images: Tensor, logits: Tensor) -> tuple[str, str]:
    """The phase that produced the non-finite loss, and the likely cause."""
    if cause := _explain_parameters(model):
        return "optimizer", cause
    if not images.isfinite().all():
        return "preprocess", "the images are not finite; likely the data, or data whose deviation is 0"
    if not logits.isfinite().all():
        return "forward", f"the logits are not finite, {_explain_largest(model)}"
    return "loss", "the logits are finite; likely labels outside the classes"
