"""A run as its user meets it: what it leaves, what TensorBoard reads, and what is left when it is cut off."""

import csv
import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from profiling import run_record
from profiling.format import duration
from profiling.terminal.event_writers import silence_event_writer_threads
from tests.conftest import ROOT, TINY, TINY_DATA
from tests.tab.browser import tensorboard
from train import checkpoint
from train.config import compose
from train.events import EventFile
from train.ranks import state
from train.run import train

DIGITS = ("epochs=2", "model.width=4", "profiler.wait=0", "profiler.active=1")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder and the output of one finished run on the digits."""
    output = tmp_path_factory.mktemp("runs")
    arguments = [sys.executable, "-m", "train", f"output={output}", *DIGITS, "+experiment=nograd_off"]
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    (folder,) = output.glob("nograd_off*/*")
    return folder, result.stdout


def test_the_first_command_of_the_readme_needs_no_arguments_and_learns_the_held_out_digits(tmp_path):
    """`python -m train`, from a folder of the user's."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-m", "train"]
    result = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "error" not in result.stderr
    (folder,) = (tmp_path / "runs" / "baseline").iterdir()
    record = run_record.read(folder)
    assert record.status == "complete"
    assert record.results["accuracy"] > 0.97


def whole(folder: Path) -> dict[str, int]:
    """Read every file below `folder` to its end as its reader does; count them by kind. Raises if one is cut short."""
    kinds = {"trace": 0, "event": 0, "checkpoint": 0, "record": 0, "yaml": 0}
    for file in (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".tmp-")):
        if file.name.endswith(".pt.trace.json.gz"):
            assert json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
            kinds["trace"] += 1
        elif "tfevents" in file.name:
            accumulator = EventAccumulator(str(file))
            accumulator.Reload()  # TensorBoard's reader stops silently at a cut: what it read must be the whole file
            assert event_bytes(file) == file.stat().st_size
            kinds["event"] += 1
        elif file.name == checkpoint.FILE_NAME:
            checkpoint.load(file)
            kinds["checkpoint"] += 1
        elif file.parent.name == state.FOLDER:
            state.load(file)
        elif file.name == run_record.FILE_NAME:
            run_record.read(file.parent)
            kinds["record"] += 1
        elif file.suffix == ".yaml":
            assert yaml.safe_load(file.read_text()) is not None
            kinds["yaml"] += 1
        else:
            raise AssertionError(file)
    return kinds


def event_bytes(file: Path) -> int:
    """Bytes of whole records: 8 of length, 4 of checksum, the record, 4 of checksum (TFRecord)."""
    content, position = file.read_bytes(), 0
    while position + 12 <= len(content):
        end = position + 12 + int.from_bytes(content[position : position + 8], "little") + 4
        if end > len(content):
            break
        position = end
    return position


def test_a_run_leaves_record_events_traces_checkpoint_and_configuration(finished):
    folder, _ = finished
    assert whole(folder) == {"trace": 3, "event": 1, "checkpoint": 1, "record": 1, "yaml": 3}
    left = run_record.read(folder)
    assert left.status == "complete"
    assert left.changed["switches.eval_context"] == ("inference_mode", "grad")
    assert left.changed["epochs"] == (12, 2)
    assert "seed" not in left.changed
    assert left.environment.versions["torch"] == torch.__version__.partition("+")[0]
    steps = left.stages["train"].timed
    assert len(steps.step_s) == len(steps.phase_s["forward"]) == 2 * 12
    assert sum(steps.samples) == 2 * 1438
    assert left.stages["evaluate"].trace.samples == [359]
    assert 0 <= left.results["accuracy"] <= 1


def test_the_end_of_a_run_shows_what_its_record_holds(finished):
    folder, shown = finished
    left = run_record.read(folder)
    assert f"accuracy {left.results['accuracy']:.2%}" in shown
    assert f"training {left.results['train_samples_per_s']:,.0f} samples/s" in shown
    forward_us = np.median(left.stages["train"].timed.phase_s["forward"]) * 1e6
    assert duration(forward_us) in next(line for line in shown.splitlines() if "forward" in line)
    assert f"run:  {folder}" in shown
    assert f"show: tensorboard --logdir {folder.parent.parent}" in shown


def test_tensorboard_reads_scalars_texts_pictures_and_hyperparameters(finished):
    folder, _ = finished
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    left = run_record.read(folder)
    scalars = events.Tags()["scalars"]
    assert {"loss/train", "loss/test", "accuracy/test", "learning_rate", "throughput/train_samples_per_s"} <= set(
        scalars
    )
    assert {"time_ms/train/backward", "memory_mib/evaluate/resident_peak"} <= set(scalars)
    assert events.Scalars("accuracy/test")[-1].value == pytest.approx(left.results["accuracy"])
    backward_ms = [event.value for event in events.Scalars("time_ms/train/backward")]
    assert backward_ms == pytest.approx([s * 1e3 for s in left.stages["train"].timed.phase_s["backward"]])
    assert set(events.Tags()["images"]) == {"confusion_matrix", "predictions"}
    card = events.Tensors("1_hypothesis/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "evaluation with autograd on is slower" in card
    assert b"eval_context: grad" in events.Tensors("2_config/text_summary")[0].tensor_proto.string_val[0]
    assert b"Conv2d" in events.Tensors("3_model/text_summary")[0].tensor_proto.string_val[0]
    metadata = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    columns = plugin_data_pb2.HParamsPluginData.FromString(metadata).session_start_info.hparams
    assert columns["switches.eval_context"].string_value == "grad"
    assert columns["epochs"].number_value == 2
    assert columns["keep_heap"].string_value == "true", "a truth value would be shown as 1.0000"
    assert "switches.eval_context=grad" in columns["_changed"].string_value


def test_tensorboard_lists_the_columns_first_that_differ_between_runs(configure, tmp_path):
    for overrides, changed in (((), {}), (("batch_size=64",), {"batch_size": (128, 64)})):
        with EventFile(tmp_path / "runs" / str(len(changed))) as events:
            events.hyperparameters(configure(*overrides), changed, {"accuracy": 0.9})
    names: list[str] = []
    with tensorboard(tmp_path / "runs", tmp_path / "cache") as url:
        for _ in range(100):
            question = Request(f"{url}data/plugin/hparams/experiment", b"{}", {"Content-Type": "application/json"})
            with urlopen(question) as answer:
                names = [column["name"] for column in json.load(answer).get("hparamInfos", [])]
            if names:
                break
            time.sleep(0.2)
    assert names[:2] == ["_changed", "batch_size"] and "seed" in names


def test_phases_and_steps_are_marked_in_the_traces(finished):
    folder, _ = finished
    left = run_record.read(folder)
    for stage, expected in (
        ("train", {"load", "transfer", "preprocess", "forward", "loss", "backward", "optimizer", "metrics"}),
        ("evaluate", {"evaluate", "load", "transfer", "preprocess", "forward", "metrics"}),
        ("infer", {"infer", "load", "transfer", "preprocess", "forward"}),
    ):
        trace = json.loads(gzip.decompress((folder / left.stages[stage].trace.path).read_bytes()))
        marks = {event["name"] for event in trace["traceEvents"] if event.get("cat") == "user_annotation"}
        assert expected <= marks
        assert sum(name.startswith("ProfilerStep#") for name in marks) == 1


@pytest.mark.slow
def test_two_runs_of_one_name_do_not_share_a_folder(configure, command, tmp_path):
    for _ in range(2):
        assert command("train", f"output={tmp_path}", *TINY, "model.width=4", "profiler=off").returncode == 0
    assert len(list(tmp_path.glob("*/*/record.json"))) == 2


def test_inference_on_a_folder_of_images_names_every_file(finished, command, tmp_path):
    folder, _ = finished
    pixels = np.random.default_rng(0).integers(0, 255, (5, 20, 30, 3), dtype=np.uint8)
    (tmp_path / "images" / "deep").mkdir(parents=True)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "images" / ("deep" if index % 2 else "") / f"{index}.jpg")
    result = command(
        "train", "task=infer", f"checkpoint={folder}", f"images={tmp_path / 'images'}", f"output={tmp_path}",
        "infer_batch_size=2",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    (table,) = tmp_path.rglob("predictions.csv")
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert sorted(Path(row["image"]).name for row in rows) == [f"{index}.jpg" for index in range(5)]
    assert all(row["label"] in "0123456789" and 0.1 <= float(row["probability"]) <= 1 for row in rows)
    assert "p50" in result.stdout and "(of 3 batches)" in result.stdout and str(table) in result.stdout


def test_inference_repeats_the_accuracy_of_the_run(finished, command, tmp_path):
    folder, _ = finished
    result = command("train", "task=infer", f"checkpoint={folder.parent}", f"output={tmp_path}")
    assert result.returncode == 0, result.stderr
    (table,) = tmp_path.rglob("predictions.csv")
    predicted = [int(row["label"]) for row in csv.DictReader(table.read_text().splitlines())]
    from train.data import digits

    labels = digits(root="", image_size=28, test_fraction=0.2).test.labels.tolist()
    accuracy = np.mean([ours == theirs for ours, theirs in zip(predicted, labels, strict=True)])
    assert accuracy == pytest.approx(run_record.read(folder).results["accuracy"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=mlp"], "of another model: it holds models.cnn.CNN, and model._target_=models.mlp.MLP is given"),
        (["model.width=8"], "trained with model.width=4, and model.width=8 is given"),
        (
            ["+experiment=conv_bias_on"],
            "trained with switches.conv_bias=absent, and switches.conv_bias=present is given",
        ),
        (["data=synthetic", "data.channels=3"], "trained with channels=1, and data.channels=3"),
        (["images={tmp}"], "no .jpg, .jpeg, .png file in it"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(finished, command, tmp_path, arguments, message):
    folder, _ = finished
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    result = command("train", "task=infer", f"checkpoint={folder}", f"output={tmp_path}/out", *arguments)
    assert result.returncode == 1
    assert message.lower() in result.stderr.lower()
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("kept", [0, 1, 500, -1])
def test_a_checkpoint_that_is_cut_short_is_refused(finished, command, tmp_path, kept):
    folder, _ = finished
    cut = tmp_path / "cut.pt"
    cut.write_bytes((folder / checkpoint.FILE_NAME).read_bytes()[:kept])
    result = command("train", "task=infer", f"checkpoint={cut}", f"output={tmp_path}", "model.width=4")
    assert result.returncode == 1
    assert f"error: checkpoint={cut}: cut short, or not a checkpoint" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_checkpoint_cannot_execute_code(command, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/executed",)

    torch.save({"format": 1, "model": Evil()}, tmp_path / "evil.pt")
    result = command("train", "task=infer", f"checkpoint={tmp_path / 'evil.pt'}", f"output={tmp_path}")
    assert result.returncode == 1
    assert "not a checkpoint" in result.stderr
    assert not (tmp_path / "executed").exists()


def start(output: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "train", f"output={output}", "model.width=4", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(output: Path, pattern: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not any(output.rglob(pattern)):
        assert time.monotonic() < deadline, f"no {pattern}"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupted_run_leaves_whole_files_and_says_where(tmp_path, number, status):
    run = start(tmp_path, "epochs=10000")
    wait_for(tmp_path, "*tfevents*")
    time.sleep(2)
    run.send_signal(number)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == status
    (folder,) = tmp_path.glob("*/*")
    expected = f"interrupted; what was written is whole: {folder}; to go on: python -m train resume={folder}\n"
    assert errors == expected
    assert whole(folder)["event"] == 1
    left = run_record.read(folder)
    assert left.status == "interrupted"


@pytest.mark.slow
def test_a_run_killed_at_any_moment_leaves_only_whole_files(tmp_path):
    """SIGKILL at ten random moments, from the first import to the last trace."""
    clock = time.monotonic()
    with start(tmp_path / "timed", *TINY) as run:
        run.communicate()
    seconds = time.monotonic() - clock
    moments = random.Random(0)
    found = []
    for attempt in range(10):
        output = tmp_path / str(attempt)
        with start(output, *TINY) as run:
            time.sleep(moments.uniform(0.3, 1.0) * seconds)
            run.kill()
            run.communicate()
        found.append(whole(output))
    assert any(kinds["event"] for kinds in found), "some were killed after the run had begun"


# What no longer fits: the events, whose writing is a thread's; and the checkpoint, which leaves no room to the events
# that this thread still has to write.
@pytest.fixture(params=["20k", "300k"])
def small_disk(tmp_path, request):
    """A file system of this size."""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_no_half_written_file(command, small_disk):
    result = command("train", f"output={small_disk}", "epochs=1", "model.width=64", "profiler=off")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"error: {small_disk}")
    assert "No space left on device" in result.stderr
    assert not list(small_disk.rglob("*.pt"))
    assert not list(small_disk.rglob(".tmp-*"))


def test_a_thread_that_writes_no_events_may_print_what_it_met(capsys, monkeypatch):
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    silence_event_writer_threads()
    thread = threading.Thread(target=lambda: 1 // 0)
    thread.start()
    thread.join()
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_one_line(command, tmp_path):
    (tmp_path / "file").write_text("")
    result = command("train", f"output={tmp_path / 'file'}")
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {tmp_path / 'file'}")
    assert "Not a directory" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_mistake_and_fails_at_its_end(command, tmp_path):
    result = command("train", "-m", "model.width=4,0", f"output={tmp_path}", *TINY, "profiler=off")
    assert result.returncode == 1
    assert "error: model.width=0: out of range; allowed: 1 to 65,536" in result.stderr
    assert len(list(tmp_path.rglob("record.json"))) == 1
    assert "the 2 jobs of this sweep" in result.stdout
    assert "left no record" in result.stdout


def test_an_interrupted_run_records_what_it_measured(configure, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("train.run.session.trace", interrupt)  # after the timed passes
    with pytest.raises(KeyboardInterrupt):
        train(configure(*TINY, "model.width=4"), {}, tmp_path)
    left = run_record.read(tmp_path)
    assert left.status == "interrupted"
    assert left.stages["train"].timed.samples == [128, 32]
    assert left.stages["train"].trace is None


def test_a_failing_run_records_why(configure, tmp_path):
    config = configure(*TINY, "model.width=4", "optimizer=sgd", "optimizer.lr=1e30")
    with pytest.raises(Exception, match="the loss is"):
        train(config, {}, tmp_path)
    left = run_record.read(tmp_path)
    assert left.status == "failed"
    assert "likely too large a learning rate" in left.error
    assert compose.flat(left.config)["optimizer.lr"] == 1e30


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_whose_evaluation_is_not_finite_fails_and_leaves_a_record_that_can_be_read(command, tmp_path, precision):
    result = command(
        "train", *TINY_DATA, "model=mlp", "epochs=1", "batch_size=null", "optimizer.lr=1e30", "profiler=off",
        f"precision={precision}", f"output={tmp_path}",
    )  # fmt: skip
    assert result.returncode == 1
    assert re.fullmatch(r"error: the loss on held-out images after epoch 1 is not finite: .*\n", result.stderr)
    (folder,) = tmp_path.glob("baseline*/*")
    assert run_record.read(folder).status == "failed"
    assert not (folder / checkpoint.FILE_NAME).exists()
