"""`python -m train` in this process, for the kinds of input that it reads."""

import os
import signal
import sys
from collections.abc import Sequence
from unittest import mock

from hydra.core.global_hydra import GlobalHydra

from profiling.terminal.early_signals import ENDING
from tests.fuzz.case import command
from train.__main__ import start


def run_train(overrides: Sequence[str]) -> tuple[int, str, str]:
    """Run the command; see `tests.fuzz.case.command`."""

    def main() -> int:
        handlers = {number: signal.getsignal(number) for number in ENDING}
        try:
            with mock.patch.object(sys, "argv", ["train", *overrides]), mock.patch.dict(os.environ):
                return start()
        finally:
            GlobalHydra.instance().clear()
            for number, handler in handlers.items():
                signal.signal(number, handler)

    return command(main, finds=False)
