"""A TensorBoard around the plugin, without a socket."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tensorboard.backend.application import TensorBoardWSGI
from tensorboard.plugins.base_plugin import TBContext
from werkzeug.test import Client

from profiling.run_record import Environment, RunRecord, StageRecord, StepTimings, TraceFile
from profiling.tb_plugin.plugin import ABTracePlugin
from tests.profiling.make_trace import event, write

STEP = [event("ProfilerStep#3", 0, 100, "user_annotation"), event("aten::mm", 10, 20), event("aten::add", 40, 5)]
HOSTILE = "<img src=x onerror=alert(1)>"
ENVIRONMENT = Environment(
    host="vm",
    platform="Linux",
    processor="EPYC",
    cores=2,
    memory_bytes=2**34,
    device="cpu",
    device_name="EPYC",
    precision="fp32",
    threads=2,
    versions={"torch": "2.14.1"},
)


def parts_of(answer: Any, kind: str) -> list[dict[str, Any]]:
    """All blocks of a kind in an answer, in the order in which they are shown."""
    if isinstance(answer, list):
        return [found for part in answer for found in parts_of(part, kind)]
    if not isinstance(answer, dict):
        return []
    return [answer] * (answer.get("kind") == kind) + parts_of(list(answer.values()), kind)


def column(answer: Any, table: str, key: str) -> list[Any]:
    """The values of a column of a table, by the name of its CSV file."""
    (found,) = (each for each in parts_of(answer, "table") if each["name"] == table)
    (values,) = (each["values"] for each in found["columns"] if each["key"] == key)
    return list(values)


def files_of(answer: Any) -> list[str]:
    """The names of the files that the Overview says were read."""
    (files,) = (text for part in parts_of(answer, "definitions") for name, text in part["pairs"] if name == "files")
    return list(files)


def runs_of(answer: Any) -> list[str]:
    """The runs that the legend of a comparison names: the reference, then the other."""
    return [run for _, _, run in answer["compare"][0]["sides"]]


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the cache folders of this test's TensorBoards are."""
    folder = tmp_path / "caches"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def logdir(tmp_path: Path) -> Path:
    folder = tmp_path / "logdir"
    folder.mkdir()
    return folder


@pytest.fixture
def serve() -> Callable[[Path | str | None], Client]:
    """A client of a TensorBoard on a logdir, with no other plugin."""

    def start(logdir: Path | str | None) -> Client:
        context = TBContext(logdir=None if logdir is None else str(logdir))
        return Client(TensorBoardWSGI([ABTracePlugin(context)]))

    return start


@pytest.fixture
def client(serve: Callable[[Path], Client], logdir: Path) -> Client:
    return serve(logdir)


def trace(folder: Path, name: str = "w.1.pt.trace.json") -> Path:
    """A small trace in a run, whose folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    return write(folder / name, STEP)


def make_record(window: str = "w.1.pt.trace.json") -> RunRecord:
    timed = StepTimings(samples=[8, 8], step_s=[0.1, 0.2], phase_s={"forward": [0.05, 0.1]})
    traced = TraceFile(path=window, samples=[8], step_s=[0.3], peak_allocated_bytes=None)
    stage = StageRecord(
        timed=timed, trace=traced, peak_resident_bytes=1, resident_is_per_stage=True, peak_accelerator_bytes=None
    )
    return RunRecord(
        name="baseline",
        status="complete",
        error=None,
        started="2026-11-24T23:50:27+00:00",
        config={"epochs": 2},
        changed={},
        environment=ENVIRONMENT,
        stages={"train": stage},
        results={"accuracy": 0.5},
    )


def comparison_text() -> bytes:
    """A comparison.json of an experiment that could not run here, so that it has no figures."""
    hypothesis = {"claim": "slower", "because": "it is", "phase": "evaluate", "expect": {"time": "slower"}}
    judged = {
        "experiment": "tf32_off",
        "hypothesis": hypothesis,
        "verdict": "not applicable here",
        "outcome": "undecided",
        "reason": "needs an accelerator",
        "phases": [],
        "memory": None,
        "numerics": None,
        "schema_version": 1,
    }
    record = {
        "schema_version": 1,
        "comparison": judged,
        "partial": False,
        "started": "2026-11-24T23:50:27+00:00",
        "seconds": 1.0,
        "budget_s": 1.0,
        "configs": {"baseline": {}, "variant": {"hypothesis": {"topic": "numerics"}}},
        "changed": {"switches.tf32": [True, False]},
        "environment": ENVIRONMENT,
        "samples": {},
        "arms": {},
    }
    return msgspec.json.encode(record)
