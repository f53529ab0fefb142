"""What the pipeline expects of a model: how it is built, and the attributes that some switches act on.

A class of the user's own needs `ModelClass` alone. Everything else is optional: a switch whose attribute or parameter a
model lacks does not act on it, and experiments that need it say "not applicable here" (train/needs.py).
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeGuard

from torch import Tensor, nn

AttentionFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""attention(query, key, value): all are [B, heads, T, dim/heads], and so is the result."""


class ModelClass(Protocol):
    """A subclass of nn.Module whose forward takes float images [B, C, H, W] to logits [B, classes].

    Besides the fields of its YAML file it may take parameters of these names, which the switches of the same names set:

    - `conv_bias: bool`: whether convolutions before batch norm have a bias (`switches.conv_bias`);
    - `attention: AttentionFunction`: computes scaled dot-product attention (`switches.attention`).
    """

    def __call__(self, *, channels: int, image_size: int, classes: int, **fields: Any) -> nn.Module:
        """Build a model for images [channels, image_size, image_size]."""


CONSTRUCTOR_SWITCHES = ("conv_bias", "attention")
"""The optional parameters above."""


class HasBlocks(Protocol):
    """A model whose `blocks` can be recomputed in the backward pass (`switches.activations`)."""

    @property
    def blocks(self) -> Iterable[nn.Module]:
        """Modules that run one after the other."""


class HasBackbone(Protocol):
    """A model for transfer learning: with `freeze_backbone`, only the head is trained (`switches.freeze`)."""

    backbone: nn.Module
    head: nn.Module
    freeze_backbone: bool


def has_blocks(model: nn.Module) -> TypeGuard[HasBlocks]:
    """Tell whether a model keeps to `HasBlocks`."""
    return hasattr(model, "blocks")


def has_backbone(model: nn.Module) -> TypeGuard[HasBackbone]:
    """Tell whether a model keeps to `HasBackbone`."""
    return all(hasattr(model, name) for name in ("backbone", "head", "freeze_backbone"))
