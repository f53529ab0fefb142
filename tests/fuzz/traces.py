"""Traces: valid ones, changed in structure and in bytes, through every command that reads them.

The valid ones are generated, recorded here, and, where the folder `shared` is present, others' real ones.
"""

import gzip
import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from profiling.__main__ import BY, main
from profiling.analysis.memory import DeviceMemory
from profiling.analysis.summary import Summary
from profiling.diff.differences import Diff
from tests.fuzz.case import command, expect
from tests.fuzz.mutations import changed_bytes, odd_value
from tests.profiling.cases import CASES
from tests.profiling.conftest import SHARED, record
from tests.profiling.make_trace import Event, event

MAX_EVENTS = 250
CATEGORIES = (
    "cpu_op", "user_annotation", "python_function", "cuda_runtime", "kernel", "gpu_memcpy", "gpu_memset", "overhead",
    "gpu_user_annotation", "cuda_sync", "cpu_instant_event", "fwdbwd", "ac2g", "Operator", "Trace", "hip_driver", "",
)  # fmt: skip
NAMES = (
    "aten::mm", "aten::add", "aten::copy_", "autograd::engine::evaluate_function: MmBackward0", "forward",
    "MmBackward0", "backward", "optimizer", "load", "ProfilerStep#1", "ProfilerStep#2",
    "ProfilerStep#99999999999999999999",
    "ProfilerStep#", "ProfilerStep#-1", "Optimizer.step#Adam.step", "enumerate(DataLoader)#_Iter.__next__",
    "cudaLaunchKernel", "cudaMemcpyAsync", "cudaStreamSynchronize", "cudaGraphLaunch", "cudaEventSynchronize",
    "ncclDevKernel_AllReduce_Sum_f32", "ncclKernel_SendRecv", "Memcpy HtoD (Pageable -> Device)", "nn.Module: ",
    "nn.Module: Linear_0", "nn.Module: Net_0", "a.py(1): f", "<built-in method mm>", "[memory]", "thread_name",
    "process_name", "process_labels", "", "\x1b[2J\x07", "[/red]", "\ud800", "\u202e", "a\nb", "\x00", "x" * 5000,
)  # fmt: skip
FIELDS = ("ph", "cat", "name", "pid", "tid", "ts", "dur", "id", "args", "s", "bp")
ARGUMENTS = (
    "External id", "correlation", "Bytes", "bytes", "Addr", "Total Allocated", "Total Reserved", "Device Id",
    "Device Type", "Python id", "Python parent id", "Python module id", "Input Dims", "Sequence number",
    "flops", "grid", "block", "registers per thread", "blocks per SM", "est. achieved occupancy %",
    "Collective name", "Group size",
    "Process Group Name", "Process Group Ranks", "In msg nelems", "dtype", "wait_on_stream", "Seq", "name", "labels",
    "stream", "device", "Fwd thread id",
)  # fmt: skip
HEADERS = ("distributedInfo", "deviceProperties", "schemaVersion", "traceName", "baseTimeNanoseconds", "with_stack")


class Inputs:
    """See `tests.fuzz.case.Kind`. `steps`: the options of `summary`, in the order they are tried, and file names."""

    def __init__(self, folder: Path) -> None:
        files = [record(folder / "recorded.json", "mlp", full=True).path]
        files += sorted(SHARED.glob("*.json.gz")) + sorted(CASES.rglob("*.json"))
        self.valid = [trace for file in files if isinstance(trace := _read(file), dict)]

    def make(self, source: random.Random) -> tuple[Any, dict[str, bytes]]:
        """A trace, and what is left of it after some changes."""
        valid = _generated(source) if source.random() < 0.5 else _part(source, source.choice(self.valid))
        mutated: Any = json.loads(json.dumps(valid))
        for _ in range(source.choice((1, 1, 2, 3, 8))):
            mutated = _changed(source, mutated)
        text = json.dumps(mutated, indent=source.choice((None, 1))).encode()
        if source.random() < 0.3:
            text = changed_bytes(source, text)
        name = source.choice(("b.json", "b.json", "b.json", "rank1.1.pt.trace.json", "b.json.gz"))
        if name.endswith(".gz"):
            text = gzip.compress(text, mtime=0)
            if source.random() < 0.3:
                text = changed_bytes(source, text)
        return [source.choice(BY), source.choice(BY), name], {"a.json": json.dumps(valid).encode(), name: text}

    def run(self, steps: Any, folder: Path) -> None:
        """Every command, as text and as JSON."""
        by, other, name = steps
        for arguments in (
            ["summary", name, "--by", other],
            ["diff", "a.json", name],
            ["memory", name],
            ["check", name],
        ):
            command(partial(main, arguments), finds=arguments[0] == "check")
        status, text, _ = command(partial(main, ["summary", name, "--by", by, "--json"]))
        if status == 0:
            check_summary(msgspec.json.decode(text, type=Summary))
        for a, b in (("a.json", name), (name, "a.json"), (name, name)):
            status, text, _ = command(partial(main, ["diff", a, b, "--json"]))
            if status == 0:
                check_diff(msgspec.json.decode(text, type=Diff), same=a == b)
        status, text, _ = command(partial(main, ["memory", name, "--json"]))
        if status == 0:
            for device in msgspec.json.decode(text, type=_Memory).memory:
                _not_negative(device)


class _Memory(msgspec.Struct):
    memory: list[DeviceMemory]


def check_summary(found: Summary) -> None:
    """Raise FaultError if times or counts are negative, or parts are not what they are parts of."""
    _not_negative(found)
    for step in found.steps:
        parts = step.device_wait_us, step.load_us, step.operator_us, step.python_us
        _adds_up("step", parts, step.total_us, step.start_us)
        _adds_up("waiting of a step", step.waiting_us.values(), step.device_wait_us, step.start_us)
    for row in found.phases:
        _adds_up("phase", (row.operator_us, row.python_us, row.wait_us), row.self_us)
    waited = sum(row.wait_us for row in found.phases)
    _adds_up("waited_for", (row.wait_us for row in found.waited_for), waited, found.trace.extent_us)
    _adds_up("blocked_by", (row.wait_us for row in found.blocked_by), waited, found.trace.extent_us)


def check_diff(found: Diff, *, same: bool) -> None:
    """Raise FaultError if the parts of a difference are not its parts, or a trace differs from itself."""
    size = found.a_us + found.b_us
    for row in found.phases:
        parts = row.operators_us, row.python_us, row.waiting_us, row.unattributed_us
        _adds_up("phase of a diff", parts, row.difference_us, size)
    _adds_up("phases of a diff", (row.difference_us for row in found.phases), found.difference_us, size)
    expect(0 <= found.attributed_share <= 1, f"attributed_share {found.attributed_share}")
    if same:
        expect(not (found.causes or found.added or found.removed or found.replaced), "differs from itself")


def _adds_up(what: str, parts: Any, total: float, near: float = 0.0) -> None:
    """Compare a sum; floats are as exact as the largest times that they were computed from."""
    parts = list(parts)
    expect(
        abs(sum(parts) - total) <= 1e-3 + 1e-9 * (abs(total) + abs(near) + sum(map(abs, parts))),
        f"{what}: the sum of {parts} is not {total}",
    )


def _not_negative(value: Any, path: str = "") -> None:
    """Raise FaultError if a number of a result is negative that is no difference, level or point in time."""
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            if name not in ("start_us", "start_bytes", "curve", "rank", "ranks", "parent"):
                _not_negative(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, dict):
        for key, item in value.items():
            _not_negative(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            _not_negative(item, f"{path}[]")
    elif isinstance(value, int | float):
        expect(value >= 0, f"negative: {path} is {value}")


# --- valid traces -----------------------------------------------------------------------------------------------------


def _read(file: Path) -> Any:
    """A trace as an object, None if the file is another."""
    content = file.read_bytes()
    try:
        value = json.loads(gzip.decompress(content) if file.suffix == ".gz" else content)
    except ValueError:
        return None
    events = value.get("traceEvents") if isinstance(value, dict) else None
    return value if isinstance(events, list) and all(isinstance(event, dict) for event in events) else None


def _part(source: random.Random, trace: dict[str, Any]) -> dict[str, Any]:
    """Consecutive events of a large trace."""
    events = trace["traceEvents"]
    start = source.randrange(max(1, len(events) - MAX_EVENTS))
    return {**trace, "traceEvents": events[start : start + MAX_EVENTS]}


def _generated(source: random.Random) -> dict[str, Any]:
    """Steps with phases, operators, launches, kernels, waits, frames, memory and links, on two threads and streams."""
    events: list[Event] = [
        {"ph": "M", "name": "process_name", "pid": 1, "tid": 0, "ts": 0, "args": {"name": "python"}},
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": 1, "ts": 0, "args": {"name": "thread 1 (python)"}},
    ]
    origin = source.choice((0, 0, 1000.125, 1.7e15))
    at, held = origin, 0
    for step in range(source.randint(0, 3)):
        start = at
        for phase in ("load", "forward", "loss", "backward", "optimizer"):
            opened = at
            for _ in range(source.randint(0, 3)):
                number = len(events)
                dur = source.choice((0, 1, 5, 20.5, 40))
                tid = source.choice((1, 1, 1, 2))
                name = source.choice(("aten::mm", "aten::add", "MmBackward0", "aten::linear"))
                events.append(
                    event(name, at, dur, tid=tid, External_id=number, Sequence_number=step, Input_Dims=[[2, 3], []])
                )
                events.append(event(f"nn.Module: Linear_{step}", at, dur, "python_function", Python_id=number))
                launch = source.choice(("cudaLaunchKernel", "cudaMemcpyAsync", "cudaStreamSynchronize"))
                events.append(event(launch, at + dur / 4, dur / 2, "cuda_runtime", tid=tid, correlation=number))
                if launch != "cudaStreamSynchronize":
                    kind, done = ("kernel", "gemm") if "Launch" in launch else ("gpu_memcpy", "Memcpy DtoH")
                    after = at + source.choice((1, 10, 30))
                    events.append(
                        event(done, after, 15, kind, tid=source.choice((7, 8)), correlation=number, grid=[1, 2, 3])
                    )
                moved = source.choice((512, 1024, -512))
                held += moved
                events.append(_memory(at + dur / 3, moved, held, source.choice((0, 1))))
                events += [
                    {"ph": ph, "cat": "fwdbwd", "name": "fwdbwd", "id": number, "pid": 1, "tid": 1, "ts": at + later}
                    for ph, later in (("s", 0), ("f", 50))
                ]
                at += dur + source.choice((0, 3))
            if source.random() < 0.7:
                events.append(event(phase, opened, at - opened, "user_annotation"))
        events.append(event(f"ProfilerStep#{step}", start, at - start, "user_annotation"))
    header: dict[str, Any] = {"schemaVersion": 1}
    if source.random() < 0.3:
        header["distributedInfo"] = {"backend": "nccl", "rank": 1, "world_size": 2}
        events.append(
            event("ncclDevKernel_AllReduce", origin, 50, "kernel", tid=9, Collective_name="allreduce", Group_size=2)
        )
    return {**header, "traceEvents": events}


def _memory(at: float, moved: int, held: int, device: int) -> Event:
    args = {"Bytes": moved, "Addr": at, "Total Allocated": held, "Device Type": device, "Device Id": device - 1}
    return {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "pid": 1, "tid": 1, "ts": at, "args": args}


# --- changes ----------------------------------------------------------------------------------------------------------


def _changed(source: random.Random, trace: Any) -> Any:
    """A trace after one change of its structure."""
    if not isinstance(trace, dict) or not isinstance(trace.get("traceEvents"), list):
        return trace
    events = trace["traceEvents"]
    kind = source.randrange(12)
    some = [source.randrange(len(events)) for _ in range(source.choice((1, 1, 3, 20)))] if events else []
    objects = [events[number] for number in some if isinstance(events[number], dict)]
    if kind == 0:
        trace[source.choice(HEADERS)] = odd_value(source)
    elif kind == 1 and source.random() < 0.2:
        return source.choice((events, {"traceEvents": odd_value(source)}, odd_value(source), [trace]))
    elif kind == 2:
        events[:] = [event for number, event in enumerate(events) if number not in some]
    elif kind == 3:
        events += [json.loads(json.dumps(events[number])) for number in some for _ in range(source.choice((1, 5)))]
    elif kind == 4:
        source.shuffle(events)
    elif kind == 5:
        for number in some:
            events.insert(number, odd_value(source))
    elif kind == 6 and objects:
        _deepen(source, events, objects[0])
    for item in objects:
        if kind == 7:
            item[source.choice(FIELDS)] = odd_value(source)
        elif kind == 8:
            item["name"] = source.choice(NAMES)
        elif kind == 9:
            item["cat"] = source.choice(CATEGORIES)
            item["ph"] = source.choice(("X", "X", "i", "B", "E", "M", "s", "f", "b", "e", "C"))
        elif kind == 10:
            args = item.get("args")
            item["args"] = {**(args if isinstance(args, dict) else {}), source.choice(ARGUMENTS): odd_value(source)}
        elif kind == 11:
            _move(source, item, events)
    return trace


def _deepen(source: random.Random, events: list[Any], outer: dict[str, Any]) -> None:
    """Nest copies of an event in itself, one in the other or all in the first."""
    ts, dur = _number(outer.get("ts")), _number(outer.get("dur"))
    count = source.choice((2, 10, 100))
    shrink = source.choice((0.0, 0.99 / count))
    for depth in range(count):
        inside = {"ts": ts + dur * shrink * depth / 2, "dur": dur * (1 - shrink * depth)}
        identifiers = {"Python id": depth + 1, "Python parent id": depth}
        args = outer.get("args")
        events.append({**outer, **inside, "args": {**(args if isinstance(args, dict) else {}), **identifiers}})


def _move(source: random.Random, item: dict[str, Any], events: list[Any]) -> None:
    """Put an event elsewhere: another time, duration, thread or number, mostly one that another event has."""
    other = source.choice([event for event in events if isinstance(event, dict)])
    field = source.choice(("ts", "dur", "tid", "pid", "args", "id"))
    if field in other and source.random() < 0.6:
        item[field] = other[field]
    elif field in ("ts", "dur"):
        at = _number(item.get(field))
        item[field] = source.choice((-at, at * 2, at + 0.001, at - 10, at + 3.6e9, at + 4e9, 0, 2**52, 2**63, -1))
    else:
        item[field] = source.choice((0, 1, 2, -1, "1", "python", 2**31, 2**63, 2**64, None))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e300 else 0.0
