"""Comparisons to make reports of, traces to explain them with, and a reader of the page."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from profiling.report.page import render
from profiling.run_record import Environment
from profiling.verdict.hypothesis import Expectation, Hypothesis
from profiling.verdict.judge import Comparison, PeakMemory, failed, judge_comparison, not_applicable
from profiling.verdict.numerics import check_numerics
from profiling.verdict.record import ArmRecord, ComparisonRecord
from profiling.verdict.timings import PhaseTimings
from profiling.vocabulary import Agreement, ExpectedMemory, ExpectedTime

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<img src=x onerror=alert(1)>&lt;b&gt;</script><b>%{x}$x$"


def samples(shift: float, noise: float, seed: int = 0, seconds: float = 2e-4) -> PhaseTimings:
    baseline, variant, twin = seconds * np.exp(np.random.default_rng(seed).normal(0, noise, size=(3, 40)))
    return PhaseTimings(baseline.tolist(), (variant * shift).tolist(), twin.tolist())


def hypothesis(
    phase: str = "evaluate", time: ExpectedTime | None = ExpectedTime.slower, claim: str = "grad mode is slower"
) -> Hypothesis:
    return Hypothesis(claim, "it keeps activations", phase, Expectation(time, ExpectedMemory.more))


def compared(name: str, shift: float, noise: float = 0.004, mismatch: bool = False) -> Comparison:
    """An experiment on `evaluate` that takes `shift` times as long."""
    return judge_comparison(
        name,
        hypothesis(),
        {"train": samples(1.0, noise), "evaluate": samples(shift, noise, seed=1)},
        PeakMemory(400 * 2**20, 500 * 2**20),
        check_numerics(Agreement.identical, 0.5 if mismatch else 0.0, 0.5 if mismatch else 0.0, 1e-3, 1e-5),
    )


def recorded(made: Comparison, topic: str = "autograd", **changes: Any) -> ComparisonRecord:
    made_record = ComparisonRecord(
        comparison=made,
        partial=False,
        started="2026-11-21T22:10:03",
        seconds=31.0,
        budget_s=45.0,
        configs={"baseline": {}, "variant": {"hypothesis": {"topic": topic}}},
        changed={"switches.eval_context": ("inference_mode", "grad")},
        environment=Environment(
            host="vm",
            platform="Linux",
            processor="AMD EPYC",
            cores=2,
            memory_bytes=24 * 2**30,
            device="cpu",
            device_name="AMD EPYC",
            precision="bf16",
            threads=2,
            versions={"torch": "2.14.1"},
        ),
        timings={},
        arms={},
    )
    return msgspec.structs.replace(made_record, **changes)


def arm(**traces: str) -> ArmRecord:
    return ArmRecord(
        warmup_s=1.5,
        peak_resident_bytes=400 * 2**20,
        peak_allocated_bytes={"evaluate": 20 * 2**20},
        peak_accelerator_bytes=None,
        results={"accuracy": 0.9777},
        traces=traces,
    )


ARMS = {"baseline": arm(evaluate="whole.pt.trace.json"), "variant": arm(evaluate="other.pt.trace.json")}
FAILED = failed("too_large", hypothesis(), "MemoryError: 3 GiB were not there")
PREDICTED = failed("frozen", hypothesis(time=ExpectedTime.fails), "no parameter requires grad")
NOT_APPLICABLE = not_applicable("tf32_off", hypothesis(), "needs cuda")


def hostile_comparison() -> ComparisonRecord:
    """A comparison whose every text is hostile."""
    made = judge_comparison(
        HOSTILE, hypothesis(HOSTILE, claim=HOSTILE), {"train": samples(1, 0.01), HOSTILE: samples(1.2, 0.01, seed=1)}
    )
    variant = arm(**{HOSTILE: HOSTILE})
    variant = msgspec.structs.replace(variant, results={HOSTILE: 1.0}, peak_allocated_bytes={HOSTILE: 1})
    machine = recorded(made).environment
    for field in ("host", "platform", "processor", "device", "device_name", "precision"):
        machine = msgspec.structs.replace(machine, **{field: HOSTILE})
    machine = msgspec.structs.replace(machine, versions={HOSTILE: HOSTILE, "torch": HOSTILE})
    changed = {HOSTILE: (HOSTILE, [HOSTILE])}
    arms = {HOSTILE: variant, "variant": variant}
    return recorded(made, HOSTILE, started=HOSTILE, changed=changed, environment=machine, arms=arms)


def record_traces(folder: Path) -> None:
    """A whole trace, one of other work, one that is cut short, and one that is no trace."""
    for name, operation in (("whole", torch.neg), ("other", torch.sort)):
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            with record_function("forward"):
                operation(torch.ones(1000))
            with record_function("metrics"):
                torch.ones(1000).sum()
        profiler.export_chrome_trace(str(folder / f"{name}.pt.trace.json"))
    content = (folder / "whole.pt.trace.json").read_bytes()
    (folder / "cut.pt.trace.json").write_bytes(content[: content.rindex(b"},") + 2])
    (folder / "foreign.json").write_text("[1, 2]")


class Page(HTMLParser):
    """The tags of a page, its text, and its tables as rows of cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.scripts: list[str] = []  # style sheets too
        self.in_cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_data(self, data: str) -> None:
        if self.cdata_elem is not None:
            self.scripts.append(data)
        else:
            self.text += data
            if self.in_cell:
                self.rows[-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.in_cell = False

    def row(self, first: str) -> list[str]:
        return next(row for row in self.rows if row and row[0].startswith(first))


def render_one(record: ComparisonRecord, folder: Path = Path()) -> Page:
    return Page(render([record], [folder]))
