"""A revision of a git repository in a folder of its own, for as long as it is needed."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from profiling.errors import UserError


@dataclass(frozen=True)
class Worktree:
    """A revision that is checked out.

    Attributes:
        commit: its abbreviated name.
        root: its folder.
        repository: the folder of the working tree that it comes from.
        folder: the folder in it that corresponds to the one in which this program runs.
    """

    commit: str
    root: Path
    repository: Path
    folder: Path


@contextmanager
def worktree(revision: str) -> Iterator[Worktree]:
    """Check out `revision` of the repository here into a temporary folder, and remove it at the end.

    Raises:
        UserError: this is no repository, or it has no such revision.
    """
    here = Path.cwd().resolve()
    repository = Path(_git("rev-parse", "--show-toplevel")).resolve()
    commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}", revision=revision)
    with tempfile.TemporaryDirectory(prefix="abtrace-") as temporary:
        root = Path(temporary).resolve() / repository.name
        _git("worktree", "add", "--detach", "--quiet", str(root), commit)
        try:
            folder = root / here.relative_to(repository)
            if not folder.is_dir():
                raise UserError(f"--git-a {revision}: that revision has no folder {here.relative_to(repository)}")
            yield Worktree(commit[:10], root, repository, folder)
        finally:
            _git("worktree", "remove", "--force", str(root))


def _git(*arguments: str, revision: str = "") -> str:
    """Run git here; return what it prints."""
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise UserError("--git-a: there is no git here") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"there is no revision {revision} in this repository"
        raise UserError(f"--git-a: {reason}")
    return done.stdout.strip()
