"""Folders that one process has to itself: a run's, and those in TMPDIR for what nobody keeps."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from profiling.errors import UserError

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
def only_writer(folder: Path) -> Iterator[Path]:
    """`folder`, to which no other process writes a run as long as this one does.

    Raises:
        UserError: another process does.
    """
    with ExitStack() as held:
        try:
            held.enter_context(_lock(folder))
        except BlockingIOError:
            raise UserError(f"{folder}: another process is writing this run; it goes on once that has ended") from None
        except OSError:  # there is no folder yet, which is then nobody else's; or its file system has no locks
            pass
        yield folder


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Lock `folder` in the block, or until the process ends; raise OSError if another process has locked it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _locked.add(descriptor)
        yield
    finally:
        _locked.discard(descriptor)
        os.close(descriptor)


_locked: set[int] = set()


def _forget_locks() -> None:
    """Close what a forked process, such as a loader worker, has inherited: it may outlive this one by some seconds."""
    while _locked:
        os.close(_locked.pop())


os.register_at_fork(after_in_child=_forget_locks)
