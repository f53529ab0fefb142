"""Whole runs, in processes: allowed values of many keys together, and sometimes one that is not."""

import random
from pathlib import Path
from typing import Any

from tests.fuzz import configs
from tests.fuzz.processes import BASE, LONGER, WAITING_LIMIT_S, check, ended


class Inputs:
    """See `tests.fuzz.case.Kind`. `steps`: the overrides."""

    waiting_limit_s = WAITING_LIMIT_S

    def __init__(self, folder: Path) -> None:
        self.configs = configs.Inputs(folder)
        self.plain = ended(("-m", "train", *BASE), folder)

    def make(self, source: random.Random) -> tuple[Any, dict[str, bytes]]:
        """Up to six overrides, which leave the run short; in a third of the cases the last is odd."""
        wanted, overrides = source.choice((1, 2, 3, 6)), list[str]()
        odd = source.random() < 1 / 3
        while len(overrides) < wanted:
            is_odd = odd and len(overrides) == wanted - 1
            override = self.configs.override(source, odd=is_odd)
            if not any(word in override for word in LONGER) and "\0" not in override:
                overrides.append(override.encode("utf-8", "replace").decode())  # a command line has no lone surrogates
        return overrides, {}

    def run(self, steps: Any, folder: Path) -> None:
        """Train."""
        check(ended(("-m", "train", *BASE, *steps), folder), self.plain, folder)
