"""A model whose training steps take a given share longer: the known truth that `bench_validity` looks for.

It spins after every layer, and in the backward pass after every parameter's gradient, each time for that share of what
has passed since the last spin, as a slower processor would. What lies between two steps, such as the optimizer, is spun
for at the start of the next one, by the least that it has taken: a burst of noise there must not prolong a fast step.

The truth is not quite as known as it looks. Of 31 comparisons with a share of 5 %, the typical one found 5.5 %, and of
80 with one long spin in each step, 5.3 %; in one process that spins in some blocks and not in others it is 5.0 to 5.2 %
(209 blocks of each). Why is open: while a step spins, caches grow cold, and other machines' work on the same host can
see to that at some hours more than at others.

It is a model because that is what a user can put into a run without an option of the product; the baseline has the
hooks, too, and spins for a share of 0.
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
        self._share = spin
        self._between_steps_s = math.inf
        self._spun_at: float | None = None
        for layer in self.modules():
            if not list(layer.children()):
                layer.register_forward_hook(lambda *_: self._catch_up())
        for parameter in self.parameters():
            parameter.register_post_accumulate_grad_hook(lambda _: self._catch_up())

    def train(self, mode: bool = True) -> "SpinningCNN":
        self._spun_at = None  # a new pass: whatever was done since is no step
        super().train(mode)
        return self

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            if self._spun_at is not None:
                self._between_steps_s = min(self._between_steps_s, time.perf_counter() - self._spun_at)
            self._spin(self._between_steps_s if self._between_steps_s < math.inf else 0.0)
        return super().forward(images)

    def _catch_up(self) -> None:
        if self._spun_at is not None:
            self._spin(time.perf_counter() - self._spun_at)

    def _spin(self, own_s: float) -> None:
        end = time.perf_counter() + self._share * own_s
        while (now := time.perf_counter()) < end:
            pass
        self._spun_at = now
