"""What tests of train.ab run in processes: models that fail in one particular way, and where memory lies."""

import os
import resource
import signal
import time
from multiprocessing.connection import Connection

import torch
from torch import Tensor

from models.mlp import MLP
from profiling.ab.arm_tools import randomize_heap


class Failing(MLP):
    """An MLP whose fourth step of training ends as `how` says; without `how`, it works."""

    def __init__(self, width: int, channels: int, image_size: int, classes: int, how: str = "") -> None:
        super().__init__(channels=channels, image_size=image_size, classes=classes, width=width, depth=1, dropout=0.0)
        self.how = how
        self.steps = 0

    def forward(self, images: Tensor) -> Tensor:
        self.steps += self.training
        if self.steps >= 4 and self.how:
            getattr(self, self.how)()
        return super().forward(images)

    def crash(self) -> None:
        raise RuntimeError("first line\nthe wheels came off")

    def hang(self) -> None:
        time.sleep(3600)

    def exhaust(self) -> None:
        in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: SIM115, PTH123
        resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**28,) * 2)
        torch.ones(2**30)

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def distance(pipe: Connection) -> None:
    """Send how far from each other, in bytes, two tensors lie that an arm makes one after the other."""
    _kept = randomize_heap()
    one, other = torch.empty(5_000), torch.empty(20_000)
    pipe.send(other.data_ptr() - one.data_ptr())
