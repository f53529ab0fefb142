"""torchvision's ResNet-18 with a new head: transfer learning."""

from typing import Self

from torch import Tensor, nn
from torchvision.models import resnet18


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016, https://arxiv.org/abs/1512.03385) with a head for `classes`.

    `weights` names torchvision's pretrained weights, which are downloaded once; None means random weights. With
    `freeze_backbone`, the backbone stays in evaluation mode, so its batch norms do not update their running statistics;
    the caller must exclude its parameters from the optimizer.

    Raises:
        ValueError: images that are neither gray nor color, unknown weights, or weights that cannot be downloaded.
    """

    def __init__(
        self, *, channels: int, image_size: int, classes: int, weights: str | None, freeze_backbone: bool
    ) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise ValueError(f"ResNet-18 takes images of 1 or 3 channels, not {channels}")
        try:
            self.backbone = resnet18(weights=weights)
        except KeyError as error:
            raise ValueError(f"torchvision has no ResNet-18 weights called {weights}; try DEFAULT") from error
        except (OSError, RuntimeError) as error:  # no network, a full disk, or a file that fails its checksum
            raise ValueError(
                f"the ResNet-18 weights {weights} could not be downloaded ({error}); run once with network access, or "
                "start from random weights with model.weights=null"
            ) from error
        self.head = nn.Linear(self.backbone.fc.in_features, classes)
        self.backbone.fc = nn.Identity()
        self.freeze_backbone = freeze_backbone

    @property
    def blocks(self) -> list[nn.Module]:
        """The four stages, which activation checkpointing can recompute."""
        return [self.backbone.layer1, self.backbone.layer2, self.backbone.layer3, self.backbone.layer4]

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.freeze_backbone:
            self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Float images [B, 1 or 3, H, W] to logits [B, classes]."""
        features = self.backbone(images.expand(-1, 3, -1, -1))  # [B, 512]; expand does not copy gray images
        logits: Tensor = self.head(features)
        return logits
