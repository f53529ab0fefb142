"""A multilayer perceptron."""

from itertools import pairwise

from torch import Tensor, nn


class MLP(nn.Module):
    """`depth` hidden layers of `width` units with ReLU and dropout, on the flattened image."""

    def __init__(self, *, channels: int, image_size: int, classes: int, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        sizes = [channels * image_size**2] + [width] * depth
        hidden = [
            nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(inplace=True), nn.Dropout(dropout))
            for inputs, outputs in pairwise(sizes)
        ]
        self.blocks = nn.Sequential(*hidden)
        self.head = nn.Linear(sizes[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Float images [B, C, H, W] to logits [B, classes]."""
        logits: Tensor = self.head(self.blocks(images.flatten(1)))
        return logits
