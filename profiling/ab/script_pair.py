"""What the command line of a comparison says: the scripts of both arms, and what differs between them."""

import argparse
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from profiling.ab.script_process import TORCHRUN, Script
from profiling.ab.worktree import worktree
from profiling.errors import UserError
from profiling.format import file_name
from profiling.heap import KEPT_HEAP, has_glibc
from profiling.vocabulary import BASELINE, VARIANT


@dataclass(frozen=True)
class ScriptPair:
    """Two scripts to compare.

    Attributes:
        arms: `baseline` and `variant`.
        changed: what differs: name -> [baseline's value, variant's].
        name: what the variant is called in tables.
        baseline_name: likewise.
        label: the name of a folder.
    """

    arms: Mapping[str, Script]
    changed: dict[str, tuple[str | None, str | None]]
    name: str
    baseline_name: str
    label: str


def script_pair(options: argparse.Namespace, stack: ExitStack) -> ScriptPair:
    """Make the scripts of both arms; what must be removed at the end is left to `stack`.

    Raises:
        UserError: there is no such script, interpreter or revision.
    """
    (a, a_is_torchrun), (b, b_is_torchrun) = _command("A", options.a), _command("B", options.b or options.a)
    here = Path.cwd()
    python_b = _interpreter(options.python_b) if options.python_b else sys.executable
    variables_b = dict(options.env_b)
    shared = {**os.environ}
    shared.setdefault("PYTHONHASHSEED", str(options.seed))
    if options.keep_heap:
        shared |= _kept_heap()
    tree = stack.enter_context(worktree(options.git_a)) if options.git_a else None
    baseline = Script(
        command=a,
        python=sys.executable,
        environment=shared,
        folder=tree.folder if tree else here,
        seed=options.seed,
        samples=options.samples,
        foreign=tree.repository if tree else None,
        is_torchrun=a_is_torchrun,
    )
    variant = Script(
        command=b,
        python=python_b,
        environment=shared | variables_b,
        folder=here,
        seed=options.seed,
        samples=options.samples,
        foreign=tree.root if tree else None,
        is_torchrun=b_is_torchrun,
    )
    for script in (baseline, variant):
        _check_command(script)
    changed: dict[str, tuple[str | None, str | None]] = {}
    if baseline.text != variant.text:
        changed["command"] = (baseline.text, variant.text)
    changed |= {f"environment.{name}": (os.environ.get(name), value) for name, value in variables_b.items()}
    if options.python_b:
        changed["python"] = (sys.executable, python_b)
    if tree:
        changed["revision"] = (tree.commit, "working tree")
    settings = [f"{name}={value}" for name, value in variables_b.items()]
    settings += [options.python_b] if options.python_b else []
    name = " ".join([*settings, variant.text, *(["(working tree)"] if tree else [])])
    baseline_name = f"{baseline.text} at {options.git_a}" if tree else baseline.text if changed else "itself"
    return ScriptPair({BASELINE: baseline, VARIANT: variant}, changed, name, baseline_name, _label(name))


def _kept_heap() -> dict[str, str]:
    """Variables that let glibc keep freed memory instead of returning it: man 3 mallopt.

    Raises:
        UserError: the C library is another one.
    """
    if not has_glibc():
        raise UserError("--keep-heap: only the C library glibc can be told that by variables, and this is another one")
    return KEPT_HEAP


def _command(option: str, text: str) -> tuple[tuple[str, ...], bool]:
    """The words of a command line; whether they are torchrun's arguments."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise UserError(f"{option}: {text}: {error}") from None
    is_torchrun = words[:1] == (TORCHRUN,)
    words = words[1:] if is_torchrun else words
    if not words or words == ("-m",):
        raise UserError(f"{option}: {text!r} names no script")
    return words, is_torchrun


def _check_command(script: Script) -> None:
    name = script.command[0]
    if script.is_torchrun:  # its own parser, in the arm, tells the script from the values of options
        if not any(word in ("-m", "--module") or (script.folder / word).is_file() for word in script.command):
            raise UserError(f"{script.text}: none of its words is a script in {script.folder}")
        return
    if name == "-m" or (script.folder / name).is_file():
        return
    hint = " (the interpreter is this one, --python-b says another)" if re.match("python[0-9.]*$", name) else ""
    raise UserError(f"{name}: there is no such script in {script.folder}{hint}")


def _interpreter(path: str) -> str:
    found = shutil.which(path)
    if found is None:
        raise UserError(f"--python-b: {path}: there is no such program")
    return str(Path(found).absolute())  # not resolved: an environment's python is a link


def _label(name: str) -> str:
    return file_name([re.sub(r"[^\w.+-]+", "_", name).strip("_.") or "script"])
