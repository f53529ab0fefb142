"""Checkpoints that `python -m tests.fuzz` found to be answered wrongly."""

import io

import pytest
import torch

from profiling.errors import UserError
from tests.conftest import TINY_DATA
from train import checkpoint, session
from train.run import checkpoint_of


def test_weights_without_values_are_refused(configure, tmp_path):
    parts = session.prepare(configure("model=mlp", "model.width=8", *TINY_DATA))
    path = checkpoint.save(checkpoint_of(parts), tmp_path)
    content = torch.load(path, weights_only=True)
    content["weights"] = {name: tensor.to("meta") for name, tensor in content["weights"].items()}
    file = io.BytesIO()
    torch.save(content, file)
    path.write_bytes(file.getvalue())
    with pytest.raises(UserError, match="has no values"):
        checkpoint.load(path)
