"""The event file of a script's arm: its times and memory as TensorBoard's curves, under the names that runs have."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from profiling.run_record import RunRecord
from profiling.storage import atomic_write

FILE_VERSION = "brain.Event:2"


def write_events(record: RunRecord, folder: Path) -> Path:
    """Write the event file of a run, whole or not at all."""
    now = time.time()
    path = folder / f"events.out.tfevents.{time.time_ns() // 10**9:010}.{socket.gethostname()}.0"
    with atomic_write(path) as unfinished, unfinished.open("wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=now, file_version=FILE_VERSION).SerializeToString())
        for tag, step, value in _scalars(record):
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            writer.write(Event(wall_time=now, step=step, summary=summary).SerializeToString())
    return path


def _scalars(record: RunRecord) -> Iterator[tuple[str, int, float]]:
    """Tag, step and value."""
    for stage, of_stage in record.stages.items():
        timed = of_stage.timed
        for name, seconds in {**timed.phase_s, "step": timed.step_s}.items():
            for step, value in zip(timed.step_numbers, seconds, strict=True):
                yield f"time_ms/{stage}/{name}", step, value * 1e3
        peaks = {"resident": of_stage.peak_resident_bytes, "accelerator": of_stage.peak_accelerator_bytes}
        if of_stage.trace is not None:
            peaks["allocated"] = of_stage.trace.peak_allocated_bytes
        for name, peak_bytes in peaks.items():
            if peak_bytes is not None:
                yield f"memory_mib/{stage}/{name}_peak", 0, peak_bytes / 2**20
