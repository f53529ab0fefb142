"""Point 2: what traces and clocks say on the device, against torch's own figures and the wall clock."""

import shutil
import time
from collections import Counter
from functools import partial
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from profiling.analysis.summary import Summary, summarize
from profiling.capture import NullCapture, TimedCapture
from profiling.trace.columns import Kind
from profiling.trace.trace import Trace, read_trace
from tests.accelerator.context import Context, Pieces, scratch
from tests.accelerator.workload import chosen, endless
from train import session

TRACED_STEPS = 4
TIMED_STEPS, SETTLE_STEPS = 40, 4
TOLERATED_SHARE = 0.01  # between `summary` and `key_averages`
TOLERATED_CLOCK_SHARE = 0.02  # between steps timed by events and the wall clock


def pieces(context: Context) -> Pieces:
    return {
        "traces": partial(traces, context),
        "key_averages": partial(key_averages, context),
        "clocks": partial(clocks, context),
    }


def traces(context: Context) -> dict[str, Any]:
    """The default run's window of each stage: device work, and how the host waits for it. The files are kept."""
    folder, kept = scratch(), context.out / "traces"
    kept.mkdir(exist_ok=True)
    parts = session.prepare(context.configure())
    session.warm_up(parts)
    found = {}
    for stage, file in session.trace(parts, folder, lambda metrics: None):
        path = kept / f"{stage}.pt.trace.json.gz"
        shutil.copy(folder / file.path, path)
        found[stage] = evidence_of(read_trace(path), context.is_accelerator)
        assert found[stage]["steps"] == parts.config.profiler.active
    return found


def evidence_of(trace: Trace, is_accelerator: bool) -> dict[str, Any]:
    """Counts of what the trace has; with an accelerator, its work must be in there, and belong to launching calls."""
    found = summarize([trace])
    kinds = Counter(Kind(kind).name.lower() for kind in trace.spans.kind.tolist())
    if is_accelerator:
        assert kinds["kernel"] and kinds["launch"] and found.kernels, kinds
        assert found.launched_outside.events == 0, found.launched_outside
        assert any(memory.device != "cpu" and memory.peak_bytes > 0 for memory in found.memory), found.memory
    return {
        "bytes_of_file": trace.path.stat().st_size,
        "steps": len(found.steps),
        "kernels": kinds["kernel"],
        "launches": kinds["launch"],
        "operators": kinds["operator"],
        "copies": {copy.direction: [copy.calls, copy.bytes] for copy in found.copies},
        "host_waits": {f"{call.kind}: {call.name}": call.calls for call in found.blocked_by},
        "peak_bytes": {memory.device: memory.peak_bytes for memory in found.memory},
        "busy_share": busy_share(found),
        "notes": found.trace.notes,
    }


def busy_share(found: Summary) -> float | None:
    """Of the steps' span; None without device work."""
    span_us = sum(device.span_us for device in found.devices)
    return sum(device.busy_us for device in found.devices) / span_us if span_us else None


def key_averages(context: Context) -> dict[str, Any]:
    """Device times of `summary` against torch's own table of the same window; on a CPU, self times of operators."""
    parts = session.prepare(context.configure())
    session.warm_up(parts)
    activities = [ProfilerActivity.CPU]
    if context.is_accelerator:
        activities.append(getattr(ProfilerActivity, parts.device.type.upper()))
    batches = list(parts.train_batches)[:TRACED_STEPS]
    with profile(activities=activities) as window:
        parts.fit(batches, NullCapture()).mean_loss()
    path = scratch() / "window.pt.trace.json"
    window.export_chrome_trace(str(path))
    found = summarize([read_trace(path)])
    expected: Counter[str] = Counter()
    for row in window.key_averages():
        if row.is_user_annotation or row.key == "[memory]":
            continue
        if not context.is_accelerator:
            expected[row.key] += row.self_cpu_time_total
        elif row.device_type != DeviceType.CPU:
            expected[row.key] += row.self_device_time_total
    ours = Counter({row.name: row.self_us for row in found.operators})
    if context.is_accelerator:
        ours = Counter()
        for kernel in found.kernels:
            ours[kernel.name] += kernel.device_us  # type: ignore[assignment]
    apart = {name: abs(ours[name] - time_us) for name, time_us in expected.items() if name in ours}
    total_us = sum(device.work_us for device in found.devices) if context.is_accelerator else sum(ours.values())
    share = abs(total_us - sum(expected.values())) / sum(expected.values())
    assert share <= TOLERATED_SHARE, f"in all {total_us:.0f} us, torch's table {sum(expected.values()):.0f} us"
    assert sum(apart.values()) <= TOLERATED_SHARE * sum(expected.values()), dict(Counter(apart).most_common(5))
    return {"summary_us": total_us, "key_averages_us": sum(expected.values()), "apart_share": share, "rows": len(apart)}


def clocks(context: Context) -> dict[str, Any]:
    """Steps timed by events against the wall clock with a synchronization on both sides."""
    parts = session.prepare(context.configure(*chosen(context)))
    session.warm_up(parts)
    parts.fit(endless(parts.train_batches, SETTLE_STEPS), NullCapture()).mean_loss()
    start = time.perf_counter()
    with TimedCapture(parts.device) as capture:
        parts.fit(endless(parts.train_batches, TIMED_STEPS), capture)
        synchronize(parts.device)
        wall_s = time.perf_counter() - start
    steps_s = sum(capture.timings().step_s)
    share = abs(steps_s - wall_s) / wall_s
    assert share <= TOLERATED_CLOCK_SHARE, f"steps {steps_s:.4f} s, wall clock {wall_s:.4f} s"
    return {"steps_s": steps_s, "wall_s": wall_s, "apart_share": share, "step_s": steps_s / TIMED_STEPS}


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()
