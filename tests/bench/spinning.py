"""A model whose training steps take a given share longer: the known truth that `bench_validity` looks for.

Spinning happens inside the model's forward pass and is sized by the step itself, from the end of one spin to the start
of the next, so that the slowdown is that share in a busy second as in a quiet one. It is a model because that is what a
user can put into a run without an option of the product.
"""

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
        self.own_s_per_image = 0.0

    def train(self, mode: bool = True) -> "SpinningCNN":
        self.spun_at = None  # a new pass, whose first step is as long as the last one of the pass before
        super().train(mode)
        return self

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        if self.training and self.spin:
            now = time.perf_counter()
            if self.spun_at is not None:
                self.own_s_per_image = (now - self.spun_at) / len(images)
            end = now + self.spin * self.own_s_per_image * len(images)
            while time.perf_counter() < end:
                pass
            self.spun_at = time.perf_counter()
        return logits
