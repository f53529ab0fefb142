"""Mistakes on the command line, in this process: one line, status 1, nothing left behind. And the names of folders."""

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from importlib import metadata

import pytest

from profiling import run_record
from profiling.errors import UserError
from profiling.format import MAX_NAME_BYTES
from profiling.terminal.early_signals import ENDING
from tests.conftest import ROOT, TINY
from train import __main__ as train_command
from train.ab import __main__ as ab_command
from train.config import cli
from train.config.changes import run_label
from train.ranks.launch import usable_cores

TOO_LONG = "x" * 300  # for the name of a file
MEMORY = "out of memory: "
HERE = "tests.train.config.test_mistakes"
RESNET = "torchvision.models.resnet18"
DATA, MODEL, OPTIMIZER = (f"{group}=custom {group}._target_" for group in ("data", "model", "optimizer"))
MISTAKES = [
    ("model=1", "model=1: a group takes the name of a file; there are: cnn, custom, mlp, resnet18, vit"),
    ("data=5", "data=5: a group takes the name of a file; there are: cifar10, custom, digits"),
    ("profiler=true", "profiler=true: a group takes"),
    ("model=null", "model=null: a group takes"),
    ("optimizer=1.5", "optimizer=1.5: a group takes"),
    ("+experiment=3", "+experiment=3: a group takes"),
    ("+experiment=[3,4]", "+experiment=[3,4]: a group takes"),
    ("hydra/job_logging=1", "hydra/job_logging=1: a group takes the name of a file"),
    ("-m model=1,2", "model=1,2: a group takes"),
    ("model=[cnn,mlp]", "model: takes one file of its group, not several"),
    ("+model=mlp", "model: there is a file of this group already; to take another: model=..., without +"),
    ("=64", "=64: there is no key before the ="),
    ("+widht=3", "widht: no such key; did you mean 'model.width'?"),
    ("batch_siz", "Error parsing override 'batch_siz'; did you mean batch_size=...?"),
    ("nograd_off", "did you mean +experiment=nograd_off?"),
    ("seed=1,2", "seed=1,2: several values; a run with each: -m seed=1,2; one list: seed=[1,2]"),
    ("name=a=b", """put the value into quotes: 'name="a=b"'"""),
    ("optimizer=custom +optimizer.alpha=1", "no such key (there are: _target_, lr, weight_decay, params); "
     "what the class takes: +optimizer.params.alpha=..."),
    (f"{MODEL}={HERE}.auxiliary", "returned a tuple for 2 images; this data needs logits [2, 10]"),
    ("model.weights=3", "model.weights: no such key (there are: _target_, width, dropout)"),
    ("~seed", "seed: deleted, and every key is needed"),
    ("~model.width", "model.width: deleted, and every key is needed; leave ~model.width out"),
    ("~switches", "switches: deleted, and every key is needed"),
    ("switches=1", "allowed: the keys eval_context, running_loss"),
    ("switches=[1]", "switches=[1]; allowed: the keys eval_context"),
    ("switches=${run_label:a,b,c}", "switches=a+b-: wrong type; allowed: the keys eval_context"),
    ("switches=${augment}", "switches={'shift': 2, 'noise': 0.05}: wrong type"),
    ("loader=null", "loader: field 'loader' is not Optional; allowed: the keys source"),
    ("hypothesis.needs=${epochs}", "hypothesis.needs=12: out of range; allowed: a list of accelerator"),
    ("epochs=${data}", "epochs: While dereferencing interpolation '${data}'"),
    ("epochs=${nokey}", "epochs=${nokey}: Interpolation key 'nokey' not found"),
    ("epochs=${epochs}", "epochs=${epochs}: Recursive interpolation"),
    ("optimizer.lr=${optimizer}", "optimizer.lr: Interpolation to parent node"),
    ("name=${oc.env:ABSENT}", "name=${oc.env:ABSENT}: "),
    ("name=naïve", """put the value into quotes: 'name="naïve"'"""),
    ("batch_size=${oc.env:PATH}", "batch_size: While dereferencing interpolation '${oc.env:PATH}'"),
    ("--resolve", "error: The --resolve flag can only be used in conjunction with --cfg or --help"),
    ("--shell-completion", "error: Expecting one subcommand from ['install', 'uninstall', 'query']"),
    ("--shell-completion install=tcsh", "error: No completion plugin for 'tcsh' found, available : bash fish zsh"),
    ("--run -m", "error: Only one of --run, --multirun, --cfg"),
    ("--experimental-rerun nope", "error: File nope does not exist!"),
    ("hypothesis.topic=autogad --cfg job", "expected one of [baseline, autograd, batching"),
    ("hydra.verbose=[1]", "A logger name must be a string"),
    ("optimizer.betas=[0.9,2]", "optimizer.betas=[0.9, 2.0]: out of range; allowed: two numbers, each 0 to below 1"),
    ("optimizer.betas=[0.9]", "optimizer.betas=[0.9]: wrong type; allowed: 2 finite numbers"),
    ("optimizer.betas=[0.9,0.9,0.9]", "allowed: 2 finite numbers"),
    ("optimizer.betas=[]", "allowed: 2 finite numbers"),
    ("optimizer.betas=[[0.9],0.9]", "allowed: 2 finite numbers"),
    ("optimizer.betas=[0.9,nan]", "allowed: 2 finite numbers"),
    ("optimizer.betas=${epochs}", "optimizer.betas=12: out of range; allowed: 2 finite numbers"),
    ("seed=12345678901234567890", "seed=12345678901234567890: out of range; allowed: integers of 64 bits"),
    ("seed=-1", "seed=-1: out of range; allowed: 0 to 9,223,372,036,854,775,807"),
    ("epochs=99999999999999999999", "allowed: integers of 64 bits"),
    ("batch_size=9223372036854775807", "allowed: null, or 1 to 2,147,483,647"),
    ("threads=100000", f"threads=100000: out of range; allowed: null, or 1 to {8 * os.cpu_count()}"),
    ("loader.workers=100000", f"allowed: null, or 0 to {8 * os.cpu_count()}"),
    ("loader.prefetch_factor=100000", "allowed: 1 to 1,000"),
    ("profiler.active=1000000", "allowed: 0 to 1,000"),
    ("augment.shift=28", "augment.shift=28: out of range; allowed: 0 to 27 pixels"),
    ("model.width=2000000000", "model.width=2000000000: out of range; allowed: 1 to 65,536"),
    ("model.width=65536", f"model=models.cnn.CNN: {MEMORY}"),
    ("model=mlp model.depth=1000000", "model.depth=1000000: out of range; allowed: 1 to 1,000"),
    ("model=vit model.dim=1000000", "allowed: 1 to 65,536"),
    ("data.image_size=100000", "data.image_size=100000: out of range; allowed: 8 to 512"),
    ("data=synthetic data.image_size=100000", "data.image_size=100000: out of range; allowed: 1 to 4,096"),
    ("data=synthetic data.train_samples=1000000000", f"data=train.data.synthetic: {MEMORY}2.79 TiB asked for"),
    ("data=synthetic data.classes=1000000000", "allowed: 2 to 10,000"),
    ("output=", "output='': out of range; allowed: a folder"),
    (f"output=a/{TOO_LONG}", f"a/{TOO_LONG}: File name too long"),
    (f"model={TOO_LONG}", f"configs/model/{TOO_LONG}.yaml: File name too long"),
    ("optimizer._target_=builtins.print", "neither a class nor a function of Python code; allowed: a subclass"),
    ("optimizer._target_=torch.nn.Linear", "a class of another kind; allowed: a subclass of torch.optim.Optimizer"),
    ("optimizer._target_=torch.optim.Optimizer", "a class of another kind"),
    ("optimizer._target_=torch.optim.LBFGS", "optimizer=torch.optim.LBFGS: its step needs a closure"),
    ("optimizer._target_=torch.optim.SparseAdam", "optimizer=torch.optim.SparseAdam: takes sparse gradients only"),
    ("optimizer._target_=torch.optim.Muon", "optimizer=torch.optim.Muon: Muon only supports 2D parameters"),
    (f"{OPTIMIZER}=torch.optim.RMSprop +optimizer.params={{alpa:0.9}}", "unexpected keyword argument 'alpa'"),
    (f"{DATA}=nowhere.splits", "cannot be imported: No module named 'nowhere'; is its folder in PYTHONPATH?"),
    (f"{DATA}=subprocess.call", "a function of (popenargs, timeout, kwargs); allowed: a function that returns"),
    (f"{DATA}={HERE}.one_split", "returned a Tensor; needed: a training and a test split"),
    (f"{DATA}={HERE}.unscaled", "floating-point images from 0 to 255; needed: 0 to 1"),
    (f"{MODEL}={RESNET}", "does not fit this data, images [2, 1, 28, 28]: Given groups=1, weight of size"),
    (f"{MODEL}={RESNET} data=synthetic", "returned [2, 1000] for 2 images; this data needs logits [2, 10]"),
    ("optimizer._target_=..a", "optimizer._target_=..a: cannot be imported"),
    ("data._target_=builtins.exec", "neither a class nor a function of Python code; allowed: a function of"),
    ("data._target_=builtins.dict", "a class of another kind; allowed: a function of root, image_size, test_fraction"),
    ("data._target_=train.data.mnist", "a function of (root, download); allowed: a function of root, image_size"),
    ("data._target_=subprocess.call", "allowed: a function of root, image_size"),
    ("model._target_=subprocess.Popen", "a class of another kind; allowed: a subclass of torch.nn.Module"),
    ("model._target_=subprocess.check_output", "a subclass of torch.nn.Module, or a function that returns one"),
    ("model._target_=sys.exit", "neither a class nor a function"),
    ("model=custom model._target_=models.cnn.CNN +model.params={channels:2}", "not free, the data decides it: 1"),
    ("model=custom model._target_=models.cnn.CNN +model.params={width:-1,dropout:0}", "negative dimension -1"),
]  # fmt: skip


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run a command with arguments in an empty folder: status, standard error, and what is in the folder afterwards."""
    handlers = {number: signal.getsignal(number) for number in ENDING}
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    for name in ("KINETO_LOG_LEVEL", "TORCH_CPP_LOG_LEVEL"):  # set by the command, if they are not set
        monkeypatch.setenv(name, "99" if name.startswith("K") else "ERROR")
    monkeypatch.chdir(tmp_path)

    def started(*arguments: str, command=train_command, config="config"):
        monkeypatch.setattr(sys, "argv", [command.__file__, *arguments])
        status = cli.run(command.job, config)
        return status, capsys.readouterr().err, list(tmp_path.iterdir())

    yield started
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[arguments for arguments, _ in MISTAKES])
def test_a_mistake_is_one_line_and_leaves_no_folder(run, arguments, message):
    status, errors, left = run(*arguments.split())
    assert (status, left) == (1, [])
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert message in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--zzz", "unrecognized arguments: --zzz"),
        ("--multirn epochs=1,2", "unrecognized arguments: --multirn; did you mean '--multirun'?"),
        ("--cfg jb", "invalid choice: 'jb' (choose from 'job', 'hydra', 'all'); did you mean 'job'?"),
        ("--cfg", "argument --cfg/-c: expected one argument"),
        ("--experiment nograd_off", "--experiment: not a flag; did you mean +experiment=nograd_off"),
        ("--epochs=3", "--epochs=3: not a flag; did you mean epochs=3"),
        ("--batch-size 64", "--batch-size: not a flag; did you mean batch_size=64"),
    ],
)
@pytest.mark.parametrize(("command", "config"), [(train_command, "config"), (ab_command, "ab")])
def test_a_wrong_option_is_one_line(run, capsys, tmp_path, command, config, arguments, message):
    with pytest.raises(SystemExit) as stop:
        run(*arguments.split(), command=command, config=config)
    errors = capsys.readouterr().err
    assert (stop.value.code, [*tmp_path.iterdir()]) == (2, [])
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert message in errors


def test_the_version_is_that_of_this_program(run, capsys):
    with pytest.raises(SystemExit) as stop:
        run("--version")
    assert stop.value.code is None
    assert capsys.readouterr().out.startswith(f"abtrace {metadata.version('abtrace')} (Hydra 1.3.")


def test_an_experiment_without_its_package_line_is_told_which_line_is_missing(run, tmp_path):
    experiment = tmp_path / "conf" / "experiment"
    experiment.mkdir(parents=True)
    (experiment / "mine.yaml").write_text("switches: {eval_context: grad}\n")
    status, errors, left = run("--config-dir", "conf", "+experiment=mine")
    assert (status, left) == (1, [tmp_path / "conf"])
    assert errors.startswith("error: configs/experiment/mine.yaml: its first line must be `# @package _global_`")
    assert errors.count("\n") == 1


def test_help_lists_the_experiments_of_the_user(run, capsys, tmp_path):
    experiment = tmp_path / "conf" / "experiment"
    experiment.mkdir(parents=True)
    (experiment / "mine.yaml").write_text("# @package _global_\nhypothesis: {topic: kernels, claim: of my own}\n")
    for name, text in {"list": "[a]", "number": "hypothesis: 3", "broken": "a:\n\t- b"}.items():
        (experiment / f"{name}.yaml").write_text(text)
    with pytest.raises(SystemExit) as stop:
        run("--config-dir", "conf", "--help")
    assert not stop.value.code
    listing = capsys.readouterr().out
    kernels, unknown = (listing.partition(f"\n{topic}\n")[2].partition("\n\n")[0] for topic in ("kernels", "?"))
    assert "  tf32_off " in kernels
    assert [line.split(maxsplit=1) for line in kernels.splitlines() if "mine" in line] == [["mine", "of my own"]]
    assert [line.split() for line in unknown.splitlines()] == [["broken", "?"], ["list", "?"], ["number", "?"]]


@pytest.mark.parametrize("sweep", ["epochs=range(0)", "+experiment=glob(zzz*)", "model=glob(*,exclude=*)"])
@pytest.mark.parametrize(("command", "config"), [(train_command, "config"), (ab_command, "ab")])
def test_a_multirun_of_nothing_is_one_line(run, capsys, tmp_path, command, config, sweep):
    with pytest.raises(SystemExit) as stop:
        run("-m", "seed=1,2", sweep, command=command, config=config)
    told = capsys.readouterr()
    assert (stop.value.code, [*tmp_path.iterdir()]) == (1, [])
    assert (told.out, told.err) == ("", f"error: {sweep}: no value matches, so there is nothing to run\n")


def test_jobs_that_fail_leave_no_folder_in_one_that_was_there_and_flags_may_stand_between_overrides(run, tmp_path):
    (tmp_path / "runs").mkdir()
    status, errors, _ = run("seed=3", "-m", "batch_size=0,-1")
    assert (status, errors.count("\n")) == (1, 2)
    assert [path.name for path in (tmp_path / "runs").rglob("*")] == ["multirun.yaml"]


def test_an_error_after_the_last_run_of_a_multirun_is_one_line(capsys):
    with cli.one_line_errors():  # as in train.ab.ladder.WriteLadder
        raise UserError("disk full")
    assert capsys.readouterr().err == "error: disk full\n"


def test_a_name_with_control_characters_is_shown_escaped(run):
    assert run("task=infer", "checkpoint='a\n\x1b[31mb'")[1].startswith(r"error: checkpoint=a\n\x1b[31mb: no such file")


@pytest.mark.parametrize("mistake", ["model=1", "threads=100000", "optimizer.betas=[0.9,2]", "switches=${data}"])
def test_an_ab_tells_a_mistake_in_one_line_too(run, mistake):
    status, errors, left = run("+experiment=nograd_off", mistake, command=ab_command, config="ab")
    assert (status, left) == (1, [])
    assert errors.startswith("error: ") and errors.count("\n") == 1


def test_a_target_is_not_called_before_it_is_known_to_be_right(run, tmp_path):
    for group in ("optimizer", "data", "model"):
        assert run(f"{group}._target_=os.system")[0] == 1
    status, errors, left = run(
        "model=custom", "model._target_=subprocess.getoutput", f"+model.params={{cmd: 'touch {tmp_path}/called'}}"
    )
    assert (status, left) == (1, [])
    assert "a function of (cmd, encoding, errors); allowed: a subclass of torch.nn.Module" in errors


def test_a_model_may_be_a_function(configure):
    from train import session

    config = configure("model=custom", "model._target_=tests.train.config.test_mistakes.linear")
    assert session.prepare(config).module[1].out_features == 10


def linear(channels: int, image_size: int, classes: int):
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, classes))


def auxiliary():
    """A model that returns more in training than in evaluation, as torchvision's GoogLeNet does."""
    from torch import nn

    class Model(nn.Sequential):
        def forward(self, images):
            logits = super().forward(images)
            return (logits, logits) if self.training else logits

    return Model(nn.Flatten(), nn.LazyLinear(10))


def one_split():
    import torch

    return torch.zeros(4, 1, 8, 8)


def unscaled():
    import torch

    images = torch.zeros(4, 1, 8, 8)
    images[0] = 255
    return (images, torch.arange(4)), (images, torch.arange(4))


def test_memory_that_the_machine_lacks_is_one_line_also_during_the_run(run, monkeypatch, tmp_path):
    """The machine is said to have 300 MB left: enough for the data and the model, not for the activations."""

    class Available:
        available = 300_000_000

    monkeypatch.setattr("profiling.out_of_memory.psutil.virtual_memory", Available)
    status, errors, _ = run(
        "data=synthetic", "data.train_samples=64", "data.test_samples=8", "data.image_size=512", "batch_size=64",
        "profiler=off", "keep_heap=true",
    )  # fmt: skip
    assert status == 1
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert MEMORY in errors


def test_a_folder_that_was_there_stays(run, tmp_path):
    (tmp_path / "runs").mkdir()
    assert run("epochs=0")[2] == [tmp_path / "runs"]
    assert list((tmp_path / "runs").iterdir()) == []


# --- names of folders -------------------------------------------------------------------------------------------------

MANY = [f"switches.{name}=value_{name}" for name in "abcdefghijklmnopqrst"]


def test_a_long_name_is_shortened_and_stays_readable():
    name = run_label("baseline", ["model=custom", *MANY], "train")
    assert name.startswith("baseline+model-custom+switches.a-value_a+")
    start, _, end = name.rpartition("+")
    kept = len(start.split("+")) - 1
    assert end.startswith(f"{len(MANY) + 1 - kept}-more-")
    assert len(name.encode()) <= MAX_NAME_BYTES


def test_names_that_differ_beyond_the_cut_stay_different():
    names = {run_label("baseline", [*MANY, f"seed={seed}"], "train") for seed in range(1000)}
    assert len(names) == 1000
    names = {run_label("é" * 300 + str(number), [], "train") for number in range(1000)}
    assert len(names) == 1000


@pytest.mark.parametrize("name", ["é" * 300, "模" * 200, "x" * 300, "a\x1b[31m\n\0", "..", ".hidden", "a\udc80", "~/x"])
def test_every_name_is_a_name_of_a_file(name, tmp_path):
    label = run_label(name, ["model._target_=../../x", "+model.params={a: 'é\n'}"], "train")
    assert len(label.encode()) <= MAX_NAME_BYTES
    assert label.isprintable() and "/" not in label and not label.startswith(".")
    (tmp_path / label).mkdir()
    assert [path.name for path in tmp_path.iterdir()] == [label]


def test_a_run_with_many_overrides_has_them_all_in_its_record(run, tmp_path):
    overrides = [*TINY, "profiler=off", "model.width=4", "switches.running_loss=item", "switches.zero_grad=fill",
                 "switches.preprocess=loop", "switches.arithmetic=repeat", "switches.brier=all_pairs",
                 "switches.confusion=loop", "switches.buffers=fresh", "switches.memory_format=contiguous",
                 "switches.optimizer=for_loop", "label_smoothing=0.2"]  # fmt: skip
    status, errors, _ = run(*overrides)
    assert (status, errors) == (0, "")
    (folder,) = tmp_path.glob("runs/*/*")
    assert "-more-" in folder.parent.name
    changed = run_record.read(folder).changed
    switches = dict(override.split("=") for override in overrides if override.startswith("switches."))
    assert switches == {key: value for key, (_, value) in changed.items() if key in switches}
    assert changed["label_smoothing"] == (0.1, 0.2)


# --- warnings and signals ---------------------------------------------------------------------------------------------


def test_a_good_run_warns_of_nothing(run, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("error", FutureWarning)
        for options in ("profiler=full", "profiler.warmup=0"), (f"loader.workers={usable_cores() + 1}",):
            status, errors, _ = run(*TINY, "model.width=4", *options)
            assert (status, errors) == (0, "")
    assert not list(tmp_path.rglob("*.log"))


def test_a_window_without_warm_up_has_all_its_steps(run, tmp_path):
    assert run(*TINY, "model.width=4", "profiler.wait=1", "profiler.warmup=0", "profiler.active=2")[0] == 0
    (folder,) = tmp_path.glob("runs/*/*")
    traced = run_record.read(folder).stages["train"].trace
    trace = json.loads(gzip.decompress((folder / traced.path).read_bytes()))
    steps = {event["name"] for event in trace["traceEvents"] if event["name"].startswith("ProfilerStep#")}
    assert steps == {"ProfilerStep#1", "ProfilerStep#2"}


INTERRUPTED_WHILE_IMPORTING = """
import os, sys
from {module} import main
class Interrupt:
    def find_spec(self, name, path, target=None):
        if name == "hydra":
            os.kill(os.getpid(), {number:d})
sys.meta_path.insert(0, Interrupt())
main()
"""


@pytest.mark.parametrize("module", ["train.__main__", "train.ab.__main__"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_during_the_imports_ends_a_command_in_one_line(module, number, status, tmp_path):
    code = INTERRUPTED_WHILE_IMPORTING.format(module=module, number=number)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (status, "interrupted before the run began\n")
    assert list(tmp_path.iterdir()) == []
