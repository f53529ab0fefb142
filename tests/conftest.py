"""Shared by tests: composing configurations, and running the command line as a user does."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig
from xdist.scheduler import LoadFileScheduling

from profiling.terminal.early_signals import ENDING
from tests.tab.browser import CHROMIUM, chromium
from train.config import cli
from train.config.compose import to_config
from train.config.schema import Config
from train.device import DEFAULT_THREADS

hypothesis.settings.register_profile("suite", deadline=None)  # on a busy machine, an example may take long
hypothesis.settings.load_profile("suite")

ROOT = Path(__file__).parent.parent

# Keeps a whole run short: two training batches of 128 and 32 images, and one batch of evaluation.
TINY_DATA = (
    "data=synthetic",
    "data.train_samples=160",
    "data.test_samples=48",
    "data.channels=1",
    "data.image_size=28",
)
TINY = (*TINY_DATA, "epochs=1", "profiler.wait=0", "profiler.active=1")

cli.register()

for name in ("COLUMNS", "LINES"):  # of the terminal: processes of pytest-xdist inherit them from readline
    os.environ.pop(name, None)

# Background jobs of a shell ignore SIGINT, and child processes inherit this; some tests send SIGINT to child processes.
signal.signal(signal.SIGINT, signal.default_int_handler)


class ByFile(LoadFileScheduling):
    """Tests of one file run in one process, and all of the tab do: they share what is slow to make."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/tab" if nodeid.startswith("tests/tab/") else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


def composed(*overrides: str) -> DictConfig:
    """The configuration that Hydra composes from the command line `overrides`."""
    with initialize_config_module("configs", version_base="1.3"):
        return compose("config", overrides=list(overrides))


@pytest.fixture
def configure() -> Callable[..., Config]:
    """A function from overrides to a checked configuration."""
    return lambda *overrides: to_config(composed(*overrides))


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs `python -m MODULE ARGUMENTS...` in the checkout."""

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
    """Restore the settings that a run changes for the whole process.

    A handler of signals that stays would hold its run, with the workers of its loaders, and they hold open pipes.
    """
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    handlers = {number: signal.getsignal(number) for number in (*ENDING, signal.SIGALRM)}
    yield
    resource.setrlimit(resource.RLIMIT_DATA, limits)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    torch.set_num_threads(DEFAULT_THREADS)
    torch.use_deterministic_algorithms(False)
    torch.autograd.set_detect_anomaly(False)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium for all tests: Playwright's synchronous interface can be open only once."""
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}")
    with chromium() as opened:
        yield opened
