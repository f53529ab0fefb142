"""Checkpoints that earlier releases wrote."""

import torch

from train import checkpoint, session
from train.run import checkpoint_of


def test_format_1_has_other_names_for_the_parts_of_a_transformer_block(configure, tmp_path):
    parts = session.prepare(configure("model=vit", "data.image_size=28"))
    path = checkpoint.save(checkpoint_of(parts), tmp_path)
    content = torch.load(path, weights_only=True)
    renamed = {
        name.replace(".attn.", ".attend.").replace(".mlp.", ".think."): tensor
        for name, tensor in content["weights"].items()
    }
    assert renamed.keys() != content["weights"].keys()
    torch.save({**content, "format": 1, "weights": renamed}, path)
    saved = checkpoint.load(path)
    checkpoint.restore(parts.module, saved, parts.config)
    assert saved.weights.keys() == parts.module.state_dict().keys()
