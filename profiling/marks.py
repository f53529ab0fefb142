"""`profiling.step` and `profiling.phase`: how a script marks its steps for `python -m profiling ab`.

Outside of an A/B both do nothing. The arm that runs the script (profiling/ab/script_arm.py) puts itself into
`sys.modules`, and provides these functions by itself where abtrace is not installed.
"""

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

_ARM = "abtrace_arm"


def step(samples: int | None = None) -> None:
    """End a step of `samples` samples; for inference, or where several optimizers make one step.

    Once a script has called it, optimizers no longer end steps.
    """
    arm: Any = sys.modules.get(_ARM)
    if arm is not None:
        arm.step(samples)


def phase(name: str) -> AbstractContextManager[None]:
    """Surround a phase of a step, to be compared by itself."""
    arm: Any = sys.modules.get(_ARM)
    return nullcontext() if arm is None else arm.phase(name)
