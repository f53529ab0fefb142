"""Folders in TMPDIR for what nobody keeps; what killed processes have left there is removed, too."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "abtrace-run-"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder, which is removed at the end; those of processes that have ended without doing so are removed first.

    A process holds a lock on its folder as long as it lives. Its id in the name would not do: containers that share
    TMPDIR have processes of the same id.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError), _lock(left):  # in use, of another user, or removed by another process at this moment
            shutil.rmtree(left)
    new = Path(tempfile.mkdtemp(prefix=f".{PREFIX}"))
    with _lock(new):  # before it has the name by which others find it
        folder = new.rename(new.with_name(new.name.removeprefix(".")))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Lock `folder` in the block, or until the process ends; raise OSError if another process has locked it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
