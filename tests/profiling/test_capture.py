"""Captures: what is timed, what is traced, what memory peaked."""

import gzip
import json
import mmap
import time
from pathlib import Path

import pytest
import torch

from profiling.capture import NullCapture, ProfilerWindow, TimedCapture, TracedCapture
from profiling.run_record import StageRecord, StepTimings, TraceFile
from profiling.terminal.runs import latency_line, phase_table
from profiling.terminal.tables import PlainConsole

CPU = torch.device("cpu")


def run(capture, steps):
    with capture:
        for _ in range(steps):
            with capture.phase("forward"):
                torch.ones(64, 64) @ torch.ones(64, 64)
            with capture.phase("metrics"):
                time.sleep(0.002)
            capture.step(samples=8)


def test_a_timed_capture_keeps_every_step_and_phase():
    capture = TimedCapture(CPU)
    run(capture, 3)
    run(capture, 2)  # entered again, it goes on
    samples = capture.timings()
    assert samples.samples == [8] * 5
    assert set(samples.phase_s) == {"forward", "metrics"}
    assert all(0.002 <= phase <= step for phase, step in zip(samples.phase_s["metrics"], samples.step_s, strict=True))


def test_a_phase_that_runs_twice_in_a_step_is_summed():
    capture = TimedCapture(CPU)
    with capture:
        for _ in range(2):
            with capture.phase("forward"):
                time.sleep(0.002)
        capture.step(samples=1)
    assert len(capture.timings().phase_s["forward"]) == 1
    assert capture.timings().phase_s["forward"][0] >= 0.004


def test_a_step_that_did_not_end_is_not_a_sample():
    capture = TimedCapture(CPU)
    with pytest.raises(KeyboardInterrupt), capture:
        with capture.phase("forward"):
            pass
        raise KeyboardInterrupt
    with capture:
        capture.step(samples=1)
    assert capture.timings().phase_s == {}


class QueueingClock:
    """A device's clock: a mark passes when something waits for it, or when the test says that all have."""

    def __init__(self):
        self.now = 0
        self.waits = 0
        self.passed = 0

    def mark(self):
        self.now += 1
        return self.now

    def has_passed(self, mark):
        return mark <= self.passed

    def wait(self, mark):
        self.passed = max(self.passed, mark)

    def seconds(self, start, end):
        if not self.has_passed(end):
            self.waits += 1
            self.passed = end
        return float(end - start)


@pytest.mark.parametrize("kind", ["timed", "traced"])
def test_steps_are_queued_and_no_capture_waits_for_the_device_between_them(kind, monkeypatch, tmp_path):
    clock = QueueingClock()
    monkeypatch.setattr("profiling.capture.clock_for", lambda device: clock)
    window = ProfilerWindow(tmp_path, wait=0, warmup=0, active=4, options={})
    capture = TimedCapture(CPU) if kind == "timed" else TracedCapture("train", CPU, window)
    with capture:
        for _ in range(3):
            with capture.phase("forward"):
                pass
            capture.step(samples=8)
        assert clock.waits == 0
        if kind == "timed":
            clock.passed = clock.now  # what the device has done is read without waiting
        capture.step(samples=8)
    seconds = capture.timings().step_s if kind == "timed" else capture.trace().step_s
    assert seconds == ([3.0, 3.0, 3.0, 1.0] if kind == "timed" else [1.0] * 4)
    assert clock.waits == (1 if kind == "timed" else 4)


def test_the_latency_of_a_request_ends_when_the_device_has_answered_it(monkeypatch):
    clock = QueueingClock()
    monkeypatch.setattr("profiling.capture.clock_for", lambda device: clock)
    with TimedCapture(CPU, is_queued=False) as capture:
        for _ in range(2):
            capture.step(samples=8)
            assert clock.passed == clock.now - 1  # all but the start of the next request
    assert capture.timings().step_s == [1.0, 1.0]


def test_a_traced_capture_exports_the_active_steps_alone(tmp_path):
    capture = TracedCapture(
        "train", CPU, ProfilerWindow(tmp_path, wait=1, warmup=1, active=2, options={"record_shapes": True})
    )
    run(capture, 4)
    trace = capture.trace()
    assert trace.samples == [8, 8]
    assert trace.peak_allocated_bytes is None  # profile_memory was not asked for
    assert trace.path.endswith(".pt.trace.json.gz")
    assert [file.name for file in tmp_path.iterdir()] == [trace.path]
    events = json.loads(gzip.decompress((tmp_path / trace.path).read_bytes()))["traceEvents"]
    names = [event["name"] for event in events if event.get("cat") == "user_annotation"]
    assert names.count("forward") == names.count("metrics") == 2
    assert sum(name.startswith("ProfilerStep#") for name in names) == 2


def test_the_peak_of_tensors_is_that_of_the_window(tmp_path):
    for size in (1000, 500):  # torch's totals go on from window to window; a smaller second peak must not look larger
        folder = tmp_path / str(size)
        folder.mkdir()
        capture = TracedCapture("train", CPU, ProfilerWindow(folder, 0, 1, 1, {"profile_memory": True}))
        kept = []
        with capture:
            for _ in range(2):
                kept.append(torch.ones(size, 1000))
                capture.step(samples=1)
        assert capture.trace().peak_allocated_bytes == size * 1000 * 4
        assert capture.trace().allocated_bytes == size * 1000 * 4


def test_a_pass_shorter_than_its_window_is_an_error(tmp_path):
    capture = TracedCapture("train", CPU, ProfilerWindow(tmp_path, wait=1, warmup=1, active=2, options={}))
    run(capture, 2)
    with pytest.raises(RuntimeError, match="ended after 2 of the window's 4 steps"):
        capture.trace()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets a peak of resident memory")
def test_the_resident_peak_is_that_of_the_pass():
    large = TimedCapture(CPU)
    # A mapping, not a tensor: the allocator keeps freed memory where an earlier test has reserved the heap.
    with large, mmap.mmap(-1, 2**28) as held:
        held[:: mmap.PAGESIZE] = bytes(len(held) // mmap.PAGESIZE)  # touches every page
    small = TimedCapture(CPU)
    with small:
        pass
    assert large.memory.per_stage
    assert large.memory.resident_bytes - small.memory.resident_bytes > 200 * 2**20


def test_the_null_capture_does_nothing():
    run(NullCapture(), 1)


def test_the_overhead_of_the_profiler_compares_seconds_per_image():
    timed = StepTimings(samples=[10, 10, 5], step_s=[1.0, 1.0, 0.5], phase_s={})
    trace = TraceFile(path="t", samples=[5], step_s=[0.6], peak_allocated_bytes=None)
    stage = StageRecord(
        timed=timed, trace=trace, peak_resident_bytes=0, resident_is_per_stage=True, peak_accelerator_bytes=None
    )
    assert stage.profiler_overhead() == pytest.approx(0.2)


@pytest.mark.parametrize(("traced_s", "measurable"), [(1.02, False), (0.98, False), (1.6, True), (0.5, False)])
def test_an_overhead_within_the_noise_of_the_steps_is_none(traced_s, measurable, capsys):
    timed = StepTimings(samples=[1] * 40, step_s=[0.95 + 0.0025 * i for i in range(40)], phase_s={})
    trace = TraceFile(path="t", samples=[1], step_s=[traced_s], peak_allocated_bytes=None)
    stage = StageRecord(
        timed=timed, trace=trace, peak_resident_bytes=0, resident_is_per_stage=True, peak_accelerator_bytes=None
    )
    assert (stage.measurable_overhead() is not None) is measurable
    PlainConsole().print(phase_table("train", stage))
    assert ("within the noise" in " ".join(capsys.readouterr().out.split())) is not measurable


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([60], "the only batch, of 60, took 1 ms"),
        ([128, 60], "latency of batches of 60 to 128: p50 1 ms (of 2 batches)"),
        ([128] * 10, "latency of a batch of 128: p50 1 ms, p90 1 ms (of 10 batches)"),
        ([128] * 100, "latency of a batch of 128: p50 1 ms, p90 1 ms, p99 1 ms"),
    ],
)
def test_only_percentiles_that_there_are_batches_for_are_shown(samples, said):
    assert latency_line(StepTimings(samples=samples, step_s=[0.001] * len(samples), phase_s={})) == said
