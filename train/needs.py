"""What an experiment needs in order to act. Where that is missing, it is not applicable here: no number is made up."""

import inspect
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psutil
import torch
from torch import nn

from models.interface import has_backbone
from profiling.errors import NotApplicableError
from train.batches import source_of
from train.config.options import Need, Source
from train.config.schema import Config
from train.data import DataSet, FileSplit
from train.device import has_bf16, has_glibc


@dataclass(frozen=True)
class Here:
    """What a need is judged by."""

    config: Config
    device: torch.device
    data: DataSet
    model: nn.Module


NEEDS: Mapping[Need, tuple[str, Callable[[Here], bool]]] = {
    Need.accelerator: ("an accelerator, and there is none", lambda here: torch.accelerator.is_available()),
    Need.cuda: ("a CUDA device, and there is none", lambda here: torch.cuda.is_available()),
    Need.compiler: (
        "a C++ compiler for torch.compile, and neither g++ nor clang++ is on the path",
        lambda here: any(shutil.which(name) for name in ("g++", "clang++", "c++", "cl")),
    ),
    Need.bf16: ("bf16 arithmetic, which this device lacks", lambda here: has_bf16(here.device)),
    Need.multicore: ("two cores or more, and there is one", lambda here: (psutil.cpu_count() or 1) > 1),
    Need.glibc: ("the C library glibc, whose heap this is about", lambda here: has_glibc()),
    Need.attention: ("a model with attention: add model=vit", lambda here: _takes(here.model, "attention")),
    Need.batch_norm: (
        "a model whose convolutions may have a bias before batch norm: add model=cnn",
        lambda here: _takes(here.model, "conv_bias"),
    ),
    Need.frozen_backbone: (
        "a frozen backbone: add model=resnet18 model.freeze_backbone=true",
        lambda here: has_backbone(here.model) and here.model.freeze_backbone,
    ),
    Need.image_files: (
        "images that are decoded from files: add data=jpeg_digits, or data=image_folder data.root=...",
        lambda here: isinstance(here.data.train, FileSplit),
    ),
    Need.dataloader: (
        "batches from a DataLoader: add loader.source=dataloader",
        lambda here: source_of(here.data.train, here.config.loader, here.device) is Source.dataloader,
    ),
}


def check(here: Here) -> None:
    """Raise NotApplicableError, naming the first thing that the experiment needs and does not find."""
    for need in here.config.hypothesis.needs:
        text, is_met = NEEDS[need]
        if not is_met(here):
            raise NotApplicableError(f"not applicable here: {here.config.name} needs {text}")


def _takes(model: nn.Module, parameter: str) -> bool:
    return parameter in inspect.signature(type(model)).parameters
