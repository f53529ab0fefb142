"""Jobs of a multirun in processes of their own: each has its cores to itself, and one that is lost hides no other."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from types import SimpleNamespace

import psutil
import pytest
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from omegaconf import OmegaConf

from profiling.vocabulary import COMPARISON_FILE
from tests.conftest import ROOT, TINY
from train.ab.ladder import missing
from train.config import cli, folders, messages
from train.ranks.cores import own_cores
from train.ranks.jobs import JobsElsewhere, ReportedJob


class Submitted:
    """A job of submitit that printed something, and left `done` or raised it."""

    job_id = "7"

    def __init__(self, done, folder):
        self.done, self.paths = done, SimpleNamespace(folder=folder, stderr=folder / "7_log.err")

    def wait(self):
        pass

    def stdout(self):
        return "submitit INFO (now) - Starting\na table\n"

    def results(self):
        if isinstance(self.done, Exception):
            raise self.done
        return [self.done]


@pytest.fixture
def told(monkeypatch):
    """What jobs have told, and the jobs that were noted; both are those of the process, and restored."""
    monkeypatch.setattr(cli, "failures", [])
    monkeypatch.setattr(folders, "jobs", [])
    return cli.failures


def result(folder, errors):
    hydra = OmegaConf.create({"hydra": {"runtime": {"output_dir": str(folder)}}})
    return JobReturn(hydra_cfg=hydra, status=JobStatus.COMPLETED, _return_value=errors)


def test_a_job_that_was_killed_is_told_and_the_others_have_their_results(told, tmp_path, capsys):
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / COMPARISON_FILE).touch()
    lost = RuntimeError("Job 7 (task: 0) with path /x\nhas not produced any output (state: FINISHED)")
    jobs = [Submitted(lost, tmp_path), Submitted(result(whole, []), tmp_path)]
    for job, name in zip(jobs, ("lost", "kept"), strict=True):
        (done,) = ReportedJob(job, [f"+experiment={name}", "seed=1"], jobs).results()
        assert done.return_value is None, "Hydra goes on"
    assert told == [
        f"job 7 (+experiment=lost seed=1): killed, or lost with its machine; what it printed: {tmp_path}/7_log.err"
    ]
    assert missing(folders.jobs) == ["+experiment=lost"]
    assert capsys.readouterr().out == "a table\na table\n"


def test_an_error_that_a_job_told_elsewhere_is_told_here(told, tmp_path):
    job = Submitted(result(tmp_path, ["seed=-1: out of range"]), tmp_path)
    ReportedJob(job, ["seed=-1"], [job]).results()
    assert told == ["job 7 (seed=-1): seed=-1: out of range"]


def test_a_launcher_that_lets_jobs_share_cores_is_refused(capsys):
    launcher = {"_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"}
    runtime = {"choices": {"hydra/launcher": "joblib"}}
    with pytest.raises(SystemExit):
        JobsElsewhere().on_multirun_start(OmegaConf.create({"hydra": {"launcher": launcher, "runtime": runtime}}))
    assert re.fullmatch("error: hydra/launcher=joblib: its jobs share cores, .*\n", capsys.readouterr().err)


@pytest.mark.skipif(importlib.util.find_spec("submitit") is not None, reason="the plugin is there")
@pytest.mark.parametrize("launcher", ["submitit_local", "slurm"])
def test_without_its_plugin_a_launcher_says_what_to_install(launcher):
    with pytest.raises(MissingConfigException) as error, initialize_config_module("configs", version_base="1.3"):
        compose("config", [f"hydra/launcher={launcher}"], return_hydra_config=True)
    assert str(messages.explain(error.value)).endswith("a plugin of Hydra's: pip install 'abtrace[cluster]'")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="a system that does not tell which cores are usable")
def test_a_job_waits_for_another_that_has_one_of_its_cores(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(HydraConfig, "get", lambda: SimpleNamespace(mode=RunMode.MULTIRUN))
    entered = threading.Event()

    def job():
        with own_cores() as cores:
            assert cores == sorted(os.sched_getaffinity(0))
            entered.set()

    with own_cores() as cores:
        second = threading.Thread(target=job)
        second.start()
        assert cores
        assert not entered.wait(0.1)
    assert entered.wait(10)
    second.join()
    monkeypatch.setattr(HydraConfig, "get", lambda: SimpleNamespace(mode=RunMode.RUN))
    with own_cores() as cores:
        assert cores == []


@pytest.mark.slow
def test_a_ladder_of_submitit_names_the_job_that_was_killed(tmp_path):
    pytest.importorskip("submitit", reason="needs the extra `cluster`")
    experiments = "+experiment=tf32_off,nograd_off,cudnn_benchmark_off"
    arguments = [experiments, "hydra/launcher=submitit_local", "ab.budget_s=60", f"output={tmp_path}", *TINY]
    run = subprocess.Popen(
        [sys.executable, "-m", "train.ab", "-m", *arguments, "model.width=4", "threads=1"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    started = tmp_path.glob("ab/ladder/*/nograd_off*/.hydra/hydra.yaml")
    deadline = time.monotonic() + 120
    while not (folder := next(started, None)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
        started = tmp_path.glob("ab/ladder/*/nograd_off*/.hydra/hydra.yaml")
    job = OmegaConf.load(folder).hydra.job.id
    (task,) = psutil.Process(int(job)).children()
    os.kill(task.pid, signal.SIGKILL)
    out, error = run.communicate(timeout=240)
    assert run.returncode == 1
    assert re.search(rf"error: job {job} \(\+experiment=nograd_off .*\): killed, or lost with its machine", error)
    assert "missing, as these left no comparison: +experiment=nograd_off" in " ".join(out.split())
    (report,) = tmp_path.glob("ab/ladder/*/report.html")
    assert "Missing, as these left no comparison: +experiment=nograd_off" in report.read_text()
