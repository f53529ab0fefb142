"""Runs of two ranks, of both strategies, in processes: overrides of both or of one, a rank that dies or hangs."""

import random
from pathlib import Path
from typing import Any

from tests.fuzz import runs
from tests.fuzz.case import LIMIT_BYTES, LIMIT_S, expect
from tests.fuzz.processes import BASE, PATIENCE_S, WAITING_LIMIT_S, ended
from tests.train.ranks.test_torchrun import FAULTS
from train.ranks.options import Strategy
from train.ranks.scratch import PREFIX

LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--log-dir=log", "--redirects=3")


class Inputs:
    """See `tests.fuzz.case.Kind`. `steps`: what happens on rank 1, restarts, and the overrides of both."""

    waiting_limit_s = WAITING_LIMIT_S

    def __init__(self, folder: Path) -> None:
        self.runs = runs.Inputs(folder)

    def make(self, source: random.Random) -> tuple[Any, dict[str, bytes]]:
        """In a half of the cases nothing happens."""
        overrides, files = self.runs.make(source)
        fault = source.choice(("none", "none", "none", "kill", "hang", source.choice(overrides)))
        return [fault, source.choice((0, 1)), [*overrides, f"strategy={source.choice(list(Strategy))}"]], files

    def run(self, steps: Any, folder: Path) -> None:
        """Train: each rank ends, with one line at most, and leaves nothing in TMPDIR."""
        fault, restarts, overrides = steps
        arguments = (*BASE, *overrides, f"rank_timeout_s={PATIENCE_S}", "checkpoint_every=2")
        end = ended((*LAUNCHER, f"--max-restarts={restarts}", str(FAULTS), fault, *arguments), folder)
        for file in folder.glob("log/*/attempt_*/*/stderr.log"):
            said = file.read_text(errors="replace")
            expect("Traceback" not in said, f"traceback: {file}: {said}")
            expect(said.count("\n") <= 1, f"not one line: {file}: {said}")
        most_s = 2 * (restarts + 1) * self.runs.plain.work_s + 2 * LIMIT_S
        expect(end.work_s < most_s, f"{end.work_s:.1f} s of work; expected: less than {most_s:.1f} s")
        most_bytes = self.runs.plain.peak_bytes + LIMIT_BYTES
        expect(end.peak_bytes < most_bytes, f"{end.peak_bytes >> 20} MiB")
        if fault == "none" and end.status == 0:
            expect(not [*folder.glob(f"tmp/{PREFIX}*")], "left in TMPDIR")
