"""train.ab: what it writes, what it refuses, and what becomes of arms that fail."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from profiling import run_record
from profiling.ab import measure, process
from profiling.ab.comparison import CLOSE_ATOL, CLOSE_RTOL
from profiling.ab.measure import Measurement, VariantError
from profiling.ab.messages import Answer
from profiling.ab.plan import Plan
from profiling.ab.process import ArmProcess
from profiling.ab.results import difference
from profiling.errors import UserError
from profiling.verdict.judge import judge_comparison
from profiling.verdict.numerics import check_numerics
from profiling.verdict.record import ComparisonRecord, read_comparison, write_comparison
from profiling.vocabulary import ARMS, BASELINE, STAGES, VARIANT, Agreement, Outcome, Verdict
from tests.conftest import ROOT, TINY, TINY_DATA, composed
from tests.train.ab.arms import distance
from train.ab import gate
from train.ab.arm import ArmWorker, fastest_steps
from train.ab.arm_config import PRELOADED, ArmConfig
from train.ab.experiment import best_probe_s, judge, one_change
from train.config.compose import to_config

SMALL = (*TINY, "model.width=4")
FAILING = (*TINY_DATA, "profiler=off", "model=custom", "model._target_=tests.train.ab.arms.Failing")
WORKING = "+model.params={width: 8}"


@pytest.fixture(scope="module")
def nograd_off(tmp_path_factory) -> Path:
    """The folder of one real comparison, made from the command line."""
    output = tmp_path_factory.mktemp("runs")
    arguments = ["+experiment=nograd_off", "ab.budget_s=1", f"output={output}", *SMALL]
    run = subprocess.run(
        [sys.executable, "-m", "train.ab", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    told = [line for line in run.stderr.splitlines() if not line.startswith("warning: other processes")]
    assert re.match(r"nograd_off: \d+ launches of 3 processes, rounds in each: \d+; about .*, at most", told[0])
    assert re.match(r"nograd_off: launch 1 of \d+ done, \d+ s so far", told[1]), "a line for each"
    assert "evaluation with autograd on" in run.stdout and "results: identical" in run.stdout
    (folder,) = output.glob("ab/nograd_off*/*")
    return folder


def measurement(folder, variant=(WORKING,), baseline=(WORKING,), progress=lambda done, total: None) -> Measurement:
    configs = {BASELINE: to_config(composed(*FAILING, *baseline)), VARIANT: to_config(composed(*FAILING, *variant))}
    arms = {name: ArmConfig(config, {}).start for name, config in configs.items()}
    return Measurement(arms, "train", 0.5, folder, "", progress)


def arm_process(config, folder) -> ArmProcess:
    return ArmConfig(config, {}).start(folder)


def descendants() -> list[psutil.Process]:
    """Arms of this process: children of its fork server."""
    children = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    servers = [child for child in children if any("forkserver" in part for part in child.cmdline())]
    return [arm for server in servers for arm in server.children()]


# --- a comparison -----------------------------------------------------------------------------------------------------


def test_a_comparison_can_be_computed_again_from_its_own_samples(nograd_off):
    left = read_comparison(nograd_off)
    judged = left.comparison
    again = judge_comparison(judged.experiment, judged.hypothesis, left.timings, judged.memory, judged.numerics)
    assert again == judged
    assert {"train", "evaluate", "infer", "load", "forward", "backward", "optimizer"} <= set(left.timings)
    assert not left.partial
    assert left.changed == {"switches.eval_context": ("inference_mode", "grad")}
    assert judged.numerics.measured is Agreement.identical
    assert judged.memory.variant_bytes > judged.memory.baseline_bytes


def test_both_arms_leave_records_traces_and_event_files(nograd_off):
    left = read_comparison(nograd_off)
    for name in ("baseline", "variant"):
        arm = run_record.read(nograd_off / name)
        assert arm.status == "complete"
        assert set(arm.stages) == set(left.arms[name].traces) == {"train", "evaluate", "infer"}
        assert all((nograd_off / path).is_file() for path in left.arms[name].traces.values())
        assert list((nograd_off / name).glob("events.out.tfevents.*"))
        assert set(left.arms[name].allocated_bytes_per_sample) == set(arm.stages)
    assert run_record.read(nograd_off / "variant").changed["switches.eval_context"] == ("inference_mode", "grad")
    assert (nograd_off / "report.html").stat().st_size > 0


def test_answers_of_the_same_seed_are_identical_or_differ_with_the_batch(configure, tmp_path):
    answers = {}
    for name in ("nograd_off", "batch_size_small", "baseline"):
        with arm_process(configure(f"+experiment={name}", *SMALL), tmp_path) as arm:
            answers[name] = arm.answer()
    same, other = (difference(answers["baseline"], answers[name]) for name in ("nograd_off", "batch_size_small"))
    assert same == (0.0, 0.0)
    assert other[0] < 1, "batch norm's counters of steps are no weights"
    assert check_numerics(Agreement.close, *other, CLOSE_RTOL, CLOSE_ATOL).mismatch


def test_an_answer_that_is_not_a_number_counts_as_the_largest_difference():
    good = Answer({"w": np.ones(2)}, {"loss": 1.0})
    bad = Answer({"w": np.array([1.0, np.nan])}, {"loss": 1.0})
    assert difference(good, bad) == (np.finfo(float).max, np.finfo(float).max)


@pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="processes are spawned here")
def test_no_two_arms_lay_out_memory_alike():
    context = multiprocessing.get_context("forkserver")
    distances = set()
    for _ in range(4):
        ours, theirs = context.Pipe()
        child = context.Process(target=distance, args=(theirs,))
        child.start()
        distances.add(ours.recv())
        child.join()
    assert len(distances) == 4, "children of a fork server are alike unless they take care"


def test_a_block_is_timed_by_its_fastest_step_or_by_one_for_each_worker():
    steps = run_record.StepTimings(samples=[4, 4, 2, 4, 4], step_s=[9, 3, 1, 1, 4], phase_s={"load": [5, 4, 3, 2, 1]})
    assert fastest_steps(steps, 1) == run_record.StepTimings(samples=[4], step_s=[1], phase_s={"load": [2]})
    assert fastest_steps(steps, 2) == run_record.StepTimings(samples=[2, 4], step_s=[1, 1], phase_s={"load": [3, 2]})


@pytest.mark.slow
def test_an_arm_whose_loader_has_workers_times_a_step_for_each(tmp_path):
    working = ArmWorker(to_config(composed("loader.workers=2", *SMALL)), {}, tmp_path)
    working.block(dict.fromkeys(STAGES, 1))
    working.finish(tmp_path / "arm", "", {})
    stages = run_record.read(tmp_path / "arm").stages
    assert {stage: len(shown.timed.samples) for stage, shown in stages.items()} == dict.fromkeys(STAGES, 2)
    workers = psutil.Process().children(recursive=True)
    assert len(workers) >= 2 * len(STAGES)
    del working
    ended = [worker for worker in workers if not worker.is_running()]
    assert len(ended) == 2 * len(STAGES), "they end with their arm, not with the next garbage collection"


def test_an_arm_that_logs_times_no_step_while_the_queue_has_room_and_leaves_it_empty(tmp_path, monkeypatch):
    write = RecordWriter.write

    def slowly(writer, data):
        time.sleep(0.01)
        write(writer, data)

    monkeypatch.setattr(RecordWriter, "write", slowly)  # stands in for a slow disk
    logging = ArmWorker(to_config(composed("+experiment=logging_heavy", *SMALL)), {}, tmp_path)
    logging.block({"train": 2})
    events = EventAccumulator(str(tmp_path), size_guidance={"histograms": 0}).Reload()
    written = {event.step for event in events.Histograms(events.Tags()["histograms"][-1])}
    assert written == {1, 2, 3}, "of which two are timed"


@pytest.mark.skipif(multiprocessing.get_all_start_methods()[0] != "fork", reason="Python forks no workers here")
def test_workers_of_an_arm_are_forked_as_those_of_a_run(configure, tmp_path):
    with arm_process(configure("loader.workers=2", *SMALL), tmp_path):
        (arm,) = descendants()
        assert len(arm.children()) == 2 * len(STAGES), "and no fork server, which takes 5 s to start"
    assert descendants() == []


@pytest.mark.slow
@pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="processes are spawned here")
def test_arms_find_loaded_what_the_fork_server_is_to_preload(command):
    """The fork server itself says nothing of modules that it cannot import."""
    assert command("tests.train.ab.preloaded").stdout.split() == list(PRELOADED)


@pytest.mark.slow
def test_an_arm_starts_where_processes_are_spawned(configure, tmp_path, monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    with arm_process(configure("model=mlp", *TINY), tmp_path) as arm:
        assert arm.block(dict.fromkeys(STAGES, 1)).s_per_sample["train"] > 0


# --- one change at a time ---------------------------------------------------------------------------------------------


def test_more_than_one_change_is_refused_with_the_list(command, tmp_path):
    result = command("train.ab", "+experiment=[nograd_off,zero_grad_fill]", f"output={tmp_path}")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "2 lines differ" in result.stderr
    assert "switches.eval_context (inference_mode -> grad)" in result.stderr
    assert "switches.zero_grad (set_to_none -> fill)" in result.stderr


def test_many_changes_are_measured_where_that_is_asked_for(configure):
    many = configure("+experiment=[nograd_off,zero_grad_fill]", "ab.allow_many=true")
    assert len(one_change(configure(), many)) == 2


def test_an_experiment_that_both_arms_have_is_refused(configure):
    with pytest.raises(UserError, match="nograd_off: both arms are the same"):
        one_change(configure("switches.eval_context=grad"), configure("+experiment=nograd_off"))
    assert one_change(configure(), configure("+experiment=baseline")) == {}


# --- arms that do not come to their end -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_ladder_reports_what_failed_as_predicted_and_what_does_not_apply(command, tmp_path):
    result = command("train.ab", "-m", "+experiment=requires_grad_off,tf32_off", f"output={tmp_path}", *SMALL)
    assert result.returncode == 0, result.stderr
    (folder,) = tmp_path.glob("ab/ladder/*")
    failed, missing = (read_comparison(next(folder.glob(f"{name}*"))) for name in ("requires_grad_off", "tf32_off"))
    assert failed.comparison.verdict is Verdict.failed_as_predicted
    assert failed.comparison.outcome is Outcome.confirmed
    assert "no parameter requires grad" in failed.comparison.reason
    assert missing.comparison.verdict is Verdict.not_applicable
    assert "needs a CUDA device" in missing.comparison.reason
    assert (folder / "report.html").is_file()
    assert "1 confirmed, 1 not applicable here; " in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("crash", "RuntimeError: the wheels came off"),
        ("exhaust", r"RuntimeError: .*(alloc|memory)"),
        ("die", "the process was ended by SIGKILL; the kernel does that if memory runs out"),
        ("hang", "no answer within 5 s"),
    ],
)
def test_an_arm_that_fails_gives_a_verdict_and_leaves_no_process(how, reason, tmp_path, monkeypatch):
    if how == "hang":
        monkeypatch.setattr(process, "REPLY_TIMEOUT_S", 5.0)
        monkeypatch.setattr(process, "GRACE_S", 0.5)
    measured = measurement(tmp_path, (f"+model.params={{width: 8, how: {how}}}",)).run()
    assert isinstance(measured.stop, VariantError)
    judged = judge(to_config(composed("+experiment=nograd_off")), measured)
    assert judged.verdict is Verdict.failed
    assert re.search(reason, judged.reason)
    assert descendants() == []


def test_a_baseline_that_fails_is_a_mistake_and_no_verdict(tmp_path):
    crash = ("+model.params={width: 8, how: crash}",)
    with pytest.raises(UserError, match=r"the baseline stopped, .*: RuntimeError: the wheels came off"):
        measurement(tmp_path, variant=crash, baseline=crash).run()
    assert descendants() == []


def test_a_ladder_knows_the_best_probe_of_its_earlier_comparisons(nograd_off):
    earlier = read_comparison(nograd_off)
    assert best_probe_s([earlier]) == min(earlier.timings["train"].probe_s)
    elsewhere = msgspec.structs.replace(earlier, environment=msgspec.structs.replace(earlier.environment, host="far"))
    assert best_probe_s([elsewhere]) is best_probe_s([]) is None, "another machine says nothing of this one"


@pytest.mark.slow
@pytest.mark.parametrize(("launches", "kept"), [(3, 0), (8, 7)])
def test_an_interrupt_keeps_whole_launches(launches, kept, tmp_path, monkeypatch):
    plan = Plan({arm: dict.fromkeys(STAGES, 1) for arm in ARMS}, rounds=2, launches=launches, expected_s=60.0)
    monkeypatch.setattr(measure, "plan_measurement", lambda *_: plan)

    def interrupt(done: int, total: int) -> None:
        if done == total - 1:
            os.kill(os.getpid(), signal.SIGINT)

    measured = measurement(tmp_path, progress=interrupt).run()
    assert isinstance(measured.stop, KeyboardInterrupt)
    assert [len(s.twin_s_per_sample) for s in measured.timings.values()] == [2 * kept] * len(measured.timings)
    judged = judge(to_config(composed("+experiment=baseline")), measured)
    assert bool(judged.phases) == bool(kept)
    assert kept or (judged.verdict, judged.outcome) == (Verdict.inconclusive, Outcome.undecided)
    assert descendants() == []


def started(output: Path, *experiments: str) -> subprocess.Popen[bytes]:
    """A long comparison whose arms are at work, or a multirun whose last comparison is."""
    arguments = [*(experiments or ["+experiment=baseline"]), "ab.budget_s=60", f"output={output}", *SMALL]
    run = subprocess.Popen(
        [sys.executable, "-m", "train.ab", *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while sum(child.num_threads() > 3 for child in psutil.Process(run.pid).children(recursive=True)) < 3:
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.2)
    return run


@pytest.mark.slow
def test_ctrl_c_leaves_a_partial_record(tmp_path):
    run = started(tmp_path)
    arms = psutil.Process(run.pid).children(recursive=True)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the arms, too
    _, error = run.communicate(timeout=60)
    assert run.returncode == 130
    assert error.splitlines()[-1].startswith(b"interrupted; what was written is whole: ")
    (folder,) = tmp_path.glob("ab/baseline*/*")
    assert read_comparison(folder).partial
    assert psutil.wait_procs(arms, timeout=20)[1] == []


@pytest.mark.slow
def test_an_interrupted_ladder_is_written_from_what_its_jobs_left(tmp_path):
    run = started(tmp_path, "-m", "+experiment=requires_grad_off,tf32_off,baseline")
    os.killpg(run.pid, signal.SIGINT)
    run.communicate(timeout=60)
    assert run.returncode == 130
    (report,) = tmp_path.glob("ab/ladder/*/report.html")
    assert all(name in report.read_text() for name in ("requires_grad_off", "tf32_off", "baseline"))


@pytest.mark.slow
def test_arms_end_with_a_parent_that_is_killed(tmp_path):
    run = started(tmp_path)
    arms = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.communicate()
    assert psutil.wait_procs(arms, timeout=20)[1] == []


# --- the gate ---------------------------------------------------------------------------------------------------------


def with_ratio(left: ComparisonRecord, ratio: float) -> ComparisonRecord:
    """The same comparison, had the hypothesis' phase shown this ratio, with a floor of 2 %."""
    phases = tuple(
        msgspec.structs.replace(e, ratio=ratio, ratio_low=ratio / 1.01, ratio_high=ratio * 1.01, floor_ratio=1.02)
        for e in left.comparison.phases
    )
    return msgspec.structs.replace(left, comparison=msgspec.structs.replace(left.comparison, phases=phases))


def test_the_gate_fails_when_the_optimization_is_worth_less_than_recorded(nograd_off):
    left = read_comparison(nograd_off)
    gate.check(with_ratio(left, 1.5), with_ratio(left, 1.5))
    gate.check(with_ratio(left, 1.9), with_ratio(left, 1.5))
    gate.check(with_ratio(left, 1.47), with_ratio(left, 1.5))
    with pytest.raises(UserError, match=r"gate: nograd_off in evaluate: variant / baseline is 1\.400"):
        gate.check(with_ratio(left, 1.4), with_ratio(left, 1.5))


@pytest.mark.slow
def test_the_gate_sets_the_exit_status(nograd_off, command, tmp_path):
    recorded = write_comparison(with_ratio(read_comparison(nograd_off), 1000.0), tmp_path)
    arguments = ("+experiment=nograd_off", "ab.budget_s=1", f"output={tmp_path}", f"ab.gate={recorded}", *SMALL)
    result = command("train.ab", *arguments)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: gate: nograd_off in evaluate: ")


def test_the_gate_wants_a_comparison_of_the_same_experiment(nograd_off):
    left = read_comparison(nograd_off)
    other = msgspec.structs.replace(left, comparison=msgspec.structs.replace(left.comparison, experiment="tf32_off"))
    with pytest.raises(UserError, match="a comparison of tf32_off, not of nograd_off"):
        gate.check(left, other)


def test_a_gate_that_is_no_comparison_gets_one_line(command, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"a": 1}))
    for file, message in (("x.json", "not a comparison"), ("y.json", "No such file")):
        result = command("train.ab", "+experiment=nograd_off", f"output={tmp_path}", f"ab.gate={tmp_path / file}")
        assert result.returncode == 1
        assert message in result.stderr and result.stderr.count("\n") == 1
