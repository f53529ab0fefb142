"""States of training: files that this program wrote, changed in bytes and in fields, then gone on from."""

import io
import random
from pathlib import Path
from typing import Any

import torch

from profiling.capture import TimedCapture
from profiling.errors import UserError
from profiling.vocabulary import STAGES
from tests.conftest import composed
from tests.fuzz.case import expect
from tests.fuzz.checkpoints import RAN, Code
from tests.fuzz.mutations import changed_bytes, odd_value
from tests.fuzz.processes import BASE
from train import session
from train.config import compose
from train.events import EventFile
from train.ranks import state
from train.ranks.progress import Progress
from train.ranks.resume import saved_state

NAME = "epoch-000000-step-000000004.pt"


class Inputs:
    """See `tests.fuzz.case.Kind`. `steps`: nothing more than the file."""

    def __init__(self, folder: Path) -> None:
        self.parts = session.prepare(compose.to_config(composed(*BASE, "checkpoint_every=4", "resume=latest")))
        with EventFile(folder) as events:
            progress = Progress(self.parts, self._timed(), events, folder, None)
            for _ in progress.epochs():
                with self._timed()["train"] as capture:
                    self.parts.fit(self.parts.train_batches, capture, progress.after_step)
        self.valid = (folder / state.FOLDER / NAME).read_bytes()

    def _timed(self) -> dict[str, TimedCapture]:
        return {stage: TimedCapture(self.parts.device) for stage in STAGES}

    def make(self, source: random.Random) -> tuple[Any, dict[str, bytes]]:
        """A state that is damaged, or that has other fields."""
        if source.random() < 0.4:
            return [], {f"{state.FOLDER}/{NAME}": changed_bytes(source, self.valid)}
        content = torch.load(io.BytesIO(self.valid), weights_only=True)
        for _ in range(source.choice((1, 1, 2))):
            _change(source, content)
        file = io.BytesIO()
        torch.save(content, file)
        return [], {f"{state.FOLDER}/{NAME}": file.getvalue()}

    def run(self, steps: Any, folder: Path) -> None:
        """Go on from it, or say in a line why not; never with code of the file."""
        try:
            saved = saved_state(self.parts, folder)
            with EventFile(folder) as events:
                next(Progress(self.parts, self._timed(), events, folder, saved).epochs(), None)
        except UserError as error:
            expect(str(error).strip() and str(error).isprintable(), f"not one line: {error!r}")
        expect(not (folder / RAN).exists(), RAN)


def _change(source: random.Random, content: dict[Any, Any]) -> None:
    """Change one value, at any depth."""
    if not content:
        return
    key = source.choice(list(content))
    value = content[key]
    if isinstance(value, dict) and value and source.random() < 0.8:
        _change(source, value)
    elif isinstance(value, list) and value and isinstance(value[0], dict) and source.random() < 0.8:
        _change(source, value[0])
    elif source.random() < 0.2:
        del content[key]
    elif isinstance(value, torch.Tensor) and source.random() < 0.7:
        content[key] = source.choice((value.double(), value.flatten()[:1], value.unsqueeze(0), value.to("meta")))
    else:
        content[key] = source.choice((Code(), torch.zeros(2), odd_value(source), -1, 2**40, {}, []))
