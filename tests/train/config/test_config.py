"""Configurations: what is rejected, by which message; what composes to what."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, composed
from train.config.compose import SCHEMAS, every_key, to_config

REJECTED = [
    (["optimizer.lr=inf"], "optimizer.lr=inf: out of range; allowed: finite numbers"),
    (["augment.noise=inf"], "augment.noise=inf: out of range; allowed: finite numbers"),
    (["ab.budget_s=inf"], "ab.budget_s=inf: out of range; allowed: finite numbers"),
    (["widht=3"], "widht: no such key; did you mean 'model.width'?"),
    (["model.widht=3"], "model.widht: no such key; did you mean 'width'?"),
    (["+modle.width=3"], "modle: no such key; did you mean 'model'?"),
    (["switches.eval_context=nograd"], "expected one of [inference_mode, no_grad, grad]; did you mean 'no_grad'?"),
    (["epochs=many"], "epochs: Value 'many' of type 'str' could not be converted to Integer"),
    (["epochs=0"], "epochs=0: out of range; allowed: 1 or more"),
    (["label_smoothing=1"], "label_smoothing=1.0: out of range; allowed: 0 to below 1"),
    (["micro_batches=200"], "micro_batches=200: out of range; allowed: at most batch_size=128"),
    (["optimizer=sgd", "optimizer.momentum=0"], "optimizer.nesterov=True: out of range; allowed: false while momentum"),
    (["model=vit", "model.heads=5"], "model.dim=64: out of range; allowed: a multiple of model.heads=5"),
    (["hypothesis.topic=autogad"], "did you mean 'autograd'?"),
    (["+experiment=nograd"], "experiment=nograd: no such file in configs/experiment/; did you mean 'nograd_off'?"),
    (["model=cnnn"], "model=cnnn: no such file in configs/model/; did you mean 'cnn'?"),
    (["experiment=nograd_off"], "use +experiment=nograd_off"),
    (["epochs=["], "epochs=[: cannot be read as key=value"),
    (["data=image_folder"], "data.root: no value; give one: data.root=..."),
    (["task=infer"], "checkpoint=null: out of range"),
    (["checkpoint=runs"], "task=train: out of range; allowed: infer, where checkpoint or images is given"),
    (["device=cuda"], "device=cuda: there is none here; this machine has cpu"),
    (["data=mnist", "data.root=/nonexistent", "data.download=false"], "take data=digits, which needs no network"),
    (["model=custom", "model._target_=models.cnn.CNNN"], "models.cnn has no CNNN; did you mean 'CNN'?"),
    (["model=custom", "model._target_=nowhere.Net"], "model._target_=nowhere.Net: cannot be imported"),
    (["model=vit", "model.patch=5"], "patch=5 does not divide the image's side of 28 pixels"),
    (["loader.source=resident", "data=jpeg_digits", "data.root={tmp}/jpeg"], "the images are files that are decoded"),
    (["task=infer", "checkpoint=/nonexistent.pt"], "checkpoint=/nonexistent.pt: no such file"),
    (
        ["+experiment=requires_grad_off"],
        "no parameter requires grad, so there is nothing to train: switches.",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), REJECTED, ids=[" ".join(arguments) for arguments, _ in REJECTED])
def test_a_mistake_gets_one_line_and_a_failing_status(command, tmp_path, arguments, message):
    result = command("train", f"output={tmp_path}", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert not list(tmp_path.rglob("*.pt")) and not list(tmp_path.rglob("record.json"))


def test_a_file_that_is_not_yaml_is_named_with_the_line(command, tmp_path):
    (tmp_path / "experiment").mkdir()
    broken = tmp_path / "experiment" / "broken.yaml"
    broken.write_text("# @package _global_\nname: [broken\n")
    result = command("train", "--config-dir", str(tmp_path), "+experiment=broken", f"output={tmp_path}")
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {broken}, line 3, column 1: not YAML")
    assert result.stderr.count("\n") == 1


def test_hydra_full_error_shows_the_traceback(command, tmp_path):
    result = command("train", "epochs=0", f"output={tmp_path}", HYDRA_FULL_ERROR="1")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "UserError: epochs=0: out of range" in result.stderr


def test_help_lists_every_experiment_with_its_claim_under_its_topic(command):
    listing = command("train", "--help").stdout
    for file in (ROOT / "configs" / "experiment").glob("*.yaml"):
        config = to_config(composed(f"+experiment={file.stem}"))
        assert f"  {file.stem} " in listing
        assert config.hypothesis.claim in listing
        heading = listing[: listing.index(f"  {file.stem} ")].split("\n\n")[-1].splitlines()[0]
        assert heading == config.hypothesis.topic


def test_cfg_job_prints_the_resolved_configuration(command):
    shown = command("train", "+experiment=nograd_off", "--cfg", "job").stdout
    assert "eval_context: grad" in shown
    assert "name: nograd_off" in shown


def test_shell_completion_answers_as_in_any_hydra_application():
    program = Path(sys.executable).with_name("abtrace")
    environment = {**os.environ, "COMP_LINE": "abtrace +experiment=nogr", "COMP_POINT": "24"}
    query = [program, "-sc", "query=bash"]
    answer = subprocess.run(query, env=environment, capture_output=True, text=True, cwd=ROOT, check=True)
    assert "+experiment=nograd_off" in answer.stdout.split()


def test_a_configuration_cannot_be_changed_after_it_was_checked(configure):
    config = configure()
    with pytest.raises(AttributeError):
        config.epochs = 3
    with pytest.raises(AttributeError):
        config.loader.workers = 3


def test_an_option_without_a_schema_is_refused(command, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "untyped.yaml").write_text("_target_: models.cnn.CNN\nwidht: 3\n")
    result = command("train", "--config-dir", str(tmp_path), "model=untyped", f"output={tmp_path}")
    assert result.returncode == 1
    assert "error: model: the option has no schema" in result.stderr


def test_config_yaml_documents_every_line():
    """A comment on each line that takes a value, except where the line above it is a heading of the same key."""
    text = (ROOT / "configs" / "config.yaml").read_text()
    body = text[text.index("# --- what to do") : text.index("# --- Hydra")]
    undocumented = [
        line
        for line in body.splitlines()
        if ": " in line and "#" not in line and not line.strip().startswith("because")
    ]
    assert undocumented == []


def test_every_schema_is_used_by_an_option_and_has_every_key_named():
    used = "".join(file.read_text() for file in (ROOT / "configs").rglob("*.yaml"))
    assert [path for path in SCHEMAS if f"/{path}@" not in used] == []
    assert {"epochs", "loader.workers", "switches.eval_context", "model.width", "data.root"} <= set(every_key())


@pytest.mark.slow
def test_a_progress_bar_is_drawn_in_a_terminal_only(command, tmp_path):
    arguments = [sys.executable, "-m", "train", f"output={tmp_path}", "epochs=3", "model.width=4", "profiler=off"]
    leader, follower = pty.openpty()
    with subprocess.Popen(
        arguments, stdout=follower, stderr=follower, cwd=ROOT, env={**os.environ, "TERM": "xterm"}
    ) as run:
        os.close(follower)
        shown = b""
        try:
            while chunk := os.read(leader, 65536):
                shown += chunk
        except OSError:  # Linux reports the end of a terminal as an error
            pass
        assert run.wait() == 0
    assert b"36" in shown and "━".encode() in shown and b"samples/s" in shown
    quiet = command("train", *arguments[3:])
    assert "\r" not in quiet.stdout and "\x1b" not in quiet.stdout
    assert quiet.stderr == ""
