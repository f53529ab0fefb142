"""What the scripts of tests/bench/bench_scripts.py share. They know nothing of abtrace, as any user's script."""

import argparse
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def options() -> argparse.Namespace:
    """The changes that a comparison can make; --spin is a share of a step's own time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--keep-grads", action="store_true", help="zero_grad(set_to_none=False)")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--spin", type=float, default=0.0)
    return parser.parse_args()


def network() -> nn.Sequential:
    """A small convolutional network for pictures of 28 x 28 pixels and ten classes."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip


def loader(settings: argparse.Namespace, pictures: int = 4096) -> DataLoader[tuple[torch.Tensor, ...]]:
    """Random pictures and labels; the last batch of a pass is smaller."""
    data = TensorDataset(torch.randn(pictures, 1, 28, 28), torch.randint(0, 10, (pictures,)))
    return DataLoader(data, settings.batch_size, shuffle=True, num_workers=settings.workers)


class Spin:
    """Waits at each call for a share of the time since the last call ended."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._last = time.perf_counter()

    def __call__(self) -> None:
        now = time.perf_counter()
        end = now + self._share * (now - self._last)
        while now < end:
            now = time.perf_counter()
        self._last = now
