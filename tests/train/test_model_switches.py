"""What the switches expect of a model, for the models that come with the project."""

import inspect

import pytest

from models.interface import CONSTRUCTOR_SWITCHES, has_backbone, has_blocks
from models.vit import ViT
from train.session import build_model


@pytest.mark.parametrize(
    ("model", "backbone", "switches"),
    [("mlp", False, set()), ("cnn", False, {"conv_bias"}), ("resnet18", True, set()), ("vit", False, {"attention"})],
)
def test_what_each_model_offers_to_the_switches(configure, digits, model, backbone, switches):
    built = build_model(configure(f"model={model}"), digits)
    assert has_blocks(built)
    assert has_backbone(built) == backbone
    assert set(CONSTRUCTOR_SWITCHES) & inspect.signature(type(built)).parameters.keys() == switches


def test_a_switch_of_the_constructor_reaches_the_model(configure, digits):
    def attention(query, key, value):
        return value

    built = ViT(
        channels=1, image_size=28, classes=10, patch=7, dim=8, depth=1, heads=2, dropout=0.0, attention=attention
    )
    assert any(getattr(module, "attention", None) is attention for module in built.modules())
    assert not any(
        getattr(m, "attention", None) is attention for m in build_model(configure("model=vit"), digits).modules()
    )
