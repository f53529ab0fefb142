"""Checkpoints and configurations that `python -m tests.fuzz` found to be answered wrongly."""

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


def test_the_name_of_an_option_that_is_longer_than_a_file_name_is_one_line(command):
    result = command("train", f"model={'x' * 300}")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "File name too long" in result.stderr
