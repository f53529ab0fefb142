"""Run `python -m train` under torchrun, with something that happens on rank 1: `faults.py FAULT ARGUMENT...`.

A fault is `none`, `kill` or `hang` (in the first start of the ranks, after some steps), or an argument of rank 1 alone.
"""

import os
import signal
import sys
import time
from pathlib import Path

STEPS = 9

sys.path.insert(0, str(Path(__file__).parents[3]))

from train import __main__ as command  # noqa: E402  (the checkout must be found first)


def at_a_step(fault: str) -> None:
    """Let `fault` happen in a step."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # as the command does, before torch is imported
    from train import loop

    done, real = 0, loop.train_step

    def step(*arguments):
        nonlocal done
        done += 1
        if done == STEPS:
            if fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)
        real(*arguments)

    loop.train_step = step


if __name__ == "__main__":
    fault = sys.argv.pop(1)
    if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        if fault in ("kill", "hang"):
            at_a_step(fault)
        elif fault != "none":
            sys.argv.append(fault)
    command.main()
