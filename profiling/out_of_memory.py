"""Memory that a machine does not have: the run ends in one line, before Linux ends it or another process."""

import re
import sys
from pathlib import Path

import psutil

from profiling.format import size

LIKELY_CAUSES = "model, batch_size, eval_batch_size, infer_batch_size and data.image_size decide how much is needed"


def limit_memory() -> None:
    """Let allocations of this process fail beyond the memory that is available now; on Linux only.

    Otherwise Linux promises memory that it does not have, and kills a process when it is used. What counts is private
    writable memory (RLIMIT_DATA in man 2 getrlimit). To be set for each run: a sweep runs in one process.
    """
    if sys.platform != "linux":
        return
    import resource

    status = Path("/proc/self/status").read_text()
    used_bytes = int(status.partition("VmData:")[2].split()[0]) * 1024
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = used_bytes + psutil.virtual_memory().available
    resource.setrlimit(resource.RLIMIT_DATA, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))


def explain_out_of_memory(error: Exception) -> str | None:
    """A line for an error of an allocation, of the host or of an accelerator; None for any other error."""
    text = str(error)
    failed = isinstance(error, RuntimeError) and re.search(
        r"can't allocate memory|out of memory|size calculation overflowed", text
    )
    if not failed and not isinstance(error, MemoryError):
        return None
    asked = re.search(r"tried to allocate (\d+) bytes|Tried to allocate ([\d.]+ \w+)", text)
    how_much = (size(int(asked[1])) if asked[1] else asked[2]) if asked else "more"
    on_device = re.search(r"of which ([\d.]+ \w+) is free", text)
    available = on_device[1] if on_device else size(psutil.virtual_memory().available)
    return f"out of memory: {how_much} asked for, {available} available; {LIKELY_CAUSES}"
