from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet18

from models.resnet import ResNet18


def build(channels: int = 3, weights: str | None = None, freeze_backbone: bool = False) -> ResNet18:
    return ResNet18(channels=channels, image_size=32, classes=5, weights=weights, freeze_backbone=freeze_backbone)


def running_statistics(model: ResNet18) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def test_a_gray_image_is_seen_as_color_with_three_equal_channels() -> None:
    model = build(channels=1).eval()
    gray = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(model(gray), model(gray.repeat(1, 3, 1, 1)))


def test_images_of_two_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        build(channels=2)


@pytest.mark.parametrize("freeze", [True, False])
def test_training_moves_the_running_statistics_unless_the_backbone_is_frozen(freeze: bool) -> None:
    model = build(freeze_backbone=freeze).train()
    before = running_statistics(model)
    model(torch.randn(4, 3, 32, 32) + 3)
    moved = [name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])]
    assert len(moved) == (0 if freeze else len(before))
    assert model.head.training


def test_what_is_tracked_is_left_to_the_caller() -> None:
    assert all(parameter.requires_grad for parameter in build(freeze_backbone=True).parameters())


def test_pretrained_weights_are_read_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"  # where torchvision keeps the download
    cached.parent.mkdir(parents=True)
    pretrained = resnet18().state_dict()
    torch.save(pretrained, cached)

    backbone = build(weights="DEFAULT").backbone.state_dict()
    assert set(pretrained) - set(backbone) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(backbone[name], pretrained[name]) for name in backbone)


def test_weights_that_cannot_be_downloaded_give_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(
        ValueError, match=r"DEFAULT could not be downloaded .*Name or service.*model\.weights=null"
    ) as caught:
        build(weights="DEFAULT")
    assert "\n" not in str(caught.value)


def test_unknown_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="no ResNet-18 weights called IMAGENET99; try DEFAULT"):
        build(weights="IMAGENET99")
