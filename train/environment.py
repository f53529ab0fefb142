"""The machine and the versions that a run's figures belong to."""

import importlib.metadata
import platform
import socket
from pathlib import Path

import psutil
import torch

from profiling.run_record import Environment
from train.config.options import Precision

PACKAGES = ("torch", "torchvision", "numpy", "hydra-core", "tensorboard")


def describe(device: torch.device, precision: Precision) -> Environment:
    """The environment of a run on `device` in `precision`."""
    return Environment(
        host=socket.gethostname(),
        platform=platform.platform(),
        processor=processor(),
        cores=psutil.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        device=device.type,
        device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        precision=precision.value,
        threads=torch.get_num_threads(),
        versions={
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
    )


def processor() -> str:
    """The processor's name; `platform.processor()` is empty on most Linux systems."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
