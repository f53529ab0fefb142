"""torchrun with two ranks, as a user starts it: one run, the same model as of one process, and errors of one line."""

import gzip
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from profiling import run_record
from tests.conftest import ROOT
from train import checkpoint
from train.run import train

FAULTS = Path(__file__).with_name("faults.py")
# Nothing that depends on how a batch is divided; 41 samples in batches of 10: rank 1 has no sample in the last batch.
SETUP = (
    "data=synthetic", "data.train_samples=41", "data.test_samples=21", "data.channels=1", "data.image_size=8",
    "batch_size=10", "eval_batch_size=20", "epochs=3", "model=mlp", "model.width=8", "model.dropout=0",
    "augment.shift=0", "augment.noise=0", "precision=fp32",
)  # fmt: skip


@pytest.fixture
def torchrun(tmp_path):
    """A function that starts two ranks; what they leave is in `tmp_path`."""

    def run(*arguments, fault="none", restarts=0):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        return subprocess.run(
            [*launcher, f"--max-restarts={restarts}", FAULTS, fault, *SETUP, f"output={tmp_path}", *arguments],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip

    return run


def weights(folder):
    return checkpoint.load(folder / checkpoint.FILE_NAME).weights


def lines(result):
    """What the ranks said on standard error, without what torchrun adds."""
    return [line for line in result.stderr.splitlines() if line.startswith(("error: ", "interrupted"))]


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_two_ranks_train_the_model_that_one_process_trains(strategy, torchrun, configure, tmp_path):
    result = torchrun("profiler.wait=0", "profiler.active=1", "micro_batches=2", f"strategy={strategy}")
    assert result.returncode == 0, result.stderr
    assert f"2 ranks, 2 on this machine (cpu), {strategy}: an update takes batch_size=10" in result.stdout
    assert result.stdout.count("accuracy") == 1
    (folder,) = tmp_path.glob("*/*")
    alone = tmp_path / "alone" / "run"
    train(configure(*SETUP, "profiler=off", "micro_batches=2"), {}, alone)
    expected, found = weights(alone), weights(folder)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-5)
    one, two = run_record.read(alone), run_record.read(folder)
    assert (one.ranks, two.ranks) == (1, 2)
    assert two.results["accuracy"] == one.results["accuracy"]
    for sum_over_images in ("loss", "brier"):
        assert two.results[sum_over_images] == pytest.approx(one.results[sum_over_images], rel=1e-6)
    assert two.environment.threads == max(1, len(os.sched_getaffinity(0)) // 2)  # not torchrun's OMP_NUM_THREADS=1
    assert len(list(folder.glob("events.*"))) == len(list(folder.glob("record.json"))) == 1
    traces = [json.loads(gzip.decompress(file.read_bytes())) for file in folder.glob("*.pt.trace.json.gz")]
    assert sorted(trace["distributedInfo"]["rank"] for trace in traces) == [0, 0, 0, 1, 1, 1]


@pytest.mark.slow
def test_the_command_line_shows_what_the_ranks_wait_for(torchrun, command, tmp_path):
    assert torchrun("profiler.wait=0", "profiler.active=2").returncode == 0
    (folder,) = tmp_path.glob("*/*")
    summary = json.loads(command("profiling", "summary", str(folder), "--json").stdout)
    ranks = summary["communication"]["ranks"]
    assert {row["rank"] for row in ranks} == {0, 1}
    assert any("all_reduce" in collective["name"] for collective in ranks[0]["collectives"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("seed=1", "error: ranks differ in the configuration: seed is 0 on rank 0, 1 on rank 1"),
        ("epochs=0", "error: rank 1: epochs=0: out of range; allowed: 1 or more"),
        ("epohcs=1", "error: rank 1: epohcs: no such key; did you mean 'epochs'?"),
        ("hang", "error: rank 1 has ended, or hangs: no answer within rank_timeout_s=10"),
    ],
)
def test_a_fault_of_one_rank_is_one_line_and_ends_all(fault, message, torchrun):
    start = time.monotonic()
    result = torchrun("rank_timeout_s=10", "profiler=off", fault=fault)
    assert lines(result) == [message]
    assert result.returncode == 1
    assert time.monotonic() - start < 60


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("epohcs=1",), "error: epohcs: no such key; did you mean 'epochs'?"),
        (("switches.execution=compiled",), "error: switches.execution=compiled: not with ranks; start it without"),
        (
            ("strategy=fsdp", "switches.histograms=every_step"),
            "error: switches.histograms=every_step: not with strategy",
        ),
        (
            ("strategy=fspd",),
            "error: strategy: Invalid value 'fspd', expected one of [ddp, fsdp]; did you mean 'fsdp'?",
        ),
        (("batch_size=1",), "error: batch_size=1: that of all ranks together; allowed: 2 or more"),
        (("task=infer", "checkpoint=x"), "error: task=infer: one process does it; start it without torchrun"),
        (("augment.shift=8",), "error: augment.shift=8: out of range; allowed: 0 to 7 pixels"),
    ],
)
def test_a_mistake_of_all_ranks_is_told_once(arguments, message, torchrun, tmp_path):
    result = torchrun(*arguments)
    assert len(lines(result)) == 1
    assert lines(result)[0].startswith(message)
    assert result.returncode == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_optimizer_that_cannot_have_parts_of_parameters_is_one_line(torchrun):
    result = torchrun("strategy=fsdp", "optimizer=sgd", "profiler=off")
    (line,) = lines(result)
    assert line.startswith(
        "error: strategy=fsdp: torch cannot do this with parts of parameters: Operator aten._fused_sgd"
    )
    assert line.endswith("give switches.optimizer=foreach, another optimizer, or strategy=ddp")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "optimizer"),
    [
        ("ddp", ("optimizer=adamw",)),
        ("fsdp", ("optimizer=adamw",)),
        # An optimizer without a state of its own.
        ("fsdp", ("optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false", "switches.optimizer=foreach")),
    ],
)
def test_a_killed_rank_is_started_again_and_training_goes_on_in_the_same_folder(
    strategy, optimizer, torchrun, tmp_path
):
    augmented = ("augment.shift=1", "augment.noise=0.1", "model.dropout=0.2", "checkpoint_every=2", "profiler=off")
    augmented = (*augmented, *optimizer, f"strategy={strategy}")
    assert torchrun(*augmented, f"output={tmp_path}/whole").returncode == 0
    result = torchrun(*augmented, f"output={tmp_path}/killed", fault="kill", restarts=1)
    assert result.returncode == 0, result.stderr
    assert re.search("goes on in .*: epoch 2, after [0-9] steps", result.stdout)
    (whole,), (killed,) = tmp_path.glob("whole/*/*"), tmp_path.glob("killed/*/*")
    expected, found = weights(whole), weights(killed)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
