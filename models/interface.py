"""What the pipeline expects of a model: its constructor, and the attributes that some switches act on.

Only `ModelClass` is required. The rest is optional: a switch has no effect on a model without its attribute or
parameter, and experiments that need it are not applicable (train/needs.py).
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeGuard

from torch import Tensor, nn

AttentionFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""attention(query, key, value): the arguments and the result are [B, heads, T, dim/heads]."""


class ModelClass(Protocol):
    """A subclass of nn.Module, or a function that returns one: maps float images [B, C, H, W] to logits [B, classes].

    It is called with the fields of its YAML file, and with those of the following that its signature names. The data
    set decides `channels`, `image_size` (images are square) and `classes`; the switches of the same names set:

    - `conv_bias: bool`: whether convolutions before batch norm have a bias (`switches.conv_bias`);
    - `attention: AttentionFunction`: computes scaled dot-product attention (`switches.attention`).
    """

    def __call__(self, **fields: Any) -> nn.Module:
        """Build a model for images [channels, image_size, image_size]."""


CONSTRUCTOR_PARAMETERS = ("channels", "image_size", "classes")
"""The parameters of a `ModelClass` that the data set decides."""

CONSTRUCTOR_SWITCHES = ("conv_bias", "attention")
"""The optional parameters of a `ModelClass`."""


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
    """Whether `model` has the attribute of `HasBlocks`."""
    return hasattr(model, "blocks")


def has_backbone(model: nn.Module) -> TypeGuard[HasBackbone]:
    """Whether `model` has the attributes of `HasBackbone`."""
    return all(hasattr(model, name) for name in ("backbone", "head", "freeze_backbone"))
