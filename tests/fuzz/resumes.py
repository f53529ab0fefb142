"""Runs that are ended by a signal at a random moment, with damage to what they left, and go on."""

import random
import signal
from pathlib import Path
from typing import Any

from tests.fuzz.case import expect
from tests.fuzz.mutations import changed_bytes
from tests.fuzz.processes import BASE, WAITING_LIMIT_S, check, ended

RUN = ("-m", "train", *BASE, "epochs=200", "checkpoint_every=7")
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
DAMAGED = ("states/epoch-*.pt", "states/epoch-*.pt", ".hydra/overrides.yaml", "events.out.tfevents.*", "record.json")


class Inputs:
    """See `tests.fuzz.case.Kind`. `steps`: the signal, when it comes, and a seed of the damage, or None."""

    waiting_limit_s = WAITING_LIMIT_S

    def __init__(self, folder: Path) -> None:
        self.plain = ended(RUN, folder)

    def make(self, source: random.Random) -> tuple[Any, dict[str, bytes]]:
        """Damage in a half of the cases."""
        return [source.choice(SIGNALS), source.uniform(0, 0.5), source.choice((None, source.randrange(2**32)))], {}

    def run(self, steps: Any, folder: Path) -> None:
        """End the run, and let it go on: to its end, or to a line that says why not."""
        name, seconds, seed = steps
        end = ended(RUN, folder, (signal.Signals[name], seconds))
        expect("Traceback" not in end.errors, f"traceback: {end.errors}")
        if end.status == 0:
            return  # it was complete before the signal came
        number = signal.Signals[name]
        expect(end.status in (-number, 128 + number), f"status {end.status}: {end.errors}")
        if seed is not None:
            damage(random.Random(seed), folder)
        again = ended(("-m", "train", "resume=latest", "output=runs"), folder)
        check(again, self.plain, folder)
        expect(again.status == 0 or seed is not None, f"did not go on: {again.errors}")
        for left in folder.rglob(".tmp-*"):  # SIGKILL: no name that anything reads
            expect(name == "SIGKILL", f"left behind: {left}")
            left.unlink()


def damage(source: random.Random, folder: Path) -> None:
    """Change the bytes of a file that the run left, or remove it."""
    found = sorted(folder.glob(f"runs/*/*/{source.choice(DAMAGED)}"))
    if not found:
        return
    file = source.choice(found)
    if source.random() < 0.2:
        file.unlink()
    else:
        file.write_bytes(changed_bytes(source, file.read_bytes()))
