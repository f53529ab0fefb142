"""What a switch does, as the traces themselves show it: operators, counts, bytes."""

import gzip
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from profiling.analysis.account import TimeAccount
from profiling.analysis.index import Index
from profiling.analysis.memory import memory
from profiling.analysis.operators import operators
from profiling.analysis.phases import phases
from profiling.heap import has_glibc
from profiling.trace.trace import read_trace
from tests.conftest import ROOT
from train import session

STEPS = 4  # active steps of profiler=light
SAMPLES = 96
PARAMETERS = 11  # three convolutions, three batch norms of two, a linear layer of two
SETUP = (
    "data=synthetic",
    "data.channels=1",
    "data.image_size=28",
    f"data.train_samples={SAMPLES}",
    f"data.test_samples={SAMPLES}",
    "model.width=4",
)


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """Run an experiment's windows once and give the trace of a stage."""
    from tests.conftest import composed  # a module-scoped fixture cannot use the function-scoped `configure`
    from train.config.compose import to_config
    from train.events import step_log  # TensorBoard takes a second to import

    windows = {}

    def trace_of(experiment, stage):
        if experiment not in windows:
            folder = tmp_path_factory.mktemp(experiment)
            parts = session.prepare(to_config(composed(f"+experiment={experiment}", *SETUP)))
            session.warm_up(parts)
            with step_log(parts, folder / "scratch") as log:
                found = dict(session.trace(parts, folder, log.after_step))
            windows[experiment] = {name: folder / file.path for name, file in found.items()}
        return windows[experiment][stage]

    return trace_of


def calls(path):
    return Counter({row.name: row.calls for row in operators(Index(read_trace(path)))})


def phase(path, name):
    return next(row for row in phases(TimeAccount(Index(read_trace(path)))) if row.name == name)


def peak_growth(path):
    device = memory(Index(read_trace(path)))[0]
    return device.peak_bytes - device.start_bytes


def alive_at_the_end(path):
    """Operator -> tensors that it allocated in the window and that nothing freed in it."""
    index = Index(read_trace(path))
    events = index.trace.allocations
    order = np.argsort(events.start_ns, kind="stable")
    last = {int(events.address[row]): row for row in order}
    alive = [row for row in last.values() if events.moved[row] > 0]
    names = [
        index.trace.names[index.operator_names[position]]
        for position in index.allocating_operators[alive]
        if position >= 0
    ]
    return Counter(names)


def test_nograd_off_records_a_graph_in_evaluation_and_holds_every_activation(traced):
    def tracked(path):  # torch numbers an operator only where autograd records a node for its backward pass
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        return Counter(event["name"] for event in events if event.get("args", {}).get("Sequence number", -1) >= 0)

    fast, slow = (tracked(traced(name, "evaluate")) for name in ("baseline", "nograd_off"))
    assert sum(fast.values()) == 0
    assert slow["aten::convolution"] == 3 * STEPS
    assert slow["aten::batch_norm"] + slow["aten::native_batch_norm"] >= 3 * STEPS
    # Three convolutions of 4, 8 and 16 channels in bf16 and float32 copies: more than twice the largest one alone.
    assert peak_growth(traced("nograd_off", "evaluate")) > 2 * peak_growth(traced("baseline", "evaluate"))
    assert calls(traced("nograd_off", "train")) == calls(traced("baseline", "train"))


def test_graph_accumulation_keeps_a_tensor_of_every_step_alive(traced):
    fast, slow = (alive_at_the_end(traced(name, "train")) for name in ("baseline", "graph_accumulation"))
    assert fast["aten::_log_softmax"] == 0
    assert slow["aten::_log_softmax"] == STEPS


def test_vectorized_off_dispatches_per_sample_what_the_baseline_dispatches_per_batch(traced):
    fast, slow = (calls(traced(name, "train")) for name in ("baseline", "vectorized_off"))
    assert fast["aten::stack"] == 0
    assert slow["aten::stack"] == STEPS
    assert fast["aten::constant_pad_nd"] == STEPS
    assert slow["aten::constant_pad_nd"] == SAMPLES * STEPS
    assert phase(traced("vectorized_off", "train"), "forward").calls == STEPS


def test_broadcast_blowup_allocates_n_by_n_by_c(traced):
    excess = [phase(traced(name, "evaluate"), "metrics").allocated_bytes for name in ("broadcast_blowup", "baseline")]
    every_pair = SAMPLES * SAMPLES * 10 * 4  # bytes of float32 [N, N, C]
    assert excess[0] - excess[1] > STEPS * every_pair
    assert peak_growth(traced("broadcast_blowup", "evaluate")) > every_pair


def test_logging_heavy_reads_every_parameter_in_a_phase_of_its_own(traced):
    fast, slow = (traced(name, "train") for name in ("baseline", "logging_heavy"))
    assert "log" not in {row.name for row in phases(TimeAccount(Index(read_trace(fast))))}
    assert phase(slow, "log").calls == STEPS
    detached = calls(slow)["aten::detach"] - calls(fast)["aten::detach"]
    assert detached >= PARAMETERS * STEPS  # by us; SummaryWriter does it again


FAULTS = """
import resource, sys
from pathlib import Path
from tests.conftest import composed
from train import session
from train.config.compose import to_config

def count(sums):
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)

faults = []
parts = session.prepare(to_config(composed()))
session.warm_up(parts)
dict(session.trace(parts, Path(sys.argv[1]), count))
print(faults[-1] - faults[-4])
"""


@pytest.mark.skipif(not has_glibc(), reason="only glibc's heap can be kept")
def test_traced_steps_find_the_memory_that_they_need(tmp_path):
    run = subprocess.run([sys.executable, "-c", FAULTS, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(run.stdout) < 1000, "page faults of three steps: 14,115 where the profiler splits what they have freed"


def test_dataloader_per_sample_indexes_samples_and_stacks_them(traced):
    fast, slow = (calls(traced(name, "train")) for name in ("baseline", "dataloader_per_sample"))
    assert slow["aten::stack"] - fast["aten::stack"] == 2 * STEPS  # images and labels of each batch
    assert slow["aten::select"] - fast["aten::select"] == 2 * SAMPLES * STEPS
    names = read_trace(traced("dataloader_per_sample", "train")).names
    assert any(name.startswith("enumerate(DataLoader)") for name in names)
