"""A run that is asked to end saves its state after the step in progress, and goes on to the same bits."""

import gc
import os
import signal
import tempfile
import time
import weakref

import pytest
import torch
from torch.distributed import HashStore  # type: ignore[attr-defined]

from profiling import run_record
from profiling.errors import Terminated
from profiling.terminal.early_signals import ENDING, exit_status
from tests.conftest import TINY_DATA, composed
from tests.train.ranks.test_resume import SETUP, curve_steps, weights
from train import loop, session
from train.config.compose import to_config
from train.config.messages import explain
from train.events import EventFile
from train.ranks import stop
from train.ranks.launch import Launch
from train.ranks.progress import Progress
from train.ranks.scratch import PREFIX, scratch_folder
from train.ranks.state import FOLDER, files, load
from train.ranks.store import Board
from train.run import train

FIRST = 2  # calls of warm-up: train_step with each size of a batch; predict in evaluation and in inference


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train(to_config(composed(*SETUP)), {}, folder)
    return folder


@pytest.fixture
def asked(configure, monkeypatch):
    """A function that runs in a folder, and sends signals to this process within a call of a function of the loop."""
    # Where tests run in the background or by nohup, signals are ignored, and so would they be here.
    before = {number: signal.signal(number, signal.default_int_handler) for number in ENDING}

    def run(name, call, folder, *overrides, signals=(signal.SIGTERM,), sleep_s=0.0):
        done, real = 0, getattr(loop, name)

        def noted(*arguments):
            nonlocal done
            done += 1
            if done == FIRST + call:
                for number in signals:
                    os.kill(os.getpid(), number)
                time.sleep(sleep_s)
            return real(*arguments)

        with monkeypatch.context() as patch, pytest.raises((Terminated, KeyboardInterrupt)) as stopped:
            patch.setattr(loop, name, noted)
            train(configure(*SETUP, *overrides), {}, folder)
        assert exit_status(stopped.value) == 128 + signals[0]

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("name", "call", "signals", "place"),
    [
        ("train_step", 9, (signal.SIGTERM,), (1, 4)),
        ("train_step", 6, (signal.SIGINT, signal.SIGINT), (1, 1)),  # torchrun repeats a Ctrl-C
        ("predict", 2, (signal.SIGHUP,), (1, 5)),  # in the evaluation after the second epoch
        ("predict", 6, (signal.SIGTERM,), (3, 5)),  # in inference
    ],
)
def test_the_state_after_the_step_in_progress_is_saved(name, call, signals, place, asked, whole, configure, tmp_path):
    cut = tmp_path / "cut"
    asked(name, call, cut, signals=signals)
    assert run_record.read(cut).status == "interrupted"
    saved = load(files(cut)[0])
    assert (saved.epoch, saved.step) == place
    train(configure(*SETUP, f"resume={cut}"), {}, cut)
    expected, found = weights(whole), weights(cut)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    one, other = curve_steps(whole), curve_steps(cut)
    assert [tag for tag in one if not tag.startswith("time_ms") and one[tag] != other[tag]] == []


def test_where_states_are_never_saved_none_is_saved_at_the_end(asked, tmp_path):
    asked("train_step", 9, tmp_path, "checkpoint_every=null")
    assert not (tmp_path / FOLDER).exists()


def test_a_step_that_does_not_end_is_given_up(asked, monkeypatch, tmp_path):
    monkeypatch.setattr(stop, "PATIENCE_S", 0.05)
    asked("train_step", 9, tmp_path, "checkpoint_every=3", sleep_s=60)
    assert [file.stem for file in files(tmp_path)] == ["epoch-000001-step-000000001", "epoch-000000-step-000000003"]


def test_what_a_killed_process_left_in_tmpdir_is_removed_and_nothing_else(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, other = tmp_path / f"{PREFIX}left", tmp_path / "other"
    left.mkdir()
    (left / "events").touch()
    other.mkdir()
    with scratch_folder() as first, scratch_folder() as second:
        assert {path.name for path in tmp_path.iterdir()} == {first.name, second.name, "other"}
    assert [*tmp_path.iterdir()] == [other]


def test_ranks_that_are_asked_at_different_steps_end_after_the_same_one(monkeypatch):
    shared = HashStore()
    monkeypatch.setattr("train.ranks.store.open_store", lambda launch, timeout_s: shared)
    first, second = (Board(Launch(rank, 2, rank, 2, 0, "", 0), 1.0) for rank in range(2))
    assert not first.all_end_after(5)
    assert not first.all_end_after(6)  # it is one step ahead, at most
    assert not second.all_end_after(6)
    assert first.all_end_after(7)
    assert second.all_end_after(7)


@pytest.mark.parametrize(
    "error",
    [ConnectionResetError(104, "Connection reset by peer"), RuntimeError("DataLoader worker (pid 7) is killed")],
)
def test_a_killed_loader_worker_is_told_as_such(error):
    assert (explain(error) or "").startswith("a loader worker was killed, perhaps since memory ran out")


def test_a_run_is_freed_with_its_last_user(configure, tmp_path):
    """Else the workers of its loaders live on until a garbage collection."""
    parts = session.prepare(configure(*TINY_DATA, "model.width=4"))
    with EventFile(tmp_path) as events:
        gc.disable()
        try:
            freed = weakref.ref(Progress(parts, {}, events, tmp_path, None))
            assert freed() is None
        finally:
            gc.enable()
