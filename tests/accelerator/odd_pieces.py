"""Pieces that misbehave, for test_accelerator: a group as any other."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from typing import Any

from profiling.errors import NotApplicableError
from tests.accelerator.context import Context, Pieces


def pieces(context: Context) -> Pieces:
    return {
        "passes": dict,
        "wrong": wrong,
        "elsewhere": elsewhere,
        "killed": partial(os.kill, os.getpid(), signal.SIGKILL),  # type: ignore[dict-item]
        "goes_on": dict,
        "hangs": partial(hangs, context),
    }


def wrong() -> dict[str, Any]:
    raise AssertionError("1 is not 2")


def elsewhere() -> dict[str, Any]:
    raise NotApplicableError("needs another machine")


def hangs(context: Context) -> dict[str, Any]:
    """Start a process that outlives whoever only ends this one, and wait."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (context.out / "child").write_text(str(child.pid))
    time.sleep(600)
    return {}
