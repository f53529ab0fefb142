"""A model whose training steps take a given share longer: the known truth that `bench_validity` looks for.

Spinning happens inside the model's forward pass and is sized by the fastest step of the process so far, from the end of
one spin to the start of the next, since that is the step which train.ab goes by: sized by each step itself, spins that
followed a slow step were too long, and three effects of 40 came out at 7 % instead of 5.

All threads of torch spin, in turns of a few microseconds. While one spun alone, the others waited for 0.6 ms, and what
came next was late: 341 blocks on two cores of a virtual machine, beside as many that did not spin, were 5.3 % longer
instead of 5.0, and 5.0 with this. It is a model because that is what a user can put into a run without an option of the
product.
"""

import math
import time
from typing import Any

import torch
from torch import Tensor

from models.cnn import CNN


class SpinningCNN(CNN):
    """models.cnn.CNN that spins.

    Args:
        spin: share of a training step's own time, 0.05 for 5 %.
        arguments: of CNN.
    """

    def __init__(self, spin: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.spin = spin
        self.spun_at: float | None = None
        self.spun_images = 0
        self.own_s_per_image = math.inf
        self._work = torch.zeros(2**16, dtype=torch.int8)  # the least that torch divides among threads

    def train(self, mode: bool = True) -> "SpinningCNN":
        self.spun_at = None  # a new pass: whatever was done since is no step
        super().train(mode)
        return self

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        if self.training and self.spin:
            now = time.perf_counter()
            if self.spun_at is not None and len(images) == self.spun_images:  # not after the last, smaller batch
                self.own_s_per_image = min(self.own_s_per_image, (now - self.spun_at) / len(images))
            end = now + self.spin * self.own_s_per_image * len(images)
            while time.perf_counter() < end < math.inf:
                self._work.neg_()
            self.spun_at, self.spun_images = time.perf_counter(), len(images)
        return logits
