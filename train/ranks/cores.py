"""The cores of a job: jobs of a multirun that a launcher starts side by side must not time each other. No torch."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

try:
    import fcntl
except ImportError:  # Windows: a multirun has one job at a time there
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)


@contextmanager
def own_cores() -> Iterator[list[int]]:
    """In a multirun, have the cores that this process may use to itself; wait for jobs of this machine that have one.

    Yields:
        The numbers of the cores; none outside of a multirun.
    """
    if HydraConfig.get().mode is not RunMode.MULTIRUN or fcntl is None or not hasattr(os, "sched_getaffinity"):
        yield []
        return
    folder = Path(tempfile.gettempdir()) / f"abtrace-cores-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        for core in cores:  # all jobs take them in this order, so that no two wait for each other
            lock = stack.enter_context((folder / str(core)).open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("waits for another job of this machine, which has core %d", core)
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield cores
