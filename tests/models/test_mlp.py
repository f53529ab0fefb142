import pytest
from torch import nn

from models.mlp import MLP


@pytest.mark.parametrize("depth", [1, 3])
def test_depth_counts_the_hidden_layers(depth: int) -> None:
    model = MLP(channels=3, image_size=4, classes=5, width=7, depth=depth, dropout=0.0)
    sizes = [(layer.in_features, layer.out_features) for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert sizes == [(48, 7)] + [(7, 7)] * (depth - 1) + [(7, 5)]
