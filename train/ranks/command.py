"""The command line of a run that `resume` names. Imports no torch."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml

from profiling.errors import UserError

STATES = "states/epoch-*.pt"  # of train.ranks.state
MAY_DIFFER = ("resume", "rank_timeout_s", "output")
"""Keys that may be given beside `resume`, and may differ from those of the run."""


def command_of(arguments: Sequence[str], config_name: str = "config") -> list[str]:
    """The command line of the run that `resume=PATH` or `resume=latest` names; others are left as they are.

    `config_name` tells `python -m train` from other commands, which do not go on with anything.

    Raises:
        UserError: there is no such run, it has no state, or something else is given, which is the run's to say.
    """
    flags = [argument for argument in arguments if argument.startswith("-") or "=" not in argument]
    given = dict(argument.partition("=")[::2] for argument in arguments if argument not in flags)
    name = given.get("resume", "null")
    if name == "null":
        return list(arguments)
    if config_name != "config":
        raise UserError(f"resume={name}: python -m train goes on with a run, nothing else does; leave it out")
    for key, value in given.items():
        if key not in MAY_DIFFER:
            raise UserError(f"{key}={value}: not beside resume={name}, which has the run's configuration; leave it out")
    output = Path(given.get("output", "runs"))
    folder = _run_folder(output if name == "latest" else Path(name), name)
    overrides = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    kept = [f"{key}={given[key]}" for key in ("rank_timeout_s",) if key in given]
    return [*flags, *overrides, *kept, f"resume='{quoted}'", f"hydra.run.dir='{quoted}'", "hydra.output_subdir=null"]


def how_to_go_on(folder: Path | None) -> str:
    """The end of a line that tells how the run in `folder` goes on; nothing if it has no state."""
    has_state = folder is not None and any(folder.glob(STATES))
    return f"; to go on: python -m train resume={shlex.quote(str(folder))}" if has_state else ""


def _run_folder(path: Path, name: str) -> Path:
    """The folder of the run at `path`, or of those below the one whose state is the newest."""
    found = [file for depth in ("", "*/", "*/*/") for file in path.glob(f"{depth}{STATES}")]
    runs = [file.parent.parent for file in sorted(found, key=lambda file: file.stat().st_mtime)]
    if not runs:
        raise UserError(
            f"resume={name}: no run with a state to go on from {'in' if path.is_dir() else 'at'} {path}; a run has one "
            "from its first `checkpoint_every` on until it is complete"
        )
    if not (runs[-1] / ".hydra" / "overrides.yaml").is_file():
        raise UserError(f"resume={name}: {runs[-1]} has no .hydra/overrides.yaml, which says how the run was started")
    return runs[-1].absolute()
