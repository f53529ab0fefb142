"""What every piece is told: the device, where its files go, and how configurations are made for it."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, composed
from train.config.compose import to_config
from train.config.schema import Config

Pieces = dict[str, Callable[[], dict[str, Any]]]
"""Name of a piece -> asks it; returns what it found, or raises."""


@dataclass(frozen=True)
class Context:
    """Where the pieces run.

    Attributes:
        device: as `device=` of the configuration; `cpu` stands in for an accelerator, with everything shrunk.
        out: small files that are kept.
    """

    device: str
    out: Path

    @property
    def is_accelerator(self) -> bool:
        return self.device != "cpu"

    @property
    def overrides(self) -> tuple[str, ...]:
        """None on an accelerator, which `auto` finds: `device_cpu` and its baseline must be free to differ in it."""
        return () if self.is_accelerator else ("device=cpu",)

    def configure(self, *overrides: str) -> Config:
        return to_config(composed(*self.overrides, *overrides))


def scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="accelerator-"))


def command(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m MODULE ARGUMENTS...` in the checkout; whoever ends this process's group ends it, too."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
