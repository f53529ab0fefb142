"""The command line of a run that `resume` names. Imports no torch."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from profiling.errors import UserError

STATES = "states/epoch-*.pt"  # of train.ranks.state
MAY_DIFFER = ("resume", "rank_timeout_s", "output")
"""Keys that may be given beside `resume`, and may differ from those of the run."""

Written = TypeVar("Written")


def command_of(arguments: Sequence[str], config_name: str = "config") -> list[str]:
    """The command line of the run that `resume=PATH` or `resume=latest` names; others are left as they are.

    `config_name` tells `python -m train` from other commands, which do not go on with anything.

    Raises:
        UserError: there is no such run, it has no state, or something else is given, which is the run's to say.
    """
    flags = [argument for argument in arguments if argument.startswith("-") or "=" not in argument]
    given = dict(argument.lstrip("+").partition("=")[::2] for argument in arguments if argument not in flags)
    name = given.get("resume", "null")
    if name == "null":
        return list(arguments)
    if config_name != "config":
        raise UserError(f"resume={name}: python -m train goes on with a run, nothing else does; leave it out")
    if {"-m", "--multirun"} & set(flags):
        raise UserError(f"resume={name}: one run goes on; leave out --multirun")
    for key, value in given.items():
        if key not in MAY_DIFFER:
            raise UserError(f"{key}={value}: not beside resume={name}, which has the run's configuration; leave it out")
    output = Path(given.get("output", "runs"))
    folder = _run_folder(output if name == "latest" else Path(name), name)
    overrides = _written(folder / ".hydra" / "overrides.yaml", list[str])
    if not any(flag.startswith(("--config-dir", "-cd")) for flag in flags):
        flags += [f"--config-dir={path}" for path in _config_dirs(folder)]
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    kept = [f"{key}={given[key]}" for key in ("rank_timeout_s",) if key in given]
    return [*flags, *overrides, *kept, f"resume='{quoted}'", f"hydra.run.dir='{quoted}'", "hydra.output_subdir=null"]


def how_to_go_on(folder: Path | None) -> str:
    """The end of a line that tells how the run in `folder` goes on; nothing if it has no state."""
    has_state = folder is not None and any(folder.glob(STATES))
    if not has_state:
        return ""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    command = f"torchrun --nproc-per-node {ranks}" if ranks > 1 else "python"
    return f"; to go on: {command} -m train resume={shlex.quote(str(folder))}"


def _config_dirs(folder: Path) -> list[str]:
    """The folder of the user's own configurations that the run in `folder` was started with, if there was one."""
    written = _written(folder / ".hydra" / "hydra.yaml", dict[str, Any])
    sources = written.get("hydra", {}).get("runtime", {}).get("config_sources", [])
    return [source["path"] for source in sources if source["provider"] == "command-line"]


def _written(path: Path, kind: type[Written]) -> Written:
    """Read what Hydra has written of a run.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return msgspec.convert(yaml.safe_load(path.read_text()), kind)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; it says how the run was started") from None
    except (OSError, ValueError, yaml.YAMLError, msgspec.ValidationError):
        raise UserError(f"{path}: damaged; it says how the run was started") from None


def _run_folder(path: Path, name: str) -> Path:
    """The folder of the run at `path`, or of those below the one whose state is the newest."""
    found = [file for depth in ("", "*/", "*/*/") for file in path.glob(f"{depth}{STATES}")]
    runs = [file.parent.parent for file in sorted(found, key=lambda file: file.stat().st_mtime)]
    if not runs:
        raise UserError(
            f"resume={name}: no run with a state to go on from {'in' if path.is_dir() else 'at'} {path}; a run has one "
            "from its first `checkpoint_every` on until it is complete"
        )
    return runs[-1].absolute()
