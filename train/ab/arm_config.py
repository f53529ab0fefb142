"""What one arm of this pipeline runs, and how its process starts it. Imports no torch: the parent process does not."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from profiling.ab.messages import Arm
from profiling.ab.process import ArmProcess
from profiling.terminal.event_writers import silence_event_writer_threads
from train.config.schema import Config
from train.ranks.launch import variables

# torch._inductor, with torch._dynamo, is what a first optimizer or deterministic algorithms import.
PRELOADED = ("train.ab.__main__", "train.ab.arm", "sklearn.datasets", "torch._inductor")


@dataclass(frozen=True)
class ArmConfig:
    """A configuration, and what differs from the plain baseline in it: dotted key -> [baseline's value, this arm's]."""

    config: Config
    changed: Mapping[str, tuple[Any, Any]]

    def start(self, scratch: Path) -> ArmProcess:
        """Start the arm in a process of its own, or in several ranks.

        `scratch` is a folder for what is written while timing.
        """
        starts = [partial(self.make, scratch, of_rank) for of_rank in variables(self.config.ranks or 1)]
        return ArmProcess(starts, PRELOADED)

    def make(self, scratch: Path, of_rank: Mapping[str, str]) -> Arm:
        """Make the arm; called in the arm's own process, in each with the environment `of_rank`."""
        os.environ.update(of_rank)
        from train.ab.arm import ArmWorker  # imports torch

        silence_event_writer_threads()
        return ArmWorker(self.config, self.changed, scratch)
