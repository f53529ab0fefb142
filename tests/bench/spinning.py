"""A model whose training steps take longer by a known share, which `bench_validity` must detect.

It spins once per step, after the optimizer's update, for that share of the time since the last spin; so a step that
noise prolongs spins longer, too. The baseline spins for PAUSE_S as well: any interruption costs more than its own
duration, because the idle OpenMP threads fall asleep.

It is a model because a user can add a model to a run without a new option.
"""

import time
from typing import Any

from torch.optim.optimizer import register_optimizer_step_post_hook

from models.cnn import CNN

PAUSE_S = 0.001


class SpinningCNN(CNN):
    """models.cnn.CNN that spins; only one per process, because its hook runs after the update of every optimizer.

    Args:
        spin: share of a training step's own time, 0.05 for 5 %.
        channels, image_size, classes: given by the pipeline, as to CNN.
        arguments: further ones of CNN.
    """

    def __init__(self, spin: float, channels: int, image_size: int, classes: int, **arguments: Any) -> None:
        super().__init__(channels=channels, image_size=image_size, classes=classes, **arguments)
        self._share = spin
        self._spun_at = time.perf_counter()
        register_optimizer_step_post_hook(lambda *_: self._spin())

    def train(self, mode: bool = True) -> "SpinningCNN":
        self._spun_at = time.perf_counter()  # a new pass: the time since the last pass is not part of a step
        super().train(mode)
        return self

    def _spin(self) -> None:
        now = time.perf_counter()
        end = now + PAUSE_S + self._share * (now - self._spun_at + PAUSE_S)
        while now < end:
            now = time.perf_counter()
        self._spun_at = now
