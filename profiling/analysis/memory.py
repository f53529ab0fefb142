"""Memory of each device: the curve over time, its peak, what was allocated at the peak, and the total traffic."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from profiling.analysis.index import NO_OPERATOR, Index
from profiling.analysis.nesting import Rows
from profiling.format import size
from profiling.trace.files import window_name
from profiling.trace.trace import Int64s, Trace
from profiling.vocabulary import PHASE_LABELS

CURVE_POINTS = 400
"""Curves are reduced to about this many points, which include the highest and lowest of each interval."""
_DEVICES = {0: "cpu", 1: "cuda", 2: "mkldnn", 6: "hip", 12: "xpu", 13: "mps", 14: "meta", 15: "hpu", 20: "privateuse1"}


_ALLOCATE_FOR_OTHERS = frozenset(
    f"aten::{name}"
    for name in ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "resize_as_")
)
"""Operators that hold nothing for themselves: what they allocate belongs to the operator that called them."""


class Holder(Struct, frozen=True):
    """Memory that one operator allocated in one phase and that was not freed before the peak.

    An allocation by `aten::empty` and the like is that of the nearest caller that is none of them, if there is one.
    """

    operator: str
    phase: str
    bytes: int
    allocations: int


class Curve(Struct, frozen=True):
    """Allocated bytes at times since the start of the trace, in microseconds."""

    time_us: list[float]
    bytes: list[int]


class DeviceMemory(Struct, frozen=True):
    """The allocations on one device.

    `start_bytes` is the level just before the first event. On a CPU, torch's total continues from the previous window
    in the same process, and misses what was allocated between windows. `before_bytes` is the part of the peak that was
    allocated before the window, as far as the trace shows. `alive_at_peak` is sorted, largest first. `window` numbers
    the traces that are summarized together.

    There are two peaks: `peak_bytes` has what was there before the window, `own_peak_bytes` has not.
    """

    window: int
    device: str
    start_bytes: int
    peak_bytes: int
    peak_time_us: float
    reserved_peak_bytes: int
    allocations: int
    frees: int
    allocated_bytes: int
    freed_bytes: int
    before_bytes: int
    alive_at_peak: list[Holder]
    curve: Curve

    @property
    def own_peak_bytes(self) -> int:
        """The peak above the level at which the window began: what a record calls `peak_allocated_bytes` on a CPU."""
        return self.peak_bytes - self.start_bytes

    @property
    def peak_text(self) -> str:
        """Both peaks in words, where they differ."""
        return peak_text(self.own_peak_bytes, self.peak_bytes)


def peak_text(own_bytes: int, bytes_in_all: int) -> str:
    """Write the peak of a window, and in parentheses the peak with what was there before, where that is another."""
    before = "" if own_bytes == bytes_in_all else f" ({size(bytes_in_all)} with what was there before the window)"
    return f"{size(own_bytes)}{before}"


def memory_labels(devices: Sequence[DeviceMemory], files: Sequence[str]) -> list[str]:
    """Name each: `cpu`; where a device has several windows, with how its file's name begins: `cpu, vm_7_train`."""
    if len({device.device for device in devices}) == len(devices):
        return [device.device for device in devices]
    return [f"{device.device}, {window_name(files[device.window])}" for device in devices]


def memory(index: Index, window: int = 0) -> list[DeviceMemory]:
    """Memory per device, the CPU first; empty where the trace recorded none (`profile_memory=True` records it)."""
    events = index.trace.allocations
    changes = np.flatnonzero(np.diff(events.device_type, prepend=-1) | np.diff(events.device_id, prepend=-2))
    devices = sorted(set(zip(events.device_type[changes].tolist(), events.device_id[changes].tolist(), strict=True)))
    return [
        _device(index, window, np.flatnonzero((events.device_type == kind) & (events.device_id == number)), name)
        for kind, number in devices
        for name in [device_name(kind, number)]
    ]


def window_memory(trace: Trace, device_type: str) -> tuple[int, int] | tuple[None, None]:
    """Peak and allocated bytes of a device, from a trace: torch keeps no statistics of its CPU allocator."""
    for usage in memory(Index(trace)):
        if usage.device.partition(":")[0] == device_type:
            return usage.own_peak_bytes if device_type == "cpu" else usage.peak_bytes, usage.allocated_bytes
    return None, None


def device_name(kind: int, number: int) -> str:
    """Name a device as PyTorch does: `cpu`, `cuda:0`."""
    name = _DEVICES.get(kind, f"device_type_{kind}")
    return name if number < 0 else f"{name}:{number}"


def _device(index: Index, window: int, rows: NDArray[np.intp], device: str) -> DeviceMemory:
    events = index.trace.allocations
    rows = rows[np.argsort(events.start_ns[rows], kind="stable")]
    moved, at, address = events.moved[rows], events.start_ns[rows], events.address[rows]
    if not address.any():
        address = _by_size(moved)
    recorded = events.allocated[rows]
    level = recorded if (recorded >= 0).any() else _summed(moved)
    peak = int(level.argmax())
    alive = _alive(moved, address, peak)
    gained = moved > 0
    return DeviceMemory(
        window=window,
        device=device,
        start_bytes=max(int(level[0] - moved[0]), 0),
        peak_bytes=int(level[peak]),
        peak_time_us=int(at[peak]) / 1e3,
        reserved_peak_bytes=max(int(events.reserved[rows].max()), 0),
        allocations=int(gained.sum()),
        frees=int((moved < 0).sum()),
        allocated_bytes=int(moved[gained].sum()),
        freed_bytes=-int(moved[moved < 0].sum()),
        before_bytes=max(int(level[peak]) - int(moved[alive].sum()), 0),
        alive_at_peak=_holders(index, rows[alive]),
        curve=_thin(at, level),
    )


def _summed(moved: Int64s) -> Int64s:
    """Level after each event, where the trace has no totals: what is freed without an allocation was there before."""
    level = np.cumsum(moved)
    return level - min(int(level.min()), 0)


def _by_size(moved: Int64s) -> Int64s:
    """Addresses for a trace without, as those of PyTorch 1.8 and 1.9: what is freed is the latest of the same size."""
    living: dict[int, list[int]] = defaultdict(list)
    addresses = []
    for number, moved_bytes in enumerate(moved.tolist(), start=1):
        if moved_bytes < 0 and living[-moved_bytes]:
            addresses.append(living[-moved_bytes].pop())
        else:
            addresses.append(number)
            living[moved_bytes].append(number)
    return np.array(addresses, dtype=np.int64)


def _alive(moved: Int64s, address: Int64s, peak: int) -> NDArray[np.intp]:
    """Allocations up to event `peak` that are not freed by then: the last event of an address is an allocation."""
    order = np.argsort(address[: peak + 1], kind="stable")
    last = np.concatenate((address[order][1:] != address[order][:-1], [True]))
    newest = order[last]
    return np.sort(newest[moved[newest] > 0])


def _holders(index: Index, rows: NDArray[np.intp]) -> list[Holder]:
    trace, events = index.trace, index.trace.allocations
    operator = _responsible(index, index.allocating_operators[rows])
    phase = index.phase_at(events.thread[rows], events.start_ns[rows])
    totals: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    names = index.operator_names
    moved = events.moved[rows].tolist()
    for position, number, moved_bytes in zip(operator.tolist(), phase.tolist(), moved, strict=True):
        name = trace.names[names[position]] if position >= 0 else NO_OPERATOR
        entry = totals[name, PHASE_LABELS[number]]
        entry[0] += moved_bytes
        entry[1] += 1
    largest = sorted(totals.items(), key=lambda item: (-item[1][0], item[0]))
    return [Holder(name, phase, held, count) for (name, phase), (held, count) in largest]


def _responsible(index: Index, operators: Rows) -> Rows:
    """Replace operators that allocate for others by the nearest caller that does not; those without one stay."""
    names, parents = index.trace.names, index.operators.parent
    found = []
    for operator in operators.tolist():
        at = operator
        while at >= 0 and names[index.operator_names[at]] in _ALLOCATE_FOR_OTHERS:
            at = int(parents[at])
        found.append(at if at >= 0 else operator)
    return np.array(found, dtype=operators.dtype)


def _thin(at: Int64s, level: Int64s) -> Curve:
    """Reduce a curve to the first, highest and lowest point of each interval (of equally many events), and the last."""
    if at.size > CURVE_POINTS:
        edges = np.linspace(0, at.size, CURVE_POINTS // 3 + 1).astype(np.intp)
        intervals = list(pairwise(edges))
        extremes = {int(low + pick(level[low:high])) for low, high in intervals for pick in (np.argmax, np.argmin)}
        points = np.array(sorted(extremes | {int(low) for low, _ in intervals} | {at.size - 1}))
        at, level = at[points], level[points]
    return Curve((at / 1e3).tolist(), level.tolist())
