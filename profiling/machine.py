"""The machine on which something was measured. Imports no torch."""

import platform
import socket
from collections.abc import Mapping
from pathlib import Path

import psutil

from profiling.run_record import Environment


def environment(
    device: str, device_name: str, precision: str, threads: int, versions: Mapping[str, str]
) -> Environment:
    """The environment of a run on this machine; without a `device_name` it is the processor's."""
    return Environment(
        host=socket.gethostname(),
        platform=platform.platform(),
        processor=processor(),
        cores=psutil.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        device=device,
        device_name=device_name or processor(),
        precision=precision,
        threads=threads,
        versions=dict(versions),
    )


def processor() -> str:
    """The processor's name; `platform.processor()` is empty on most Linux systems."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
