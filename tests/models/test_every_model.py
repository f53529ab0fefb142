"""What holds for all four models."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.cnn import CNN
from models.mlp import MLP
from models.resnet import ResNet18
from models.vit import ViT

FIELDS = {
    CNN: {"width": 8, "dropout": 0.1},
    MLP: {"width": 32, "depth": 2, "dropout": 0.1},
    ResNet18: {"weights": None, "freeze_backbone": False},
    ViT: {"patch": 4, "dim": 32, "depth": 2, "heads": 4, "dropout": 0.1},
}
every_model = pytest.mark.parametrize("kind", FIELDS)


def build(kind: type[nn.Module], channels: int = 1, image_size: int = 16, classes: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return kind(channels=channels, image_size=image_size, classes=classes, **FIELDS[kind])


def noise(count: int, channels: int = 1, image_size: int = 16) -> Tensor:
    return torch.randn(count, channels, image_size, image_size, generator=torch.Generator().manual_seed(1))


@every_model
@pytest.mark.parametrize(("channels", "image_size", "classes"), [(1, 28, 10), (3, 32, 2), (1, 8, 100)])
def test_images_become_one_logit_for_each_class(
    kind: type[nn.Module], channels: int, image_size: int, classes: int
) -> None:
    logits = build(kind, channels, image_size, classes)(noise(5, channels, image_size))
    assert logits.shape == (5, classes)
    assert logits.isfinite().all()


@every_model
def test_every_parameter_gets_a_gradient(kind: type[nn.Module]) -> None:
    model = build(kind, image_size=32)
    F.cross_entropy(model(noise(8, image_size=32)), torch.arange(8) % 4).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@every_model
def test_in_evaluation_a_sample_does_not_depend_on_its_batch(kind: type[nn.Module]) -> None:
    model = build(kind).eval()
    images = noise(6)
    with torch.inference_mode():
        together, alone = model(images), torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@every_model
def test_channels_last_gives_the_same_logits(kind: type[nn.Module]) -> None:
    model = build(kind, channels=3).eval()
    images = noise(4, channels=3)
    with torch.inference_mode():
        expected = model(images)
        logits = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [CNN, MLP, ViT])  # ResNet-18 would take as long as all other tests here
def test_it_can_learn_a_few_images_by_heart(kind: type[nn.Module]) -> None:
    model, images, labels = build(kind), noise(8), torch.arange(8) % 4
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(15):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert (model(images).argmax(dim=1) == labels).all()


@pytest.mark.parametrize("kind", [CNN, MLP, ViT])
def test_dropout_acts_in_training_and_not_in_evaluation(kind: type[nn.Module]) -> None:
    model, images = build(kind), noise(4)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))
