"""A model whose training steps take a given share longer: the known truth that `bench_validity` looks for.

Spinning happens inside the model's forward pass and is sized by the fastest step of the process so far, from the end of
one spin to the start of the next, since that is the step which train.ab goes by: sized by each step itself, spins that
followed a slow step were too long, and three effects of 40 came out at 7 % instead of 5. It is a model because that is
what a user can put into a run without an option of the product.
"""

import math
import time
from typing import Any

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
                pass
            self.spun_at, self.spun_images = time.perf_counter(), len(images)
        return logits
