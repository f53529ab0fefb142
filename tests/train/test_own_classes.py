"""Models, data and optimizers that no file of configs/ names: `_target_` alone chooses them."""

import logging

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from profiling.capture import NullCapture
from tests.conftest import TINY_DATA
from train import session

HERE = "tests.train.test_own_classes"
OPTIMIZERS = sorted(
    name
    for name, value in vars(torch.optim).items()
    if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
)
REFUSED = ("LBFGS", "Muon", "Optimizer", "SparseAdam")  # in one line: tests/train/config/test_mistakes.py


class Linear(nn.Module):
    """Takes two of the three sizes by name, and a parameter of its own."""

    def __init__(self, width: int, image_size: int, classes: int, **others: object) -> None:
        super().__init__()
        assert not others
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(image_size**2, width), nn.ReLU(), nn.Linear(width, classes))

    def forward(self, images):
        return self.layers(images)


def test_a_function_of_torchvision_gets_its_own_parameters(configure):
    parts = session.prepare(
        configure(
            "model=custom",
            "model._target_=torchvision.models.resnet18",
            "+model.params={num_classes: 10, weights: null}",
            *TINY_DATA,
            "data.channels=3",
        )
    )
    assert parts.module.fc.out_features == 10
    assert parts.module.training


def test_a_class_gets_the_sizes_that_its_signature_names_and_its_own_parameters(configure):
    config = configure("model=custom", f"model._target_={HERE}.Linear", "+model.params={width: 5}", *TINY_DATA)
    layers = session.prepare(config).module.layers
    assert (layers[1].in_features, layers[1].out_features, layers[3].out_features) == (28 * 28, 5, 10)


class Lazy(nn.Module):
    """Sizes come from the first images."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(classes)
        )

    def forward(self, images):
        return self.layers(images)


def test_lazy_modules_have_their_sizes_before_the_optimizer_is_built(configure):
    parts = session.prepare(configure("model=custom", f"model._target_={HERE}.Lazy", *TINY_DATA))
    assert parts.module.layers[4].in_features == 4 * 26 * 26
    trained = {id(parameter) for group in parts.optimizer.param_groups for parameter in group["params"]}
    assert trained == {id(parameter) for parameter in parts.module.parameters()}
    assert parts.module.training


def pairs(count: int):
    images = torch.arange(count, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8) / count
    return (images, torch.arange(count) % 3), (images[:6], torch.arange(6) % 3)


def datasets(count: int):
    return tuple(TensorDataset(*split) for split in pairs(count))


def pictures(count: int):
    from torchvision.datasets import FakeData

    return FakeData(count, (3, 8, 8), 4), FakeData(count, (3, 8, 8), 4)


@pytest.mark.parametrize(
    ("function", "classes", "channels"), [("pairs", "012", 1), ("datasets", "012", 1), ("pictures", "0123", 3)]
)
def test_a_function_of_the_user_returns_its_splits_in_any_usual_form(configure, function, classes, channels):
    config = configure("data=custom", f"data._target_={HERE}.{function}", "+data.params={count: 60}")
    parts = session.prepare(config)
    assert parts.data.train.images.dtype is torch.uint8
    assert parts.data.train.images.shape == (60, channels, 8, 8)
    assert "".join(parts.data.classes) == classes
    if function != "pictures":
        assert parts.data.train.images[30].unique().tolist() == [128]  # 0.5, as a byte
    parts.evaluate(parts.test_batches, NullCapture())


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in REFUSED])
def test_any_optimizer_steps_without_a_file_of_its_own(configure, caplog, name):
    caplog.set_level(logging.INFO, "train.session")
    parts = session.prepare(configure(f"optimizer._target_=torch.optim.{name}", "model.width=4", *TINY_DATA))
    before = [parameter.detach().clone() for parameter in parts.module.parameters()]
    parts.fit(parts.train_batches, NullCapture())
    assert any(not torch.equal(old, new) for old, new in zip(before, parts.module.parameters(), strict=True))
    defaults = parts.optimizer.param_groups[0]
    left_out = [field for field in ("weight_decay", "betas", "fused") if field not in defaults]
    assert [record.getMessage() for record in caplog.records] == (
        [f"note: optimizer=torch.optim.{name} has no {', '.join(left_out)}; left out"] if left_out else []
    )


def test_an_optimizer_gets_its_own_parameters(configure):
    config = configure("optimizer=custom", "optimizer._target_=torch.optim.RMSprop", "+optimizer.params={alpha: 0.5}")
    assert session.prepare(config).optimizer.param_groups[0]["alpha"] == 0.5
