"""The needs of experiments. Where one is not met, the experiment is not applicable: it reports no result."""

import inspect
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psutil
import torch
from torch import nn

from models.interface import has_backbone
from profiling.errors import NotApplicableError
from profiling.heap import has_glibc
from train.batches import source_of
from train.config.options import Need, Source
from train.config.schema import Config
from train.data import DataSet, FileSplit
from train.device import has_bf16
from train.ranks.launch import number_of_ranks


@dataclass(frozen=True)
class ExperimentContext:
    """What the needs of an experiment are checked against."""

    config: Config
    device: torch.device
    data: DataSet
    model: nn.Module


NEEDS: Mapping[Need, tuple[str, Callable[[ExperimentContext], bool]]] = {
    Need.accelerator: ("an accelerator, and there is none", lambda context: torch.accelerator.is_available()),
    Need.cuda: ("a CUDA device, and there is none", lambda context: torch.cuda.is_available()),
    Need.two_devices: ("a second CUDA device, and there is none", lambda context: torch.cuda.device_count() > 1),
    Need.compiler: (
        "a C++ compiler for torch.compile, and neither g++ nor clang++ is on the path",
        lambda context: any(shutil.which(name) for name in ("g++", "clang++", "c++", "cl")),
    ),
    Need.bf16: ("bf16 arithmetic, which this device lacks", lambda context: has_bf16(context.device)),
    Need.multicore: ("two cores or more, and there is one", lambda context: (psutil.cpu_count() or 1) > 1),
    Need.glibc: ("the C library glibc, whose heap this is about", lambda context: has_glibc()),
    Need.attention: (
        "a model with attention: add model=vit",
        lambda context: _constructor_takes(context.model, "attention"),
    ),
    Need.batch_norm: (
        "a model whose convolutions may have a bias before batch norm: add model=cnn",
        lambda context: _constructor_takes(context.model, "conv_bias"),
    ),
    Need.frozen_backbone: (
        "a frozen backbone: add model=resnet18 model.freeze_backbone=true",
        lambda context: has_backbone(context.model) and context.model.freeze_backbone,
    ),
    Need.image_files: (
        "images that are decoded from files: add data=jpeg_digits, or data=image_folder data.root=...",
        lambda context: isinstance(context.data.train, FileSplit),
    ),
    Need.dataloader: (
        "batches from a DataLoader: add loader.source=dataloader",
        lambda context: source_of(context.data.train, context.config.loader, context.device) is Source.dataloader,
    ),
    Need.ranks: (
        "several processes: start it with torchrun, or give ranks=2",
        lambda context: number_of_ranks() > 1,
    ),
    Need.micro_batches: (
        "an update of several passes: add micro_batches=4",
        lambda context: context.config.micro_batches > 1,
    ),
}


def check(context: ExperimentContext) -> None:
    """Raise NotApplicableError if a need of the experiment is not met; its message names the first one."""
    for need in context.config.hypothesis.needs:
        text, is_met = NEEDS[need]
        if not is_met(context):
            raise NotApplicableError(f"not applicable here: {context.config.name} needs {text}")


def _constructor_takes(model: nn.Module, parameter: str) -> bool:
    return parameter in inspect.signature(type(model)).parameters
