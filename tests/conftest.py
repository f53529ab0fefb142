"""What tests share: composing configurations, and running the command line as a user does."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from train.config import cli
from train.config.compose import to_config
from train.config.schema import Config
from train.device import DEFAULT_THREADS

ROOT = Path(__file__).parent.parent

# Small enough that a whole run takes a second or two: two training batches of 128 and 32, one of evaluation.
TINY_DATA = (
    "data=synthetic",
    "data.train_samples=160",
    "data.test_samples=48",
    "data.channels=1",
    "data.image_size=28",
)
TINY = (*TINY_DATA, "epochs=1", "profiler.wait=0", "profiler.active=1")

cli.register()

# A shell starts background jobs with SIGINT ignored, and their children inherit that; tests send real ones.
signal.signal(signal.SIGINT, signal.default_int_handler)


def composed(*overrides: str) -> DictConfig:
    """What Hydra makes of the command line `overrides`."""
    with initialize_config_module("configs", version_base="1.3"):
        return compose("config", overrides=list(overrides))


@pytest.fixture
def configure() -> Callable[..., Config]:
    """Overrides to a checked configuration."""
    return lambda *overrides: to_config(composed(*overrides))


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `python -m MODULE ARGUMENTS...` from the checkout."""

    def run(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture(autouse=True)
def restored_process() -> Iterator[None]:
    """Undo what a run sets for the whole process."""
    yield
    torch.set_num_threads(DEFAULT_THREADS)
    torch.use_deterministic_algorithms(False)
    torch.autograd.set_detect_anomaly(False)
