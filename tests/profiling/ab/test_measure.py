"""The measurement knows nothing of configurations: whatever answers the messages can be measured."""

import multiprocessing
import time
from functools import partial

import pytest

from profiling.ab import measure
from profiling.ab.measure import Measurement
from profiling.ab.messages import ArmError
from profiling.ab.plan import Plan
from profiling.ab.process import ArmProcess
from profiling.ab.time_limit import TimeUpError
from profiling.verdict.judge import phase_effect
from profiling.vocabulary import ARMS, BASELINE, STAGES, VARIANT, Verdict
from tests.profiling.ab.arms import DyingArm, LostArm, ToyArm
from train.ab.arm_config import PRELOADED  # toy arms need none of it, but the tests of train.ab share the fork server


def in_a_process(*arguments):
    """A toy arm in a process of its own."""
    return ArmProcess([partial(ToyArm, *arguments)], PRELOADED)


def measured(log, probes_s=(), best_probe_s=None, step_s=0.001, budget_s=0.3, started=ToyArm, **options):
    """A measurement of two toy arms, of which the variant takes twice as long; they are in this process."""
    arms = {
        BASELINE: lambda scratch: started(log, BASELINE, step_s, probes_s, scratch),
        VARIANT: lambda scratch: started(log, VARIANT, 2 * step_s, (), scratch),
    }
    quiet = lambda done, total: None  # noqa: E731
    return Measurement(arms, "train", budget_s, log.parent, "", quiet, best_probe_s=best_probe_s, **options).run()


def test_any_arm_that_answers_the_messages_can_be_measured(tmp_path, monkeypatch):
    for name in ("LAUNCHES", "MAX_LAUNCHES"):
        monkeypatch.setattr(f"profiling.ab.plan.{name}", 6)
    result = measured(tmp_path / "log", started=in_a_process)
    effect = phase_effect("train", result.timings["train"])
    assert (effect.verdict, effect.ratio) == (Verdict.slower, pytest.approx(2.0))
    assert result.difference == result.twin_difference == (0.0, 0.0)
    assert result.stop is None
    requests = (tmp_path / "log").read_text().splitlines()
    counts = {arm: requests.count(f"{arm} start") for arm in (BASELINE, VARIANT)}
    assert counts == {BASELINE: 12, VARIANT: 6}, "the pilot is in the first launch; the twin logs as baseline"


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
    assert result.waited_s > 0.15, "half of the budget, then it goes on"


def test_a_time_limit_holds_whatever_an_arm_does(tmp_path):
    start = time.perf_counter()
    result = measured(tmp_path / "log", step_s=0.5, max_s=0.1)  # not even the first steps are done by then
    assert time.perf_counter() - start < 0.5
    assert isinstance(result.stop, TimeUpError) and result.timings == {}
    assert result.end_note == "The time limit of 100 ms was over before the first launch."


def test_launches_end_early_where_the_machine_became_slow_and_what_was_measured_counts(tmp_path, monkeypatch):
    plan = Plan({arm: dict.fromkeys(STAGES, 1) for arm in ARMS}, rounds=1, launches=100_000, expected_s=0.1)
    monkeypatch.setattr(measure, "plan_measurement", lambda *_: plan)
    monkeypatch.setattr(measure, "PAUSE_S", 0.0)
    result = measured(tmp_path / "log", step_s=0.0, max_s=1.0)
    assert result.stop is None and 6 <= result.launches < 100_000
    assert result.timings["train"].means_s_per_sample == [[0.0] * result.launches] * 3
    assert result.end_note == f"The time limit of 1 s ended it after {result.launches} of 100000 launches."
    assert "variant finish" in (tmp_path / "log").read_text(), "its window is traced"


def test_a_baseline_that_is_lost_after_all_launches_takes_nothing_with_it(tmp_path, monkeypatch):
    for name in ("LAUNCHES", "MAX_LAUNCHES"):
        monkeypatch.setattr(f"profiling.ab.plan.{name}", 6)
    result = measured(tmp_path / "log", started=LostArm)
    assert result.stop is None and len(result.timings["train"].variant_s_per_sample) >= 6
    assert result.arms[VARIANT].output is None
    assert result.end_note == (
        "The baseline stopped after 6 of 6 launches, which count: the process was ended by SIGKILL."
    )


@pytest.mark.parametrize(("answer", "launches"), [("that is enough", 6), (None, 1000)])
def test_after_six_launches_what_is_settled_ends_and_is_traced(answer, launches, tmp_path, monkeypatch):
    plan = Plan({arm: dict.fromkeys(STAGES, 1) for arm in ARMS}, rounds=1, launches=1000, expected_s=0.1)
    monkeypatch.setattr(measure, "plan_measurement", lambda *_: plan)
    monkeypatch.setattr(measure, "PAUSE_S", 0.0)
    told = []
    result = measured(tmp_path / "log", step_s=1e-6, settled=lambda timings: told.append(timings) or answer)
    assert [len(timings.variant_s_per_sample) for timings in told] == [6], "one look"
    assert result.launches == launches and result.stop is None
    assert result.end_note == ("It ended after 6 of 1000 launches: that is enough." if answer else None)
    assert "variant finish" in (tmp_path / "log").read_text()


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
