"""A user's script as an arm: how its steps are found, what a held script does, and how scripts end."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from profiling import run_record
from profiling.ab import script_process
from profiling.ab.messages import ArmError
from profiling.ab.results import difference
from profiling.ab.script_process import Script, ScriptProcess
from tests.conftest import ROOT

MODEL = """
import sys, torch
from torch import nn
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
def train_step(samples=4):
    optimizer.zero_grad()
    model(torch.randn(samples, 8)).square().mean().backward()
    optimizer.step()
"""
LOOP = MODEL + "while True:\n    train_step()\n"


BENCH_SCRIPTS = ROOT / "tests" / "bench" / "scripts"


def script(folder: Path, text: str, *arguments: str, python: str = sys.executable, **options) -> Script:
    """A script of this text, as an arm runs it: a thread, since tests share the cores with others."""
    path = folder / "script.py"
    path.write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    settings = {"seed": 0, "samples": None, "foreign": None, **options}
    return Script((str(path), *arguments), python, environment, folder, **settings)


@contextmanager
def started(folder: Path, text: str, *arguments: str, **options):
    """An arm that runs a script of this text; it has warmed up."""
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    with ScriptProcess(script(folder, text, *arguments, **options), folder / "output.txt", {}, scratch) as arm:
        assert arm.ready
        yield arm


def failure(folder: Path, text: str) -> str:
    """Why a script of this text is no arm; no process of it is left."""
    before = psutil.Process().children(recursive=True)
    with pytest.raises(ArmError) as error, started(folder, text) as arm:
        while True:
            arm.block({"train": 3})
    assert "\n" not in str(error.value)
    assert psutil.Process().children(recursive=True) == before
    return str(error.value)


# --- steps and phases -------------------------------------------------------------------------------------------------


def test_a_plain_loop_needs_no_change(tmp_path):
    with started(tmp_path, LOOP) as arm:
        assert (dict(arm.ready.settle_steps), arm.ready.samples_per_step) == ({"train": 1}, 4)
        assert arm.ready.environment.versions.keys() == {"python", "torch"}
        answer = arm.answer()
        assert len(answer.tensors) == 4
        assert arm.probe() > 0
        seconds = arm.block({"train": 5}).s_per_sample
        assert list(seconds) == ["load", "forward", "backward", "optimizer", "train"]
        assert 0.5 < sum(list(seconds.values())[:4]) / seconds["train"] <= 1
        output = arm.finish(tmp_path / "arm", "2026-01-01", {})
    curves = EventAccumulator(str(tmp_path / "arm")).Reload()
    assert len(curves.Scalars("time_ms/train/forward")) == 5
    assert curves.Scalars("memory_mib/train/resident_peak")[0].value > 1
    record = run_record.read(tmp_path / "arm")
    assert record.stages["train"].timed.samples == [4] * 5
    assert (tmp_path / "arm" / output.traces["train"]).is_file()
    assert output.peak_allocated_bytes["train"] > 0


@pytest.mark.slow
def test_one_seed_gives_one_answer(tmp_path):
    answers = []
    for seed in (0, 0, 1):
        with started(tmp_path, LOOP, seed=seed) as arm:
            answers.append(arm.answer())
    assert difference(answers[0], answers[1]) == (0.0, 0.0)
    assert difference(answers[0], answers[2])[1] > 0.1


def test_an_inference_script_marks_its_steps(tmp_path):
    text = MODEL + (
        "import profiling\n"
        "with torch.no_grad():\n"
        "    while True:\n"
        "        with profiling.phase('predict'):\n"
        "            model(torch.randn(4, 8))\n"
        "        profiling.step(samples=32)\n"
    )
    with started(tmp_path, text) as arm:
        assert (dict(arm.ready.settle_steps), arm.ready.samples_per_step) == ({"infer": 1}, 32)
        assert list(arm.block({"infer": 3}).s_per_sample) == ["predict", "infer"]
        assert arm.answer().tensors == {}


def test_marks_need_neither_torch_nor_abtrace(tmp_path):
    text = "import profiling\nassert 'torch' not in __import__('sys').modules\nwhile True: profiling.step()\n"
    bare = subprocess.run(
        [sys._base_executable, "-c", "import profiling"], cwd=tmp_path, capture_output=True, check=False
    )
    assert bare.returncode, "there is an interpreter without abtrace"
    lacking = script(tmp_path, text, python=sys._base_executable)
    environment = {name: value for name, value in lacking.environment.items() if name != "PYTHONPATH"}
    lacking = Script(lacking.command, lacking.python, environment, tmp_path, 0, None, None)
    with ScriptProcess(lacking, tmp_path / "output.txt", {}, tmp_path) as arm:
        assert arm.ready.samples_per_step is None
        assert arm.block({"infer": 3}).step_s["infer"] > 0


def test_outside_of_a_comparison_marks_do_nothing():
    code = (
        "import profiling, sys; profiling.step(3)\nwith profiling.phase('x'): pass\nassert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_with_several_optimizers_a_step_ends_with_the_rarest(tmp_path):
    text = MODEL + (
        "critic = nn.Linear(8, 1)\n"
        "critics = torch.optim.Adam(critic.parameters())\n"
        "while True:\n"
        "    for _ in range(3):\n"
        "        critics.zero_grad()\n"
        "        critic(torch.randn(4, 8)).mean().backward()\n"
        "        critics.step()\n"
        "    train_step()\n"
        "    print('cycle', flush=True)\n"
    )
    with started(tmp_path, text) as arm:
        arm.block({"train": 1})
        before = arm._output.read_text().count("cycle")
        seconds = arm.block({"train": 6}).s_per_sample
        assert arm._output.read_text().count("cycle") - before == 6
        assert set(seconds) == {"optimizer", "train"}, "no forward is known to be the only one"
        assert arm.ready.samples_per_step == 4


def test_a_validation_between_steps_counts_no_samples(tmp_path):
    text = MODEL + ("while True:\n    train_step()\n    with torch.no_grad():\n        model(torch.randn(1000, 8))\n")
    with started(tmp_path, text) as arm:
        assert arm.ready.samples_per_step == 4
        arm.block({"train": 4})
        arm.finish(tmp_path / "arm", "", {})
    assert run_record.read(tmp_path / "arm").stages["train"].timed.samples == [4] * 4


def test_variables_that_the_script_sets_before_it_imports_torch_are_in_time(tmp_path):
    with started(tmp_path, "import os\nos.environ['OMP_NUM_THREADS'] = '2'\n" + LOOP) as arm:
        assert arm.ready.environment.threads == 2


def test_a_module_is_run_as_python_does(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "other.py").write_text("value = 1\n")
    (tmp_path / "package" / "run.py").write_text(
        "from .other import value\nimport sys\nassert sys.argv[1:] == ['--x']\n" + LOOP
    )
    told = script(tmp_path, "")
    module = Script(("-m", "package.run", "--x"), told.python, told.environment, tmp_path, 0, None, None)
    with ScriptProcess(module, tmp_path / "output.txt", {}, tmp_path) as arm:
        assert arm.block({"train": 2}).step_s["train"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "phases"),
    [
        ("loop", ["load", "forward", "backward", "optimizer", "train"]),
        ("loop --workers 2", ["load", "forward", "backward", "optimizer", "train"]),
        ("scaled", ["load", "forward", "backward", "optimizer", "train"]),
        ("accelerated", ["forward", "optimizer", "train"]),
        ("lightning_fit", ["train"]),
        ("gan", ["optimizer", "train"]),
        ("inference", ["transfer", "predict", "infer"]),
    ],
)
def test_every_kind_of_script_has_steps_phases_an_answer_memory_and_a_trace(tmp_path, name, phases):
    name, *arguments = name.split()
    for package in ("accelerate", "lightning"):
        if name.startswith(package):
            pytest.importorskip(package, reason="make bench installs it")
    told = script(tmp_path, "")
    command = (str(BENCH_SCRIPTS / f"{name}.py"), *arguments)
    answers = []
    for folder in ("one", "other"):
        with ScriptProcess(replace(told, command=command), tmp_path / "output.txt", {}, tmp_path) as arm:
            assert arm.ready.samples_per_step == (128 if name == "accelerated" else 64)
            answers.append(arm.answer())
            stage = phases[-1]
            assert list(arm.block({stage: 4}).s_per_sample) == phases
            output = arm.finish(tmp_path / folder, "", {})
            assert min(output.peak_resident_bytes, output.peak_allocated_bytes[stage]) > 0
            assert (tmp_path / folder / output.traces[stage]).is_file()
    assert difference(*answers) == (None if name == "inference" else (0.0, 0.0))


@pytest.mark.slow
def test_a_compiled_module_stays_one_graph_and_has_phases(tmp_path):
    compiled = "model = torch.compile(model, backend='eager', fullgraph=True)\n"
    in_place = "model.compile(backend='eager', fullgraph=True)\n"
    for text in (compiled, in_place):
        loop = "while True:\n    train_step()\n    assert torch._dynamo.utils.counters['stats']['unique_graphs'] == 1\n"
        told = "import warnings; warnings.simplefilter('error')\n" + MODEL + "import torch._dynamo\n" + text + loop
        with started(tmp_path, told) as arm:
            assert list(arm.block({"train": 5}).s_per_sample) == ["load", "forward", "backward", "optimizer", "train"]


# --- turns ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_held_script_does_not_work_nor_do_its_workers(tmp_path):
    text = MODEL + (
        "import threading, time\n"
        "def count(name):\n"
        "    while True:\n"
        "        with open(name, 'a') as file: file.write('x')\n"
        "        time.sleep(0.001)\n"
        "class Data(torch.utils.data.IterableDataset):\n"
        "    def __iter__(self):\n"
        "        threading.Thread(target=count, args=('worker',), daemon=True).start()\n"
        "        while True: yield torch.zeros(8)\n"
        "threading.Thread(target=count, args=('thread',), daemon=True).start()\n"
        "import subprocess\n"
        "child = \"while True: open('child', 'a').write('x'); __import__('time').sleep(0.001)\"\n"
        "subprocess.Popen([sys.executable, '-c', child], start_new_session=True)\n"
        "for batch in torch.utils.data.DataLoader(Data(), batch_size=4, num_workers=1):\n"
        "    train_step()\n"
    )
    sizes = lambda: [(tmp_path / name).stat().st_size for name in ("worker", "thread", "child")]  # noqa: E731
    with started(tmp_path, text) as arm:
        arm.block({"train": 5})
        time.sleep(0.05)
        held = sizes()
        time.sleep(0.3)
        assert sizes() == held
        arm.block({"train": 2000})
        assert all(now > before for now, before in zip(sizes(), held, strict=True)), "and then they go on"


RANKS = (
    MODEL
    + """
import os, torch.distributed as dist
dist.init_process_group("gloo")
model = nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
while True:
    train_step()
    with open(f"rank{dist.get_rank()}", "a") as file: file.write("x")
"""
)


@pytest.mark.slow
def test_ranks_of_torchrun_pause_and_go_together(tmp_path):
    told = script(tmp_path, RANKS)
    told = replace(told, command=("--nproc-per-node", "2", *told.command), is_torchrun=True)
    sizes = lambda: [(tmp_path / name).stat().st_size for name in ("rank0", "rank1")]  # noqa: E731
    with ScriptProcess(told, tmp_path / "output.txt", {}, tmp_path) as arm:
        assert arm.ready.samples_per_step == 8, "of both ranks"
        assert len(arm.answer().tensors) == 4
        before = sizes()
        assert set(arm.block({"train": 5}).s_per_sample) == {"load", "forward", "backward", "optimizer", "train"}
        held = sizes()
        assert [after - first for first, after in zip(before, held, strict=True)] == [5, 5]
        time.sleep(0.2)
        assert sizes() == held
        arm.finish(tmp_path / "arm", "", {})
        ranks = psutil.Process(arm._process.pid).children(recursive=True)
        assert len(ranks) >= 2
    assert run_record.read(tmp_path / "arm").stages["train"].timed.samples == [8] * 5
    assert psutil.wait_procs(ranks, timeout=10)[1] == []


@pytest.mark.slow
def test_a_rank_that_fails_gets_one_line(tmp_path):
    told = script(tmp_path, RANKS.replace("    train_step()", "    train_step()\n    if dist.get_rank(): 1 / 0"))
    told = replace(told, command=("--nproc-per-node", "2", *told.command), is_torchrun=True)
    before = psutil.Process().children(recursive=True)
    with (
        pytest.raises(ArmError, match=r"^ZeroDivisionError: division by zero$"),
        ScriptProcess(told, tmp_path / "output.txt", {}, tmp_path) as arm,
    ):
        assert arm.ready
    assert psutil.Process().children(recursive=True) == before


@pytest.mark.slow
def test_arms_end_with_a_parent_that_is_killed(tmp_path):
    made = script(tmp_path, LOOP)
    code = (
        "import sys, time; from pathlib import Path\n"
        "from tests.profiling.ab.test_script_process import LOOP, started\n"
        f"with started(Path({str(tmp_path)!r}), LOOP) as arm:\n"
        "    print(arm._process.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=dict(made.environment), stdout=subprocess.PIPE
    ) as parent:
        arm = psutil.Process(int(parent.stdout.readline()))
        assert arm.status() == psutil.STATUS_STOPPED
        parent.kill()
    arm.wait(timeout=20)


# --- how scripts end --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise ValueError('first\\nthe wheels came off')", "ValueError: the wheels came off"),
        (LOOP.replace("while True", "for _ in range(20)") + "1 / 0", "ZeroDivisionError: division by zero"),
        ("import sys; sys.stdout.close(); sys.stderr.close(); 1 / 0", "ZeroDivisionError: division by zero"),
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("this is no Python", r"SyntaxError: invalid syntax (script.py, line 1)"),
        ("import sys; sys.exit(3)", "the script ended with exit status 3"),
        ("import sys; sys.exit('no data')", "the script ended with exit status 1"),
        ("print(input())", "EOFError: EOF when reading a line"),
        (MODEL, "the script ended without a step: no optimizer has stepped, and it did not call profiling.step()"),
        (MODEL + "for _ in range(5): train_step()", "the script ended after 5 steps: too few, let it run longer"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the process was ended by SIGSEGV"),
        ("import os; os._exit(0)", "the process ended with exit status 0"),
    ],
)  # fmt: skip
def test_a_script_that_fails_gets_one_line_and_leaves_no_process(tmp_path, text, reason):
    assert failure(tmp_path, text) == reason


@pytest.mark.slow
def test_a_script_that_hangs_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(script_process, "STEP_TIMEOUT_S", 3.0)
    hanging = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(3600)"
    assert failure(tmp_path, hanging) == "no step within 3 s"


@pytest.mark.slow
def test_what_a_script_has_started_ends_with_it(tmp_path):
    text = (
        "import subprocess, sys\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "one, other = subprocess.Popen(sleep), subprocess.Popen(sleep, start_new_session=True)\n"
        "import os\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    daemon = subprocess.Popen(sleep)\n"
        "    print(daemon.pid, flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "print(one.pid, other.pid, flush=True)\n" + LOOP
    )
    with started(tmp_path, text) as arm:
        children = [psutil.Process(int(pid)) for pid in arm._output.read_text().split()]
    assert psutil.wait_procs(children, timeout=10)[1] == []


@pytest.mark.slow
def test_a_script_that_ends_early_is_started_again(tmp_path):
    with started(tmp_path, MODEL + "for _ in range(14): train_step()") as arm:
        first = arm._process.pid
        for _ in range(4):
            assert arm.block({"train": 3}).step_s["train"] > 0
        assert arm._process.pid != first
        arm.finish(tmp_path / "arm", "", {})


def test_a_script_may_end_by_sys_exit_and_change_its_folder(tmp_path):
    text = MODEL + "import os\nos.chdir('/')\nfor _ in range(40): train_step()\nsys.exit()"
    with started(tmp_path, text) as arm:
        assert arm.block({"train": 3}).step_s["train"] > 0
        arm.finish(tmp_path / "arm", "", {})
        assert arm.block({"train": 30}).step_s["train"] > 0


@pytest.mark.slow
def test_of_megabytes_of_output_the_end_is_kept(tmp_path):
    text = MODEL + "while True:\n    train_step()\n    print('x' * (1 << 20))\n    print('the end', flush=True)\n"
    with started(tmp_path, text) as arm:
        arm.block({"train": 12})
        arm.block({"train": 12})
        assert arm._output.stat().st_size < script_process.MAX_OUTPUT_BYTES
        assert arm._output.read_text().endswith("the end\n")


@pytest.mark.slow
def test_signals_of_a_terminal_do_not_reach_the_script(tmp_path):
    with started(tmp_path, LOOP) as arm:
        assert os.getpgid(arm._process.pid) != os.getpgid(0)
        assert os.getsid(arm._process.pid) == os.getsid(0), "so that the kernel ends it with this process"
