"""Child processes: they import what their parent does, and end with it, also where it is killed."""

import os
import sys
import threading
from pathlib import Path

STDIN_VARIABLE = "ABTRACE_PARENT_HOLDS_STDIN"
"""Environment variable: if it is set, `python -m profiling` calls `end_with_parent`."""


def search_path() -> str:
    """Value of PYTHONPATH with which a child process in any folder finds the modules of this process."""
    root = Path(__file__).parents[1]  # "" may be where this package is: the folder in which this process began
    entries = [Path(entry).absolute() if entry else root for entry in sys.path]
    return os.pathsep.join(str(entry) for entry in [*entries, root])  # the finder of an editable install is no entry


def end_with_parent() -> None:
    """End this process once its parent has ended; standard input is a pipe that the parent keeps open, and never uses.

    The system closes the pipe however the parent ends. The death signal of Linux would not do: it comes when the thread
    ends that started this process.
    """
    threading.Thread(target=_wait_for_the_end, name="end-with-parent", daemon=True).start()


def _wait_for_the_end() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)
