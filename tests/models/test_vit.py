from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from models.vit import ViT, attention_math

FIELDS = {"channels": 1, "image_size": 12, "classes": 3, "patch": 4, "dim": 16, "depth": 2, "heads": 4, "dropout": 0.0}


def build(**changes: Any) -> ViT:
    torch.manual_seed(0)
    return ViT(**{**FIELDS, **changes})


@pytest.mark.parametrize("shape", [(2, 4, 9, 16), (1, 1, 1, 1), (3, 2, 64, 5)])
@pytest.mark.parametrize("scale", [1.0, 30.0])  # 30: a softmax that saturates
def test_attention_written_out_equals_the_fused_kernel_and_so_do_its_gradients(
    shape: tuple[int, ...], scale: float
) -> None:
    def run(attention: Any) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        inputs = [
            (scale * torch.randn(shape, dtype=torch.float64, generator=generator)).requires_grad_() for _ in range(3)
        ]
        output = attention(*inputs)
        output.square().sum().backward()
        return [output, *(tensor.grad for tensor in inputs)]

    torch.testing.assert_close(run(attention_math), run(scaled_dot_product_attention))


def test_the_model_gives_the_same_logits_with_either_attention() -> None:
    images = torch.randn(5, 1, 12, 12)
    torch.testing.assert_close(build()(images), build(attention=attention_math)(images))


def test_attention_is_called_once_a_block_with_tokens_by_head() -> None:
    shapes = []

    def noted(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        shapes.append((query.shape, key.shape, value.shape))
        return attention_math(query, key, value)

    build(attention=noted)(torch.randn(5, 1, 12, 12))
    assert shapes == [((5, 4, 9, 4),) * 3] * 2  # [B, heads, T, dim/heads], 9 patches, depth 2


def test_only_the_learned_positions_tell_where_a_patch_is() -> None:
    model = build().eval()
    images = torch.randn(2, 1, 12, 12)
    swapped = images.roll(4, dims=-1)  # moves whole patches
    assert not torch.allclose(model(swapped), model(images), atol=1e-4)
    torch.nn.init.zeros_(model.positions)
    torch.testing.assert_close(model(swapped), model(images))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"patch": 5}, "patch=5 does not divide the image's side of 12 pixels"),
        ({"patch": 24}, "patch=24 does not divide the image's side of 12 pixels"),
        ({"heads": 3}, "heads=3 does not divide dim=16"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, int], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        build(**changes)
