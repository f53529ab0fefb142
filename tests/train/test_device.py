"""The settings of the whole process, as torch itself and its compiler read them."""

import pytest
import torch

from profiling.errors import UserError
from train.device import set_process

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["highest", "high"])
@pytest.mark.parametrize("tf32", [True, False])
def test_torch_can_read_back_the_precision_of_float32(configure, precision, tf32):
    """Where only `fp32_precision` is set, these getters raise an error, also inside torch.compile."""
    try:
        set_process(configure(f"matmul_precision={precision}", f"tf32={str(tf32).lower()}"), CPU)
        assert torch.get_float32_matmul_precision() == precision
        assert torch.backends.cuda.matmul.allow_tf32 is (precision == "high")
        assert torch.backends.cudnn.allow_tf32 is tf32
    finally:
        set_process(configure(), CPU)


def test_a_deterministic_run_after_others_on_cuda_says_that_it_needs_a_process_of_its_own(configure, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with pytest.raises(UserError, match=r"deterministic=true: .* give this one a process of its own"):
        set_process(configure("deterministic=true"), CPU)
