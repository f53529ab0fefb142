"""A model whose training steps take a given share longer: the known truth that `bench_validity` looks for.

It spins once in every step, after the optimizer's update, for that share of the time since the last spin, so that a
step that a burst of noise prolonged is prolonged by its share of it, too. The baseline stops as well, for PAUSE_S: to
stop at all costs more than the time it takes, since the other thread falls asleep meanwhile. In 78 launches of three
processes that took turns at five ways to spin, on a 2-core machine whose steps take 14.5 ms (median of the ratios):

    once, and the baseline not at all                       +5.4 % +- 0.3
    after every layer and gradient, in proportion           +5.7 % +- 0.3
    once, the baseline 1 ms                                 +4.9 % +- 0.3
    1 ms against not at all, which is 6.9 % of a step       +8.0 % +- 0.3

It is a model because that is what a user can put into a run without an option of the product.
"""

import time
from typing import Any

from torch.optim.optimizer import register_optimizer_step_post_hook

from models.cnn import CNN

PAUSE_S = 0.001


class SpinningCNN(CNN):
    """models.cnn.CNN that spins; one for each process, since it follows all optimizers.

    Args:
        spin: share of a training step's own time, 0.05 for 5 %.
        arguments: of CNN.
    """

    def __init__(self, spin: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._share = spin
        self._spun_at = time.perf_counter()
        register_optimizer_step_post_hook(lambda *_: self._spin())

    def train(self, mode: bool = True) -> "SpinningCNN":
        self._spun_at = time.perf_counter()  # a new pass: what was done since the last one is no part of a step
        super().train(mode)
        return self

    def _spin(self) -> None:
        now = time.perf_counter()
        end = now + PAUSE_S + self._share * (now - self._spun_at + PAUSE_S)
        while now < end:
            now = time.perf_counter()
        self._spun_at = now
