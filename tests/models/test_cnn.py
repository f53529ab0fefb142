import pytest
import torch

from models.cnn import CNN

SHAPE = {"channels": 1, "image_size": 12, "classes": 3, "width": 4, "dropout": 0.0}


def test_batch_norm_cancels_the_bias_of_a_convolution_in_training() -> None:
    plain, biased = CNN(**SHAPE), CNN(**SHAPE, conv_bias=True)
    missing = biased.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert len(missing) == 3, "one bias for each convolution, and nothing else differs"
    for name in missing:
        torch.nn.init.normal_(biased.get_parameter(name), std=5)
    images = torch.randn(16, 1, 12, 12)
    torch.testing.assert_close(biased(images), plain(images), rtol=1e-4, atol=1e-4)

    biased(images).square().sum().backward()
    gradient = max(biased.get_parameter(name).grad.abs().max() for name in missing)
    others = max(p.grad.abs().max() for name, p in biased.named_parameters() if name not in missing)
    assert gradient < 1e-4 * others


def test_an_image_too_small_to_be_halved_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="4 pixels or more, not 3"):
        CNN(**{**SHAPE, "image_size": 3})
