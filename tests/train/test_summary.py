from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.cnn import CNN
from models.mlp import MLP
from models.resnet import ResNet18
from models.vit import ViT, attention_math
from train.summary import summarize

SHAPE = {"channels": 1, "image_size": 16, "classes": 3}
IMAGE = torch.zeros(1, 1, 16, 16)
MODELS = {
    "cnn": CNN(**SHAPE, width=4, dropout=0.5),
    "mlp": MLP(**SHAPE, width=8, depth=2, dropout=0.5),
    "resnet18": ResNet18(**SHAPE, weights=None, freeze_backbone=True),
    "vit": ViT(**SHAPE, patch=4, dim=8, depth=1, heads=2, dropout=0.5),
}


def rows(table: str) -> dict[str, list[str]]:
    """Layer path to type, output shape, parameters, trainable parameters and FLOPs."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert [len(row) for row in cells] == [6] * len(cells)
    return {row[0]: [cell.replace(",", "") if "[" not in cell else cell for cell in row[1:]] for row in cells[2:]}


def test_a_table_of_known_layers() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 14 * 14, 5))
    model[3].bias.requires_grad_(False)
    table = rows(summarize(model, IMAGE))
    assert table == {
        "0": ["Conv2d", "[1, 2, 14, 14]", "20", "20", str(2 * 9 * 2 * 14 * 14)],  # a multiply-add is two operations
        "1": ["ReLU", "[1, 2, 14, 14]", "0", "0", "0"],
        "2": ["Flatten", "[1, 392]", "0", "0", "0"],
        "3": ["Linear", "[1, 5]", "1965", "1960", str(2 * 392 * 5)],
        "**total**": ["Sequential", "[1, 5]", "1985", "1980", str(2 * 9 * 2 * 14 * 14 + 2 * 392 * 5)],
    }


@pytest.mark.parametrize("name", MODELS)
def test_rows_add_up_to_the_totals(name: str) -> None:
    table = rows(summarize(MODELS[name], IMAGE))
    total = table.pop("**total**")
    sums = [sum(int(row[column]) for row in table.values()) for column in (2, 3, 4)]
    assert [str(value) for value in sums] == total[2:]
    assert sums[0] == sum(parameter.numel() for parameter in MODELS[name].parameters())


@pytest.mark.parametrize("name", MODELS)
def test_the_model_and_the_random_numbers_stay_as_they_are(name: str) -> None:
    model = MODELS[name].train()
    model(IMAGE.expand(4, -1, -1, -1)).sum().backward()

    def state() -> dict[str, Any]:
        return {
            "tensors": {key: tensor.clone() for key, tensor in model.state_dict().items()},
            "gradients": {key: p.grad.clone() for key, p in model.named_parameters()},
            "modes": [module.training for module in model.modules()],
            "hooks": [len(module._forward_hooks) for module in model.modules()],
            "random": torch.get_rng_state(),
        }

    before = state()
    summarize(model, IMAGE)
    torch.testing.assert_close(state(), before, rtol=0, atol=0)


def test_the_fused_attention_has_the_flops_of_the_one_written_out() -> None:
    fields = {**SHAPE, "patch": 4, "dim": 8, "depth": 2, "heads": 2, "dropout": 0.0}
    fused, written_out = (
        rows(summarize(ViT(**fields, **attention), IMAGE)) for attention in ({}, {"attention": attention_math})
    )
    assert fused == written_out
    assert fused["blocks.0.attn.1"][4] == str(2 * 2 * 16 * 16 * 8)  # scores and mixture: 16 tokens, 8 features


def test_layers_that_share_a_weight_or_do_not_run_are_shown_for_what_they_are() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(16, 16, bias=False)
            self.second = nn.Linear(16, 16, bias=False)
            self.second.weight = self.first.weight
            self.unused = nn.Linear(3, 3)
            self.scale = nn.Parameter(torch.ones(2))

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return self.second(self.first(images)) * self.scale.sum(), images

    table = rows(summarize(Odd(), IMAGE))
    assert table["(model)"] == ["Odd", "tuple", "2", "2", "0"]
    assert table["first"] == ["Linear", "[1, 1, 16, 16]", "256", "256", str(2 * 16 * 16 * 16)]
    assert table["second"] == ["Linear", "[1, 1, 16, 16]", "0", "0", str(2 * 16 * 16 * 16)]
    assert table["unused"] == ["Linear", "not run", "12", "12", "0"]
    assert table["**total**"][2] == "270"
