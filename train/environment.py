"""The machine and the versions that a run's figures belong to."""

import importlib.metadata
import platform

import torch

from profiling import machine
from profiling.run_record import Environment
from train.config.options import Precision

PACKAGES = ("torch", "torchvision", "numpy", "hydra-core", "tensorboard")


def describe(device: torch.device, precision: Precision) -> Environment:
    """The environment of a run on `device` in `precision`."""
    versions = {"python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in PACKAGES}
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return machine.environment(device.type, device_name, precision.value, torch.get_num_threads(), versions)
