"""What the experiments about ranks change: one option each, the same weights at the end; one process has none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from profiling import run_record
from profiling.errors import NotApplicableError, UserError
from profiling.run_record import StepTimings
from profiling.verdict.record import read_comparison
from profiling.vocabulary import COMPARED_ARMS
from tests.conftest import ROOT, TINY, composed
from train.ab.arm import joint_steps
from train.ranks import exchange
from train.ranks.group import BACKENDS
from train.ranks.join import joined, refuse_unsupported
from train.ranks.launch import Launch, cores_of_rank, usable_cores, variables
from train.run import train

PARITY = Path(__file__).with_name("parity.py")
EXPERIMENTS = {file.stem: yaml.safe_load(file.read_text()) for file in (ROOT / "configs/experiment").glob("ddp_*.yaml")}
PARITY_OF = [*EXPERIMENTS, "fsdp_on"]
TABLES = {
    "graph": exchange.GRAPH,
    "exchange": exchange.EXCHANGE,
    "accumulation": exchange.ACCUMULATION,
    "loss": exchange.LOSS,
    "division": exchange.DIVISION,
}


def test_every_option_for_ranks_is_the_baselines_or_an_experiments():
    baseline = composed().ddp
    reached = {(key, value) for content in EXPERIMENTS.values() for key, value in content["ddp"].items()}
    for key, table in TABLES.items():
        assert next(iter(table)) == baseline[key], "the fast one is first"
        assert [option for option in table if option != baseline[key] and (key, option) not in reached] == []


@given(st.integers(1, 40), st.integers(1, 7))
def test_where_ranks_take_unequal_parts_rank_0_takes_twice_the_others(samples, ranks):
    batch = range(100, 100 + samples)
    parts = [exchange.unequal_part(rank, ranks, batch) for rank in range(ranks)]
    assert [place for part in parts for place in part] == list(batch)
    assert all(abs(len(parts[0]) - 2 * len(part)) <= 2 for part in parts[1:])


def test_without_ranks_an_experiment_about_them_does_not_apply(configure, tmp_path):
    text = "not applicable here: ddp_unbalanced needs several processes: start it with torchrun, or give ranks=2"
    with pytest.raises(NotApplicableError, match=f"^{text}$"):
        train(configure("+experiment=ddp_unbalanced", *TINY, "model.width=4"), {}, tmp_path)


def test_what_is_of_whole_models_alone_does_not_apply_to_parts_of_them(configure):
    config = configure("+experiment=ddp_no_overlap", "strategy=fsdp")
    launch = Launch(rank=0, ranks=2, local_rank=0, local_ranks=2, port=1, address="localhost", restarts=0)
    with pytest.raises(NotApplicableError, match=r"ddp\.exchange=after_backward .* add strategy=ddp$"):
        refuse_unsupported(config, launch, "cpu", BACKENDS)


def test_one_process_refuses_to_be_two(configure):
    refusal = r"ranks=2: for train\.ab, .*: torchrun --nproc-per-node 2 -m train"
    with pytest.raises(UserError, match=refusal), joined(configure("ranks=2")):
        pass


def test_the_ranks_of_an_arm_share_the_cores_and_no_port(monkeypatch):
    first, second = variables(2), variables(2)
    assert [of_rank["RANK"] for of_rank in first] == ["0", "1"]
    assert first[0]["MASTER_PORT"] == first[1]["MASTER_PORT"] != second[0]["MASTER_PORT"]
    for name, value in first[1].items():
        monkeypatch.setenv(name, value)
    assert cores_of_rank() == max(1, usable_cores() // 2)
    assert variables(1) == [{}]


def test_a_step_of_all_ranks_has_the_samples_of_all_and_the_time_of_the_slowest():
    one = StepTimings(samples=[3, 2], step_s=[1.0, 5.0], phase_s={"forward": [0.5, 2.0]})
    other = StepTimings(samples=[2, 2], step_s=[4.0, 1.0], phase_s={"forward": [0.1, 3.0]})
    assert joint_steps([one, other]) == StepTimings(samples=[5, 4], step_s=[4.0, 5.0], phase_s={"forward": [0.5, 3.0]})


@pytest.mark.slow
def test_experiments_about_ranks_train_the_same_model():
    """But for rounding: gradients are added in another order, or divided among other samples."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, PARITY, *PARITY_OF], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    differences = json.loads(done.stdout)
    assert [*differences] == PARITY_OF
    assert {name: value for name, value in differences.items() if value > 1e-5} == {}
    for name, content in EXPERIMENTS.items():
        if content["hypothesis"]["numerics"] == "identical":
            assert differences[name] == 0.0, name


@pytest.mark.slow
def test_two_arms_of_two_ranks_are_measured_against_each_other(command, tmp_path):
    arguments = ("+experiment=ddp_sync_metrics_every_step", "ranks=2", "ab.budget_s=1", f"output={tmp_path}")
    result = command("train.ab", *arguments, *TINY, "model.width=4")
    assert result.returncode == 0, result.stderr
    assert "Each arm is 2 ranks of " in result.stdout and "results: identical" in result.stdout
    (folder,) = tmp_path.glob("ab/*/*")
    record = read_comparison(folder)
    assert record.ranks == 2
    assert record.environment.threads == max(1, len(os.sched_getaffinity(0)) // 2)
    for arm in COMPARED_ARMS:
        left = run_record.read(folder / arm)
        assert left.ranks == 2
        assert set(left.stages["train"].timed.samples) <= {128, 32}, "of both ranks together"
        assert len(list((folder / arm).glob("*_train.*.json.gz"))) == 2, "a trace of each rank"
        assert len(list((folder / arm).glob("events.*"))) == 1
