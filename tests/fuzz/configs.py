"""Configurations: overrides with allowed and other values, composed and checked as `python -m train` does.

Some build the parts of the run, too: sizes that are allowed alone may be too large together. Nothing is trained.
"""

import dataclasses
import json
import random
from collections.abc import Mapping
from enum import Enum
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_type_hints
from unittest import mock

import train.inference
import train.run
from tests.conftest import composed
from tests.fuzz.case import expect
from tests.fuzz.mutations import NUMBERS, TEXTS
from tests.fuzz.train_command import run_train
from train import session
from train.config import compose
from train.config.schema import Config

GROUPS = ("data", "model", "optimizer", "profiler", "experiment")
TARGETS = (
    "models.mlp.MLP", "models.vit.ViT", "torch.nn.Module", "torch.nn.Linear", "torch.optim.AdamW", "train.data.digits",
    "train.data.synthetic", "builtins.print", "builtins.exec", "os.system", "os._exit", "os.abort", "sys.exit",
    "math.pi", "models", "models.", ".MLP", "nowhere.Nothing", "train.data", "subprocess.check_output", "a.b c",
)  # fmt: skip
SYNTAX = (
    "[]", "{}", "[1,2]", "{a:1}", "[0.9,2]", "[null,0.9]", "null", "???", "${seed}", "${nothing}", "${name}", "${",
    "${run_label:a,b,c}", "${run_label:a,[b],c}", "${oc.env:HOME}", "${oc.env:NOTHING}", "${now:%Y}",
    "${hydra:job.name}", "${experiment_list:}", "1,2", "range(3)", "glob(*)", "choice(a,b)", "'x", "\"x\"", "[", "]",
    "(", "a b", "a=b", "=", "int(1)", "float(nan)", "str(1)", "extend_list(1)", "true", "false", "True", "yes", "off",
    "1e400", "-inf", "inf", "nan",
)  # fmt: skip
LINES = (
    "", "=", "=1", "x", "~", "~seed", "~data", "~model.width", "+", "++", "seed", "seed=", "a.b.c=1", "+a.b=1", "+a=1",
    "data.=1", ".seed=1", "seed.x=1", "model@x=mlp", "+model@x=mlp", "model@=mlp", "optimizer@model=adamw",
    "~experiment",
    "+experiment=[nograd_off,amp_off]", "+experiment=[]", "hydra=1", "hydra.job.name=x", "hydra/job_logging=none",
    "hydra.job.chdir=x", "hydra.verbose=maybe", "+hydra/launcher=joblib", "switches=null", "loader=1", "hypothesis=x",
    "augment={shift:1}", "profiler={}", "data={_target_:train.data.digits}", "optimizer.betas=[0.9,2]",
    "model=[mlp,cnn]", "data=[digits]", "experiment=nograd_off", "config=1", "schema/model=mlp", "+schema/model=mlp",
)  # fmt: skip
DRAWN = {"data": "data=synthetic", "model": "model=mlp"}
"""Options whose parts can be built without files and without a network."""


class Inputs:
    """See `tests.fuzz.case.Kind`. `steps`: whether to build the parts, and the overrides."""

    def __init__(self, folder: Path) -> None:
        parts = [*DRAWN.values(), "data.train_samples=20", "data.test_samples=5"]
        session.prepare(compose.to_config(composed(*parts)))  # the first one imports what a case has no time for
        self.types = {key: _type(key) for key in compose.every_key() if key != "output"}  # that one names folders
        self.options = {
            group: [file.name.removesuffix(".yaml") for file in resources.files("configs").joinpath(group).iterdir()]
            for group in GROUPS
        }

    def make(self, source: random.Random) -> tuple[Any, dict[str, bytes]]:
        """Overrides: one mistake at most in a half of the cases, so that late checks have their turn."""
        builds = source.random() < 0.3
        overrides = [*DRAWN.values(), "data.train_samples=20", "data.test_samples=5"] if builds else []
        odd = source.random() < 0.5
        for _ in range(source.choice((1, 1, 2, 5, 20))):
            overrides.append(self.override(source, odd=odd))
        if not odd and source.random() < 0.7:
            overrides.append(self.override(source, odd=True))
        return [builds, overrides], {}

    def override(self, source: random.Random, *, odd: bool) -> str:
        """A group's option, or a key with a value; an odd one may be neither."""
        kind = source.random()
        if odd and kind < 0.2:
            return source.choice(LINES)
        if kind < 0.35:
            group = source.choice(GROUPS)
            value = source.choice((*SYNTAX, *map(str, NUMBERS))) if odd else source.choice(self.options[group])
            return f"{'+' if group == 'experiment' or (odd and source.random() < 0.1) else ''}{group}={value}"
        key = source.choice(list(self.types))
        if odd and key.endswith("_target_"):
            return f"{key}={source.choice(TARGETS)}"
        value = _odd(source) if odd else _allowed(source, self.types[key])
        return f"{source.choice(('', '', '', '+', '++', '~')) if odd else ''}{key}={value}"

    def run(self, steps: Any, folder: Path) -> None:
        """Compose, check, and sometimes build; what cannot be is one line, and leaves no folder."""
        builds, overrides = steps
        seen: list[Config] = []

        def stand_in(config: Config, changed: Mapping[str, Any], run_folder: Path, *group: Any) -> None:
            seen.append(config)
            json.dumps(compose.plain(config), allow_nan=False)
            if builds:
                session.prepare(config)

        with mock.patch.object(train.run, "train", stand_in), mock.patch.object(train.inference, "infer", stand_in):
            status, _, _ = run_train(overrides)
        if status:
            expect(not any(folder.iterdir()), f"left behind after a mistake: {[*folder.rglob('*')]}")


def _type(key: str) -> Any:
    """Type of a key."""
    for path, schema in compose.SCHEMAS.items():
        hint: Any = schema
        names = key.split(".")
        for name in names if path == "schema/config" else names[1:]:
            hint = get_type_hints(hint).get(name) if dataclasses.is_dataclass(hint) else None
        if hint is not None and (path == "schema/config" or path.split("/")[1] == names[0]):
            return hint
    return Any


def _allowed(source: random.Random, hint: Any) -> str:
    """A value of a type; it may be out of range."""
    choices = [option for option in get_args(hint) or (hint,) if option is not type(None)]
    option = source.choice(choices)
    if isinstance(option, type) and issubclass(option, Enum):
        return str(source.choice(list(option)).value)
    if option is bool:
        return source.choice(("true", "false"))
    if option is int:
        return str(source.choice((0, 1, 2, 3, 8, 16, 64)))
    if option is float:
        return str(source.choice((0, 0.1, 0.5, 0.9, 1, 2.5)))
    return source.choice(("x", "null", "[]"))


def _odd(source: random.Random) -> str:
    kind = source.randrange(4)
    if kind == 0:
        return repr(source.choice([number for number in NUMBERS if number != 10**400]))
    if kind == 1:
        return source.choice(TEXTS)
    if kind == 2:
        text = source.choice(TEXTS).replace("\\", "\\\\").replace("'", "\\'")
        return f"'{text}'"
    return source.choice(SYNTAX)
