"""What several ranks change in a run, as callables, and those of a run that one process does alone."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from train.batches import Batches
from train.config.schema import DataConfig
from train.data import DataSet, load
from train.loop import EpochMetrics
from train.ranks.order import Share, whole
from train.ranks.scratch import only_writer
from train.ranks.state_dicts import StateDicts, WholeStateDicts
from train.variants import Recipe

Own = TypeVar("Own")


def facts_of(data: DataSet) -> dict[str, int | list[str]]:
    """What all ranks must find alike, and what a run that goes on must find as it was."""
    return {"train": len(data.train), "test": len(data.test), "classes": list(data.classes)}


class RankGroup(Protocol):
    """The processes that train one model together, as one of them sees them.

    Attributes:
        rank: number of this process.
        ranks: how many there are.
        share: the part of a batch that this process takes.
        state_dicts: how the states of model and optimizer are taken and put back.
    """

    rank: int
    ranks: int
    share: Share
    state_dicts: StateDicts

    def device(self, device: torch.device) -> torch.device:
        """The device of this process, of the kind of `device`."""

    def load(self, data: DataConfig) -> DataSet:
        """Load the data set; where it may be downloaded, one process of a machine does it first."""

    def agree(self, topic: str, values: Mapping[str, Any]) -> None:
        """Check that all processes have the same `values`, which `topic` names in the message; raise UserError."""

    def own_random(self, augmentation: torch.Generator) -> None:
        """Let the random numbers of augmentation and dropout differ between processes."""

    def parallel(
        self, module: nn.Module, recipe: Recipe, train_batches: Batches, test_batches: Batches
    ) -> tuple[nn.Module, Recipe, Batches, Batches]:
        """The model as called and what it is called with, such that each update is that of whole batches.

        The batches given are this process' shares of them.
        """

    def same_buffers(self, module: nn.Module) -> None:
        """Let all processes have the buffers of rank 0, such as running statistics of batch norm."""

    def total(self, metrics: EpochMetrics) -> EpochMetrics:
        """The metrics of all processes' shares."""

    def summed(self, figures: Mapping[str, float]) -> dict[str, float]:
        """The sums of all processes' figures, such as samples per second."""

    def of_first(self, numbers: tuple[int, int]) -> tuple[int, int]:
        """The numbers that rank 0 gives, in all processes."""

    def all_end_after(self, step: int) -> bool:
        """Whether `step` is the one after which all processes end, each of which has been asked to.

        To be called after each step since this one was asked, with their numbers.
        """

    def gathered(self, own: Own) -> list[Own]:
        """What all processes give, in the order of their ranks: in rank 0; nothing in the others."""

    def own_folder(self, folder: Path) -> AbstractContextManager[Path]:
        """Where this process leaves what one is enough to leave: rank 0 in the run's `folder`."""


class Alone:
    """One process, which takes whole batches and has nobody to ask."""

    rank = 0
    ranks = 1
    share = staticmethod(whole)
    state_dicts: StateDicts = WholeStateDicts()

    def device(self, device: torch.device) -> torch.device:  # noqa: D102
        return device

    def load(self, data: DataConfig) -> DataSet:  # noqa: D102
        return load(data)

    def agree(self, topic: str, values: Mapping[str, Any]) -> None:  # noqa: D102
        return None

    def own_random(self, augmentation: torch.Generator) -> None:  # noqa: D102
        return None

    def parallel(  # noqa: D102
        self, module: nn.Module, recipe: Recipe, train_batches: Batches, test_batches: Batches
    ) -> tuple[nn.Module, Recipe, Batches, Batches]:
        return module, recipe, train_batches, test_batches

    def same_buffers(self, module: nn.Module) -> None:  # noqa: D102
        return None

    def total(self, metrics: EpochMetrics) -> EpochMetrics:  # noqa: D102
        return metrics

    def summed(self, figures: Mapping[str, float]) -> dict[str, float]:  # noqa: D102
        return dict(figures)

    def of_first(self, numbers: tuple[int, int]) -> tuple[int, int]:  # noqa: D102
        return numbers

    def all_end_after(self, step: int) -> bool:  # noqa: D102
        return True

    def gathered(self, own: Own) -> list[Own]:  # noqa: D102
        return [own]

    def own_folder(self, folder: Path) -> AbstractContextManager[Path]:  # noqa: D102
        return only_writer(folder)


ALONE = Alone()
