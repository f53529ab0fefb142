"""Train two ranks as each experiment about ranks says; rank 0 prints {experiment: largest difference to the baseline}.

    python -m torch.distributed.run --standalone --nproc-per-node 2 tests/train/ranks/parity.py EXPERIMENT...

Model and data are such that no result depends on how a batch is divided; the last batch has a single sample.
"""

import json
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[3]))

from profiling.capture import NullCapture
from tests.conftest import composed
from train import session
from train.config.compose import to_config
from train.ranks.group import Ranks
from train.ranks.launch import launched
from train.ranks.store import Board

SETUP = (
    "data=synthetic", "data.train_samples=41", "data.test_samples=21", "data.channels=1", "data.image_size=8",
    "batch_size=10", "eval_batch_size=20", "epochs=3", "model=mlp", "model.width=64", "model.dropout=0",
    "augment.shift=0", "augment.noise=0", "precision=fp32", "micro_batches=2", "threads=1",
)  # fmt: skip


def outcome(board: Board, *overrides: str) -> dict[str, torch.Tensor]:
    """Weights after two passes, and the metrics of all ranks."""
    config = to_config(composed(*SETUP, *overrides))
    parts = session.prepare(config, Ranks(board.launch, board, config.strategy, config.ddp))
    for _ in range(2):
        training = parts.fit(parts.train_batches, NullCapture())
    held_out = parts.evaluate(parts.test_batches, NullCapture())
    counts = {"samples": torch.tensor(training.samples), "confusion": held_out.confusion}
    sums = {"train_loss": training.loss, "loss": held_out.loss, "brier": held_out.brier}
    weights = parts.group.state_dicts.weights(parts.module)
    return {**{name: value.clone() for name, value in weights.items()}, **counts, **sums}


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest one; of several ranks, 0 has all weights in both."""
    return max(float((value.double() - other[name].double()).abs().max()) for name, value in one.items())


if __name__ == "__main__":
    launch = launched()
    assert launch is not None
    board = Board(launch, 60.0)
    dist.init_process_group("gloo", store=board.store, rank=launch.rank, world_size=2, timeout=timedelta(seconds=60))
    baseline = outcome(board)
    outcomes = {name: outcome(board, f"+experiment={name}") for name in sys.argv[1:]}
    if launch.rank == 0:
        sys.stdout.write(json.dumps({name: difference(baseline, found) for name, found in outcomes.items()}))
    dist.destroy_process_group()
