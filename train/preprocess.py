"""From stored images to the model's input: normalization and augmentation. Each has fast and slow versions.

Images are uint8 [B, C, H, W]; results are float32 [B, C, H, W] with mean 0 and deviation 1 over the training split.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from train.config.schema import Augment

Shape = tuple[int, ...]
Arrange = Callable[[Tensor, Shape], Tensor]


def broadcast(operand: Tensor, shape: Shape) -> Tensor:
    """Return `operand` [C, 1, 1] unchanged: arithmetic broadcasts it to `shape` without a copy."""
    return operand


def repeat(operand: Tensor, shape: Shape) -> Tensor:
    """Copy `operand` [C, 1, 1] to the full `shape` [..., C, H, W] before it is used."""
    return operand.repeat(*shape[:-3], 1, *shape[-2:])


class ReusedBuffers:
    """Large temporaries, allocated once and reused at every step.

    The next step may overwrite a buffer that autograd saved, because the backward pass that needs it has ended.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def __call__(self, name: str, shape: Shape, device: torch.device, layout: torch.memory_format) -> Tensor:
        """The float32 buffer `name` of `shape`, with arbitrary content."""
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < shape[0]:
            buffer = self._buffers[name] = torch.empty(shape, device=device, memory_format=layout)
        return buffer[: shape[0]]


class FreshBuffers:
    """Large temporaries, newly allocated at every step."""

    def __call__(self, name: str, shape: Shape, device: torch.device, layout: torch.memory_format) -> Tensor:
        """A float32 buffer of `shape`, with arbitrary content."""
        return torch.empty(shape, device=device, memory_format=layout)


Buffers = ReusedBuffers | FreshBuffers


class PreprocessFunction(Protocol):
    """Converts uint8 images [B, C, H, W] to the model's input, as `spec` says."""

    def __call__(self, images: Tensor, spec: "PreprocessSpec") -> Tensor: ...  # noqa: D102


@dataclass(frozen=True)
class AugmentationDraw:
    """The random numbers of one batch's augmentation.

    Attributes:
        offsets: int64 [B, 2], first row and column of each image's window in the padded image.
        noise: float32 [B, C, H, W], standard normal; None where `augment.noise` is 0.
    """

    offsets: Tensor
    noise: Tensor | None


@dataclass(frozen=True)
class PreprocessSpec:
    """Everything besides the images that determines the model's input.

    Attributes:
        mean, deviation: float32 [C, 1, 1], in units of the stored bytes, 0 to 255.
        arrange: `broadcast` or `repeat`, applied to `mean` and `deviation`.
        buffers: provides large temporaries.
        layout: memory format of the result.
        augment: how far images are shifted and how much noise is added; None for evaluation.
        random: generator of the random numbers, which are drawn on its device.
    """

    mean: Tensor
    deviation: Tensor
    arrange: Arrange
    buffers: Buffers
    layout: torch.memory_format
    augment: Augment | None
    random: torch.Generator

    def draw(self, shape: Shape, device: torch.device) -> AugmentationDraw | None:
        """Draw the augmentation of a batch of `shape`, the same for `vectorized` and `loop`; None for evaluation."""
        if self.augment is None:
            return None
        drawn_on = self.random.device
        offsets = torch.randint(0, 2 * self.augment.shift + 1, (shape[0], 2), generator=self.random, device=drawn_on)
        noise = None
        if self.augment.noise > 0:
            noise = self.buffers("noise", shape, drawn_on, torch.contiguous_format)
            noise = noise.normal_(generator=self.random).to(device)
        return AugmentationDraw(offsets.to(device), noise)


def vectorized(images: Tensor, spec: PreprocessSpec) -> Tensor:
    """Preprocess whole batches: the number of operators does not depend on the batch size."""
    draw = spec.draw(tuple(images.shape), images.device)
    if draw is not None and spec.augment is not None:
        images = shift(images, draw.offsets, spec.augment.shift)
    shape = tuple(images.shape)
    out = spec.buffers("images", shape, images.device, spec.layout)
    torch.sub(images, spec.arrange(spec.mean, shape), out=out)
    out.div_(spec.arrange(spec.deviation, shape))
    if draw is not None and draw.noise is not None and spec.augment is not None:
        out.add_(draw.noise, alpha=spec.augment.noise)
    return out


def loop(images: Tensor, spec: PreprocessSpec) -> Tensor:
    """Preprocess image by image in Python, and combine the results with torch.stack."""
    draw = spec.draw(tuple(images.shape), images.device)
    rows = []
    for index, image in enumerate(images):
        if draw is not None and spec.augment is not None:
            image = shift_one(image, draw.offsets[index], spec.augment.shift)
        shape = tuple(image.shape)
        row = (image - spec.arrange(spec.mean, shape)) / spec.arrange(spec.deviation, shape)
        if draw is not None and draw.noise is not None and spec.augment is not None:
            row = row.add(draw.noise[index], alpha=spec.augment.noise)
        rows.append(row)
    out = torch.stack(rows) if rows else images.float()  # a rank may have no sample in the last batch
    return out.contiguous(memory_format=spec.layout)


def shift(images: Tensor, offsets: Tensor, padding: int) -> Tensor:
    """Cut a window of the original size out of each padded image, with one gather.

    Args:
        images: [B, C, H, W].
        offsets: int64 [B, 2], first row and column of each window, 0 to 2 * padding; `padding` means no shift.
        padding: width of the border of zeros around each image, in pixels.

    Returns:
        [B, C, H, W].
    """
    batch, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)  # [B, C, H + 2p, W + 2p]
    stride = width + 2 * padding
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    window = (rows[:, None] * stride + columns).flatten()  # [H * W]
    corner = offsets[:, 0] * stride + offsets[:, 1]  # [B]
    index = (corner[:, None] + window)[:, None].expand(-1, channels, -1)  # [B, C, H * W]
    return padded.flatten(2).gather(2, index).view(batch, channels, height, width)


def shift_one(image: Tensor, offset: Tensor, padding: int) -> Tensor:
    """`shift` of a single image [C, H, W], by slicing."""
    _, height, width = image.shape
    row, column = offset.tolist()
    return F.pad(image, (padding,) * 4)[:, row : row + height, column : column + width]
