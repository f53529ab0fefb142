"""A run that is ended at any step goes on from its last saved state, to the same weights and curves."""

import json
import multiprocessing
import random
import re
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from profiling import run_record
from profiling.errors import UserError
from profiling.step_sample import StepSample
from tests.fuzz.checkpoints import RAN, Code
from train import checkpoint, loop
from train.ranks.command import command_of
from train.ranks.scratch import only_writer
from train.ranks.state import FOLDER, files
from train.run import train

SETUP = (
    "data=synthetic", "data.train_samples=70", "data.test_samples=20", "data.channels=1", "data.image_size=8",
    "batch_size=16", "epochs=4", "model=mlp", "model.width=4", "model.dropout=0.5", "profiler=off", "precision=fp32",
    "threads=1",
)  # fmt: skip
STEPS = 4 * 5
WARM_UP_STEPS = 2


class Killed(BaseException):
    """Ends a run where it stands."""


@pytest.fixture
def ended(configure, monkeypatch):
    """A function that runs in a folder, and ends the run after so many steps."""

    def run(steps, folder, *overrides):
        done, real = 0, loop.train_step

        def step(*arguments):
            nonlocal done
            real(*arguments)
            done += 1
            if done == WARM_UP_STEPS + steps:
                raise Killed

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(loop, "train_step", step)
            train(configure(*SETUP, *overrides), {}, folder)

    return run


def curve_steps(folder):
    """Tag -> steps of its points in all event files, in order."""
    steps = {}
    for file in sorted(folder.glob("events.*"), key=lambda file: file.stat().st_mtime):
        accumulator = EventAccumulator(str(file), size_guidance={"scalars": 0})
        accumulator.Reload()
        for tag in accumulator.Tags()["scalars"]:
            steps.setdefault(tag, []).extend(event.step for event in accumulator.Scalars(tag))
    return {tag: numbers for tag, numbers in steps.items() if not tag.startswith(("result", "memory"))}


def weights(folder):
    return checkpoint.load(folder / checkpoint.FILE_NAME).weights


@pytest.mark.parametrize(
    ("steps", "overrides"),
    [
        (8, ("loader.source=dataloader",)),
        (15, ("optimizer=sgd", "micro_batches=2")),
        pytest.param(12, ("loader.workers=2",), marks=pytest.mark.slow),
        *[pytest.param(random.Random(n).randrange(3, STEPS), (), marks=pytest.mark.slow) for n in range(20)],
    ],
)
def test_a_run_goes_on_to_the_same_bits_and_curves(steps, overrides, ended, configure, tmp_path):
    every = ("checkpoint_every=3", *overrides)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(configure(*SETUP, *every), {}, whole)
    ended(steps, cut, *every)
    assert run_record.read(cut).status == "interrupted"
    train(configure(*SETUP, *every, f"resume={cut}"), {}, cut)
    expected, found = weights(whole), weights(cut)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    assert not (cut / FOLDER).exists()  # complete: there is nothing to go on from
    one, other = curve_steps(whole), curve_steps(cut)
    assert one.keys() == other.keys()
    for tag, numbers in one.items():
        if tag.startswith("time_ms/train"):  # the step after which the state was saved is not yet among the timed ones
            numbers = numbers[: len(other[tag])]
            assert len(numbers) == STEPS - 1
        assert other[tag] == numbers, tag


def test_a_damaged_newest_state_is_told_and_the_one_before_is_used(ended, configure, tmp_path, caplog):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(configure(*SETUP, "checkpoint_every=3"), {}, whole)
    ended(13, cut, "checkpoint_every=3")
    newest, before = files(cut)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    newest.write_bytes(content)
    with caplog.at_level("INFO"):
        train(configure(*SETUP, "checkpoint_every=3", f"resume={cut}"), {}, cut)
    assert f"{newest.name}: damaged" in caplog.text
    assert "the one before is used" in caplog.text
    assert before.stem == "epoch-000001-step-000000004"
    assert "epoch 2, after 4 steps" in caplog.text
    expected, found = weights(whole), weights(cut)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": Code()}, "not a state of training: it holds more than tensors and plain values, and reading"),
        ({"epoch": -1}, "not a state of training: Expected `int` >= 0 - at `$.epoch`"),
        ({"epoch": 9}, "not a state of this run: in epoch 10"),
        ({"data": {"train": torch.zeros(2)}}, "not a state of training: Expected `int | array`"),
        ({"data": {"train": 71}}, "the data set has changed since the run began: train was 71, and is 70 now"),
        ({"optimizer": {"state": {}, "param_groups": []}}, f"{FOLDER}/: not a state of this run: "),
    ],
    ids=["code", "negative", "late", "facts", "data", "optimizer"],
)
def test_a_state_that_is_none_of_this_run_is_one_line_and_no_code(
    change, message, ended, configure, tmp_path, caplog, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    ended(4, tmp_path, "checkpoint_every=3")
    (file,) = files(tmp_path)
    torch.save({**torch.load(file, weights_only=True), **change}, file)
    with caplog.at_level("INFO"), pytest.raises(UserError) as told:
        train(configure(*SETUP, "checkpoint_every=3", f"resume={tmp_path}"), {}, tmp_path)
    assert message in f"{caplog.text}{told.value}"
    assert not (tmp_path / RAN).exists()


def test_another_configuration_than_that_of_the_run_is_refused_and_the_run_stays_as_it_was(ended, configure, tmp_path):
    ended(7, tmp_path / "run", "checkpoint_every=3")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(UserError, match=r"optimizer.lr was .* when the run began, and is 0.5 now"):
        train(
            configure(*SETUP, "checkpoint_every=3", f"resume={tmp_path}/run", "optimizer.lr=0.5"), {}, tmp_path / "run"
        )
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_a_run_that_has_not_ended_is_left_alone(ended, configure, tmp_path):
    ended(7, tmp_path, "checkpoint_every=3")
    again = configure(*SETUP, "checkpoint_every=3", f"resume={tmp_path}")
    with only_writer(tmp_path), pytest.raises(UserError, match="another process is writing this run"):
        train(again, {}, tmp_path)
    train(again, {}, tmp_path)
    assert run_record.read(tmp_path).status == "complete"


def test_a_process_that_a_run_has_forked_does_not_keep_its_folder(tmp_path):
    with only_writer(tmp_path):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
    try:
        end_s = time.monotonic() + 30
        while time.monotonic() < end_s:  # it has just been forked
            with suppress(UserError), only_writer(tmp_path):
                return
        raise AssertionError("the child still has it")
    finally:
        child.kill()
        child.join()


def test_the_state_that_was_just_saved_is_kept_beside_damaged_ones_of_later_steps(ended, configure, tmp_path):
    ended(13, tmp_path, "checkpoint_every=3")
    for step in (90, 91):
        (tmp_path / FOLDER / f"epoch-000009-step-{step:09}.pt").write_bytes(b"damaged")
    ended(5, tmp_path, "checkpoint_every=3", f"resume={tmp_path}")
    kept = [file.name for file in files(tmp_path)]
    assert kept == ["epoch-000009-step-000000091.pt", "epoch-000002-step-000000005.pt"]


def test_by_seconds_a_state_is_saved_when_it_is_time(configure, monkeypatch, tmp_path):
    """The clock goes 1 s at each look; after each save the next one is 4 s away, at the earliest."""
    seconds = iter(range(10_000))
    saved = []
    monkeypatch.setattr("train.ranks.progress.time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    monkeypatch.setattr("train.ranks.state.save", lambda state, folder: saved.append((state.epoch, state.step)))
    train(configure(*SETUP, "checkpoint_every=4s"), {}, tmp_path)
    assert 2 <= len(saved) <= STEPS / 2
    saved.clear()
    train(configure(*SETUP, "checkpoint_every=null"), {}, tmp_path)
    assert saved == []


def test_the_command_line_of_the_run_is_used_again(tmp_path):
    run = tmp_path / "runs" / "baseline" / "2026-01-01"
    (run / FOLDER).mkdir(parents=True)
    (run / ".hydra").mkdir()
    (run / ".hydra" / "overrides.yaml").write_text("- epochs=3\n- model=mlp\n")
    (run / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {config_sources: []}}\n")
    (run / FOLDER / "epoch-000000-step-000000003.pt").touch()
    expected = ["epochs=3", "model=mlp", f"resume='{run}'", f"hydra.run.dir='{run}'", "hydra.output_subdir=null"]
    assert command_of([f"resume={run}"]) == expected
    assert command_of(["resume=latest", f"output={tmp_path}/runs"]) == expected
    assert command_of([f"+resume={run}"]) == expected
    assert command_of(["epochs=3"]) == ["epochs=3"]
    own = {"config_sources": [{"path": "/own", "schema": "file", "provider": "command-line"}]}
    (run / ".hydra" / "hydra.yaml").write_text(json.dumps({"hydra": {"runtime": own}}))
    assert command_of([f"resume={run}"]) == ["--config-dir=/own", *expected]
    assert command_of([f"resume={run}", "--config-dir", "/other"]) == ["--config-dir", "/other", *expected]
    for damaged in (b"", b"- 1: 2", b"\x80"):
        (run / ".hydra" / "overrides.yaml").write_bytes(damaged)
        with pytest.raises(UserError, match=r"overrides\.yaml: damaged; it says how the run was started$"):
            command_of([f"resume={run}"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resume=latest", "output=nowhere"], "resume=latest: no run with a state to go on from at nowhere"),
        (["-m", "resume=runs"], "resume=runs: one run goes on; leave out --multirun"),
        (["resume=runs", "epochs=3"], "epochs=3: not beside resume=runs, which has the run's configuration; leave it"),
    ],
)
def test_what_cannot_go_on_is_one_line(arguments, message):
    with pytest.raises(UserError, match=re.escape(message)):
        command_of(arguments)


def test_only_training_goes_on():
    with pytest.raises(UserError, match=re.escape("resume=latest: python -m train goes on with a run")):
        command_of(["resume=latest", "+experiment=nograd_off"], "ab")


def test_a_restored_sample_goes_on_as_the_one_that_was_saved():
    sample = StepSample(max_steps=8)
    for step in range(100):
        sample.add(4, step * 0.1, {"forward": step * 0.05})
    other = StepSample(max_steps=8)
    other.restore(sample.state())
    for step in range(100, 200):
        for each in (sample, other):
            each.add(4, step * 0.1, {"forward": step * 0.05})
    assert other.timings() == sample.timings()
