"""A small convolutional network."""

from torch import Tensor, nn


class CNN(nn.Module):
    """Three blocks of convolution, batch norm and ReLU, then global average pooling and a linear head.

    `conv_bias` gives every convolution a bias. Batch norm subtracts the mean of each channel, which includes the
    bias: the bias changes no output, but costs an addition in the forward pass and a reduction in the backward pass
    (https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html).
    """

    def __init__(
        self, *, channels: int, image_size: int, classes: int, width: int, dropout: float, conv_bias: bool = False
    ) -> None:
        super().__init__()
        if image_size < 4:
            raise ValueError(f"the CNN halves its images twice: their side must be 4 pixels or more, not {image_size}")
        self.blocks = nn.Sequential(
            _block(channels, width, conv_bias, nn.MaxPool2d(2)),  # [B, width, H/2, W/2]
            _block(width, 2 * width, conv_bias, nn.MaxPool2d(2)),  # [B, 2 width, H/4, W/4]
            _block(2 * width, 4 * width, conv_bias, nn.AdaptiveAvgPool2d(1)),  # [B, 4 width, 1, 1]
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Float images [B, C, H, W] to logits [B, classes]."""
        logits: Tensor = self.head(self.dropout(self.blocks(images).flatten(1)))
        return logits


def _block(channels: int, width: int, bias: bool, pool: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=bias),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        pool,
    )
