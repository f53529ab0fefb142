"""The measurement knows nothing of configurations: whatever answers the messages can be measured."""

import multiprocessing
from functools import partial

import pytest

from profiling.ab.measure import Measurement
from profiling.ab.messages import ArmError
from profiling.ab.process import ArmProcess
from profiling.verdict.judge import phase_effect
from profiling.vocabulary import BASELINE, VARIANT, Verdict
from tests.profiling.ab.arms import DyingArm, ToyArm
from train.ab.arm_config import PRELOADED  # toy arms need none of it, but the tests of train.ab share the fork server


def started(*arguments):
    """A toy arm in a process of its own."""
    return ArmProcess([partial(ToyArm, *arguments)], PRELOADED)


def measured(log, probes_s=(), best_probe_s=None):
    """A measurement of two toy arms, of which the variant takes twice as long."""
    arms = {
        BASELINE: partial(started, log, BASELINE, 0.001, probes_s),
        VARIANT: partial(started, log, VARIANT, 0.002, ()),
    }
    quiet = lambda done, total: None  # noqa: E731
    return Measurement(arms, "train", 1.0, log.parent, "", quiet, best_probe_s=best_probe_s).run()


def test_any_arm_that_answers_the_messages_can_be_measured(tmp_path):
    result = measured(tmp_path / "log")
    effect = phase_effect("train", result.timings["train"])
    assert (effect.verdict, effect.ratio) == (Verdict.slower, pytest.approx(2.0))
    assert result.difference == result.twin_difference == (0.0, 0.0)
    assert result.stop is None


def test_every_round_and_both_traced_windows_come_after_a_probe_of_the_baseline(tmp_path):
    measured(tmp_path / "log")
    requests = (tmp_path / "log").read_text().splitlines()
    finishes = [at for at, request in enumerate(requests) if request.endswith("finish")]
    assert [requests[at] for at in finishes] == ["baseline finish", "variant finish"]
    assert [requests[at - 1] for at in finishes] == ["baseline probe"] * 2
    assert "variant probe" not in requests, "only the baseline is asked, so that no arm's speed influences it"


def test_launches_are_marked_whose_probes_say_that_cores_share_no_cache(tmp_path):
    result = measured(tmp_path / "log", probes_s=[2.0] * 1000, best_probe_s=1.0)
    assert result.timings["train"].apart_launches.all()
    assert result.waited_s > 0.5, "half of the budget, then it goes on"


def test_the_ranks_of_an_arm_get_each_request_together_and_rank_0_answers(tmp_path):
    starts = [partial(ToyArm, tmp_path / name, name, 0.0, (), tmp_path) for name in ("rank0", "rank1")]
    with ArmProcess(starts, PRELOADED) as arm:
        arm.answer()
        assert arm.probe() == 1.0
        arm.block({"train": 1})
    assert [(tmp_path / "rank0").read_text().count(word) for word in ("answer", "probe", "block")] == [1, 1, 1]
    assert [(tmp_path / "rank1").read_text().count(word) for word in ("answer", "probe", "block")] == [1, 0, 1]


def test_a_rank_that_dies_while_another_waits_for_it_is_named(tmp_path):
    waiting = partial(ToyArm, tmp_path / "log", "rank0", 600.0, (), tmp_path)
    dying = partial(DyingArm, tmp_path / "log", "rank1", 0.0, (), tmp_path)
    named = r"^rank 1: the process was ended by SIGKILL"
    with ArmProcess([waiting, dying], PRELOADED) as arm, pytest.raises(ArmError, match=named):
        arm.block({"train": 1})


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_an_arm_is_pickled_whatever_the_start_method(tmp_path, monkeypatch, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: [method])
    start = partial(ToyArm, tmp_path / "log", BASELINE, 0.0, (), tmp_path)
    with ArmProcess([start], PRELOADED) as arm:
        assert arm.probe() == 1.0
    assert (tmp_path / "log").read_text() == "baseline start\nbaseline probe\n"
