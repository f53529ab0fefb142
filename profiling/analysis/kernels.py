"""Device work: kernels by launching operator, busy time and idle gaps of each device, and copies by direction."""

import re
from collections import defaultdict

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from profiling.analysis.index import Index
from profiling.analysis.intervals import overlaps, union
from profiling.analysis.owners import owners
from profiling.trace.columns import Kind
from profiling.trace.groups import distinct

LONGEST_GAPS = 10
STEPS_END = "(end of the steps)"
_DIRECTION = re.compile(
    r"\b(HtoD|DtoH|DtoD|HtoH|PtoP|HostToDevice|DeviceToHost|DeviceToDevice|HostToHost|[HM]2D|D2[HMD])\b"
)
_SHORT = {
    "HostToDevice": "HtoD", "DeviceToHost": "DtoH", "DeviceToDevice": "DtoD", "HostToHost": "HtoH",
    "H2D": "HtoD", "M2D": "HtoD", "D2H": "DtoH", "D2M": "DtoH", "D2D": "DtoD",
}  # fmt: skip


class Kernel(Struct, frozen=True):
    """All runs of one kernel that one operator launched, or another owner, see `profiling.analysis.owners`.

    Occupancy, blocks and registers are means weighted by device time; None where the trace has none, as on AMD.
    """

    name: str
    calls: int
    device_us: float
    operator: str
    occupancy_percent: float | None
    blocks_per_sm: float | None
    registers: float | None


class Gap(Struct, frozen=True):
    """An interval in which a device was idle, and the kernel or copy that ended it; STEPS_END if there is none."""

    start_us: float
    idle_us: float
    before: str


class DeviceActivity(Struct, frozen=True):
    """One device, over all streams, between the start of the first and the end of the last step.

    `span_us` is the sum of `busy_us`, in which anything runs, and `idle_us`. A trace without steps counts from its
    first to its last event. `work_us` is the sum of all durations, also outside the steps. `window` numbers the traces
    that are summarized together.
    """

    window: int
    device: str
    busy_us: float
    span_us: float
    work_us: float
    streams: int
    idle_us: float
    gaps: int
    longest_gaps: list[Gap]


class Copies(Struct, frozen=True):
    """Copies in one direction; fills are `set`. `bytes` is 0 where the trace does not say."""

    direction: str
    calls: int
    device_us: float
    bytes: int


class LaunchedOutside(Struct, frozen=True):
    """Kernels and copies whose launch is not in the file, usually because it was before the window.

    They keep the device busy, but belong to no operator and no step. `device_us` is the sum of their durations.
    """

    events: int
    device_us: float


class DeviceWork(Struct, frozen=True):
    """`busy_us` sums the devices' busy times. `unlinked` is the number of kernels without a launching call."""

    busy_us: float
    unlinked: int
    launched_outside: LaunchedOutside
    kernels: list[Kernel]
    devices: list[DeviceActivity]
    copies: list[Copies]


def device_work(index: Index, window: int = 0) -> DeviceWork:
    """Analyze all devices; the lists are empty for a trace without device work."""
    devices = _devices(index, window)
    kernel = index.trace.spans.kind[index.device_rows] == Kind.KERNEL
    return DeviceWork(
        busy_us=sum(device.busy_us for device in devices),
        unlinked=int((kernel & (index.launching_rows < 0)).sum()),
        launched_outside=launched_outside(index),
        kernels=_kernels(index, np.flatnonzero(kernel)),
        devices=devices,
        copies=_copies(index),
    )


def launched_outside(index: Index) -> LaunchedOutside:
    """Count the device work whose launch is not in the file."""
    rows = index.device_rows[index.launched_outside]
    return LaunchedOutside(int(rows.size), int(index.trace.spans.dur_ns[rows].sum()) / 1e3)


def _kernels(index: Index, among: NDArray[np.intp]) -> list[Kernel]:
    """Kernels by name and owner, the longest device time first; `among` are indices into `device_rows`."""
    trace, spans = index.trace, index.trace.spans
    rows, owned = index.device_rows[among], owners(index)
    width = len(owned.names)
    keys, group = np.unique(spans.name[rows] * np.int64(width) + owned.of[among], return_inverse=True)
    calls = np.bincount(group)
    time = np.bincount(group, weights=spans.dur_ns[rows])
    details = [trace.details[i] for i in spans.detail[rows]]
    means = [
        _weighted(group, np.array(values, dtype=np.float64), spans.dur_ns[rows])
        for values in (
            [detail.occupancy_percent for detail in details],
            [detail.blocks_per_sm for detail in details],
            [detail.registers for detail in details],
        )
    ]
    return [
        Kernel(
            name=trace.names[keys[i] // width],
            calls=int(calls[i]),
            device_us=float(time[i]) / 1e3,
            operator=owned.names[keys[i] % width],
            occupancy_percent=means[0][i],
            blocks_per_sm=means[1][i],
            registers=means[2][i],
        )
        for i in np.argsort(-time, kind="stable").tolist()
    ]


def _weighted(group: NDArray[np.intp], values: NDArray[np.float64], weight: NDArray[np.int64]) -> list[float | None]:
    """Weighted mean of the known (not negative) values of each group; None for a group without any."""
    known = values >= 0
    count = int(group.max(initial=-1)) + 1
    weight = np.maximum(weight, 1)  # a kernel of 0 µs still counts
    weights = np.bincount(group[known], weights=weight[known], minlength=count)
    share = weight[known] / weights[group[known]]  # before the product, which may be too large for a float
    means = np.bincount(group[known], weights=values[known] * share, minlength=count)
    return [mean if w else None for mean, w in zip(means.tolist(), weights.tolist(), strict=True)]


def _devices(index: Index, window: int) -> list[DeviceActivity]:
    trace, spans, rows = index.trace, index.trace.spans, index.device_rows
    low, high = int(index.steps.start_ns.min()), int(index.steps.end_ns.max())
    by_device = defaultdict(list)
    for thread in distinct(spans.thread[rows]).tolist():
        by_device[trace.threads[thread].pid].append(thread)
    devices = []
    for pid, streams in sorted(by_device.items(), key=lambda item: str(item[0])):
        own = rows[np.isin(spans.thread[rows], streams)]
        own = own[np.argsort(spans.start_ns[own], kind="stable")]
        work_ns = int(spans.dur_ns[own].sum())
        start, end = union(spans.start_ns[own], spans.start_ns[own] + spans.dur_ns[own])
        inside = overlaps(np.array([low]), np.array([high]), start, end)
        start, end = inside.start_ns, inside.end_ns
        busy = int((end - start).sum())
        idle_start, idle_end = np.append(low, end), np.append(start, high)
        idle = idle_end - idle_start
        longest = np.argsort(-idle, kind="stable")[: min(LONGEST_GAPS, int((idle > 0).sum()))]
        enders = np.append(spans.name[own], len(trace.names))[np.searchsorted(spans.start_ns[own], idle_end[longest])]
        names = [*trace.names, STEPS_END]
        devices.append(
            DeviceActivity(
                window=window,
                device=f"{trace.backend}:{pid}",
                busy_us=busy / 1e3,
                span_us=(high - low) / 1e3,
                work_us=work_ns / 1e3,
                streams=len(streams),
                idle_us=(high - low - busy) / 1e3,
                gaps=int((idle > 0).sum()),
                longest_gaps=[
                    Gap(int(idle_start[gap]) / 1e3, int(idle[gap]) / 1e3, names[ender])
                    for gap, ender in zip(longest.tolist(), enders.tolist(), strict=True)
                ],
            )
        )
    return devices


def _copies(index: Index) -> list[Copies]:
    trace, spans = index.trace, index.trace.spans
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in trace.rows(Kind.COPY, Kind.SET).tolist():
        entry = totals[_direction(trace.names[spans.name[row]]) if spans.kind[row] == Kind.COPY else "set"]
        for i, value in enumerate((1, spans.dur_ns[row], spans.copied[row])):
            entry[i] += int(value)
    return [
        Copies(direction, calls, time / 1e3, size)
        for direction, (calls, time, size) in sorted(totals.items(), key=lambda item: -item[1][1])
    ]


def _direction(name: str) -> str:
    """Return `HtoD` for a name such as `Memcpy HtoD (Pageable -> Device)` or AMD's `CopyHostToDevice`."""
    match = _DIRECTION.search(name.replace("Copy", "Copy "))
    return _SHORT.get(match[1], match[1]) if match else "other"
