"""Events at time 0 or far from the rest: they are left out and counted, and the extent is that of the rest."""

from pathlib import Path

import pytest

from profiling.analysis.summary import Summary, summarize
from profiling.trace.trace import read_trace
from tests.profiling.cases import case
from tests.profiling.make_trace import Event, event, write

SINCE_1970, SINCE_BASE = 1_615_207_264_500_000, 4_402_341_478_123.456
MINUTE, DAY = 60e6, 86_400e6


def recorded(base: float) -> list[Event]:
    """One step of 10 ms on host and device."""
    events = [event("ProfilerStep#1", base, 10_000, "user_annotation")]
    for i in range(10):
        at = base + 100 + 900 * i
        events.append(event("aten::mm", at, 20))
        events.append(event("cudaLaunchKernel", at + 2, 5, "cuda_runtime", correlation=i + 1))
        events.append(event("gemm", at + 100, 300, "kernel", 7, correlation=i + 1))
    return events


def at_zero(count: int, dur: float = 0) -> list[Event]:
    return [event("gemm", 0, dur, "kernel", 7) for _ in range(count)]


def memory(ts: float) -> Event:
    args = {"Bytes": 64, "Addr": 1, "Device Type": 0, "Device Id": -1}
    return {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "pid": 1, "tid": 1, "ts": ts, "args": args}


def summary(folder: Path, events: list[Event]) -> Summary:
    return summarize([read_trace(write(folder / "a.json", events))])


FAR: dict[str, tuple[float, list[Event]]] = {
    "since 1970": (SINCE_1970, at_zero(4)),
    "since a base": (SINCE_BASE, at_zero(6)),
    "with a duration": (SINCE_1970, at_zero(3, dur=5)),
    "that ends where the others are": (SINCE_1970, at_zero(2, dur=SINCE_1970 + 500)),
    "more than the others": (SINCE_1970, at_zero(50)),
    "minutes before the others": (10 * MINUTE, at_zero(4)),
    "in other tables": (SINCE_BASE, [memory(0), event("main.py(1): f", 0, 0, "python_function")]),
    "years before": (SINCE_1970, [event("gemm", SINCE_1970 / 1000, 5, "kernel", 7)]),
    "before 0": (SINCE_BASE, [event("gemm", -SINCE_BASE, 5, "kernel", 7)]),
    "days after": (SINCE_BASE, [event("gemm", SINCE_BASE + 2 * DAY, 5, "kernel", 7)] * 3),
    "on both sides": (SINCE_BASE, [*at_zero(2), event("aten::mm", SINCE_1970, 5), memory(SINCE_BASE + DAY)]),
    "for days": (SINCE_BASE, [event("gemm", SINCE_BASE + 5, 3 * DAY, "kernel", 7)]),
    "for longer than there are computers": (SINCE_BASE, [event("gemm", SINCE_BASE + 5, 1e18, "kernel", 7)]),
    "beyond the range of a float64": (SINCE_BASE, [event("gemm", 1.7e308, 1.7e308, "kernel", 7)]),
}


@pytest.mark.parametrize("kind", FAR)
@pytest.mark.parametrize("last", [True, False], ids=["last", "first"])
def test_events_far_from_the_rest_do_not_stretch_the_extent(kind: str, last: bool, tmp_path: Path) -> None:
    base, wrong = FAR[kind]
    events = recorded(base)
    found = summary(tmp_path, [*events, *wrong] if last else [*wrong, *events])
    clean = summary(tmp_path, events)
    assert found.trace.extent_us == clean.trace.extent_us == 10_000
    assert found.trace.notes == [f"a.json: {len(wrong)} events without a usable time were left out"]
    assert not found.trace.whole
    assert (found.steps, found.phases, found.operators) == (clean.steps, clean.phases, clean.operators)
    assert (found.kernels, found.device_busy_us) == (clean.kernels, clean.device_busy_us)


ON_TIME: dict[str, list[Event]] = {
    "begin at 0": [*recorded(0), *at_zero(2)],
    "begin at 0 with a minute's pause": [event("aten::mm", 0, 5), *recorded(MINUTE)],
    "begin before 0": recorded(-5_000),
    "a pause of a minute": [*recorded(SINCE_BASE), *recorded(SINCE_BASE + MINUTE)],
    "one event after a pause": [*recorded(SINCE_BASE), event("aten::mm", SINCE_BASE + 10 * MINUTE, 5)],
    "one event": [event("aten::mm", SINCE_BASE, 5)],
    "one event at 0": [event("aten::mm", 0, 0)],
    "a long wait": [*recorded(SINCE_BASE), event("cudaDeviceSynchronize", SINCE_BASE, 30 * MINUTE, "cuda_runtime")],
    "a device with a clock of its own": [
        one | {"ts": one["ts"] - 40 * MINUTE} if one["cat"] == "kernel" else one for one in recorded(SINCE_BASE)
    ],
    "hours before the last": [event("aten::mm", SINCE_BASE + 20 * MINUTE * i, 5) for i in (*range(10), 40)],
    "hours of events": [event("aten::mm", SINCE_BASE + 20 * MINUTE * i, 5) for i in range(40)],
}


@pytest.mark.parametrize("kind", ON_TIME)
def test_pauses_and_clocks_are_no_reason_to_leave_anything_out(kind: str, tmp_path: Path) -> None:
    found = summary(tmp_path, ON_TIME[kind])
    assert found.trace.notes == []
    assert found.trace.whole
    operators = [row for row in found.operators if row.total_us or row.name.startswith("aten::")]
    assert sum(row.calls for row in (*operators, *found.kernels)) == sum(
        one["cat"] in ("cpu_op", "kernel") for one in ON_TIME[kind]
    )


def test_too_many_events_to_be_errors_are_kept_and_said_to_be_far(tmp_path: Path) -> None:
    """All kernels are days before the host's events: its clock and the device's differ."""
    events = [one | {"ts": one["ts"] - 2 * DAY} if one["cat"] == "kernel" else one for one in recorded(SINCE_BASE)]
    found = summary(tmp_path, events)
    assert found.trace.notes == ["a.json: 10 events are more than an hour from the rest, too many to be left out"]
    assert sum(row.device_us for row in found.kernels) == 3_000


def test_a_duration_of_no_sense_is_left_out_among_few_events(tmp_path: Path) -> None:
    found = summary(tmp_path, [event("aten::mm", 5, 10), event("aten::add", 10, 1e18)])
    assert [(row.name, row.self_us) for row in found.operators] == [("aten::mm", 10)]
    assert found.trace.notes == ["a.json: 1 events without a usable time were left out"]


@pytest.mark.parametrize(("name", "count"), [("absolute", 4), ("relative", 6)])
def test_the_cases_with_times_of_0_read_as_the_clean_one(name: str, count: int) -> None:
    folder = case("04-ts-zero")
    found, clean = (summarize([read_trace(folder / f"{file}.json")]) for file in (name, "clean"))
    assert found.trace.extent_us == clean.trace.extent_us == 10_000
    assert found.trace.notes == [f"{name}.json: {count} events without a usable time were left out"]
    assert (found.step_time, found.phases) == (clean.step_time, clean.phases)
    assert (found.operators, found.kernels) == (clean.operators, clean.kernels)


@pytest.mark.parametrize("path", ["01-hip-blocking-copy", "03-wait-on-side-thread", "40-trailing-sync"])
def test_cases_that_begin_at_0_lose_nothing(path: str) -> None:
    for file in case(path).glob("*.json"):
        assert not any("usable time" in note for note in summarize([read_trace(file)]).trace.notes), file
