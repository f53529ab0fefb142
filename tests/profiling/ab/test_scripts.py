"""python -m profiling ab: what it prints, writes and refuses, and its exit status."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec
import psutil
import pytest
import yaml

from profiling import run_record
from profiling.ab.measure import ArmResult, Measured
from profiling.ab.messages import ArmOutput, Ready
from profiling.ab.scripts import UNDECIDED, gate, remarks
from profiling.heap import has_glibc
from profiling.verdict.hypothesis import Expectation, Hypothesis
from profiling.verdict.judge import judge_comparison
from profiling.verdict.ladder import read_ladder
from profiling.verdict.record import read_comparison
from profiling.verdict.timings import PhaseTimings
from profiling.vocabulary import Agreement, Verdict
from tests.conftest import ROOT
from tests.profiling.ab.arms import ENVIRONMENT
from tests.profiling.ab.test_script_process import LOOP, MODEL

SPINNING = MODEL + (
    "import time, helper\n"
    "while True:\n"
    "    train_step(4)\n"
    "    end = time.perf_counter() + helper.SPIN_S\n"
    "    while time.perf_counter() < end: pass\n"
)


@pytest.fixture
def ab(tmp_path):
    """A function that runs `python -m profiling ab` in `tmp_path`."""

    def run(
        *arguments: str,
        command: Sequence[str] = (sys.executable, "-m", "profiling", "ab"),
        cwd: Path = tmp_path,
        **variables: str,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*command, *arguments],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        lines = done.stderr.splitlines(keepends=True)
        done.stderr = "".join(line for line in lines if not line.startswith("warning: other processes use"))
        return done

    return run


def errors(result: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines on standard error, without the warning on a machine that others use."""
    return [line for line in result.stderr.splitlines() if not line.startswith("warning: other processes")]


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=n", "-c", "user.email=e@x")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def repository(folder: Path) -> None:
    """A script whose committed helper spins for 1 ms, and in the working tree for 2 ms."""
    (folder / "train.py").write_text(SPINNING)
    (folder / "helper.py").write_text("SPIN_S = 1e-3\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "x")
    (folder / "helper.py").write_text("SPIN_S = 2e-3\n")


# --- a whole comparison -----------------------------------------------------------------------------------------------


def command_of_ci() -> list[str]:
    """The arguments of the comparison in the example for GitHub Actions, against HEAD."""
    example = (ROOT / "docs" / "scripts.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    steps = yaml.safe_load(example)["jobs"]["speed"]["steps"]
    (command,) = (step["run"] for step in steps if "abtrace-ab" in step.get("run", ""))
    return command.replace("origin/${{ github.base_ref }}", "HEAD").split()[1:]


@pytest.mark.slow
def test_a_slower_working_tree_is_called_and_fails_the_gate_in_ci(ab, tmp_path):
    repository(tmp_path)
    assert {"--git-a", "--fail-slower"} <= set(command_of_ci())
    result = ab(*command_of_ci(), "--budget-s", "2")
    assert result.returncode == 1, result.stderr
    assert "train: slower" in result.stdout and "results: identical" in result.stdout
    assert "launches of 3 processes" in result.stderr
    (folder,) = tmp_path.glob("runs/ab/*/*")
    record = read_comparison(folder)
    judged = record.comparison
    again = judge_comparison(judged.experiment, judged.hypothesis, record.timings, judged.memory, judged.numerics)
    assert again == judged
    assert judged.declared_effect.ratio > 1.3
    assert list(record.timings) == ["load", "forward", "backward", "optimizer", "train"]
    assert list(record.changed) == ["revision"] and record.changed["revision"][1] == "working tree"
    assert judged.numerics.measured is Agreement.identical
    assert "A step has 4 samples." in record.notes  # others may be told of a busy machine
    for arm in ("baseline", "variant"):
        assert run_record.read(folder / arm).stages.keys() == {"train"}
        assert all((folder / path).is_file() for path in record.arms[arm].traces.values())
    assert {"baseline.output.txt", "variant.output.txt", "twin.output.txt", "report.html"} <= {
        file.name for file in folder.iterdir()
    }
    (entry,) = read_ladder(tmp_path / "runs").effects
    assert entry.baseline is not None and entry.verdict is Verdict.slower
    listed = subprocess.run(["git", "worktree", "list"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert listed.stdout.count("\n") == 1, "the worktree is removed"


def shown(difference: tuple[float, float] | None, *samples: int | None, page_faults: float = 0.0) -> Measured:
    """A measurement of arms with so many samples in a step; the answers of baseline and twin differ by `difference`."""
    output = ArmOutput(0, {}, {}, {}, {}, page_faults_per_step=page_faults)
    arms = {
        arm: ArmResult(Ready(1.0, ENVIRONMENT, {"train": 1}, count), {}, output)
        for arm, count in zip(("baseline", "variant"), samples, strict=True)
    }
    return Measured({}, arms, ENVIRONMENT, None, difference, None, 0.0, 0.0)


def test_what_the_figures_mean_is_said():
    says = partial(remarks, keeps_heap=False)
    assert says(shown((0.0, 0.0), 4, 4)) == ["A step has 4 samples."]
    assert says(shown((0.0, 0.0), 4, 8)) == ["A step has 4 samples in the baseline and 8 in the variant."]
    assert says(shown((0.0, 0.0), None, None)) == ["The samples in a step are not known: times are per step."]
    assert says(shown(None, 4, 4))[1] == "There are no parameters of an optimizer: the answers are not compared."
    assert says(shown((1.0, 0.5), 4, 4))[1].startswith("The script is not reproducible: from one seed, the baseline")
    many = shown((0.0, 0.0), 4, 4, page_faults=1900.4)
    assert says(many)[1].startswith("A step has 1,900 and 1,900 page faults: its memory is returned to the system")
    assert len(remarks(many, keeps_heap=True)) == 1


# --- what is refused, and what fails ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.py"], "error: nothing.py: there is no such script in "),
        (["python train.py"], "error: python: there is no such script in "),
        (["torchrun --standalone no.py"], "error: torchrun --standalone no.py: none of its words is a script in "),
        (["torchrun"], "error: A: 'torchrun' names no script"),
        (["-m"], "the following arguments are required: A"),
        (["'"], "error: A: ': No closing quotation"),
        (["train.py", "--env-b", "X"], "argument --env-b: 'X' is no NAME=VALUE"),
        (["train.py", "--python-b", "/nothing"], "error: --python-b: /nothing: there is no such program"),
        (["train.py", "--git-a", "HEAD"], "error: --git-a: fatal: not a git repository"),
        (["train.py", "--budget-s", "0"], "argument --budget-s: '0' is no number of seconds above 0"),
        (["train.py", "--fail-slower", "x%"], "argument --fail-slower: 'x%' is no percentage above 0, such as 3%"),
        (["train.py", "--samples", "0"], "argument --samples: '0' is no number from 1 upwards"),
        (["train.py", "--sample", "1"], "unrecognized arguments: --sample 1; did you mean '--samples'?"),
    ],
)
def test_a_mistake_gets_one_line(ab, tmp_path, arguments, message):
    (tmp_path / "train.py").write_text(LOOP)
    result = ab(*arguments, GIT_CEILING_DIRECTORIES=str(tmp_path.parent))
    assert result.returncode in (1, 2)
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_revision_that_is_not_there_gets_one_line(ab, tmp_path):
    repository(tmp_path)
    result = ab("train.py", "--git-a", "nothing")
    assert (result.returncode, result.stderr) == (
        1,
        "error: --git-a: there is no revision nothing in this repository\n",
    )


def test_a_baseline_that_fails_shows_what_it_printed_last(ab, tmp_path):
    (tmp_path / "train.py").write_text("print('reading data')\n1 / 0\n")
    result = ab("train.py")
    assert result.returncode == 1
    first, second, *printed = errors(result)
    assert first.endswith("nothing to compare with: ZeroDivisionError: division by zero")
    assert second.startswith("the last lines of runs/ab/train.py/")
    assert printed[-1] == "  ZeroDivisionError: division by zero" and "  reading data" in printed


@pytest.mark.slow
def test_a_variant_that_fails_is_a_result_and_no_success(ab, tmp_path):
    (tmp_path / "train.py").write_text(LOOP.replace("while True", "while int(sys.argv[1])") + "raise ValueError('odd')")
    result = ab("train.py 1", "train.py 0", "--json")
    assert result.returncode == 1
    assert "  ValueError: odd" in result.stderr.splitlines()
    printed = json.loads(result.stdout)["comparison"]
    assert (printed["verdict"], printed["reason"]) == ("failed", "ValueError: odd")
    (folder,) = tmp_path.glob("runs/ab/*/*")
    assert read_comparison(folder).comparison.verdict is Verdict.failed


@pytest.mark.slow
def test_both_arms_with_one_tree_are_refused(ab, tmp_path):
    repository(tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "helper.py").rename(tmp_path / "src" / "helper.py")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "as if it were installed editable")
    refused = ab("train.py", "--git-a", "HEAD", PYTHONPATH=f"{ROOT}:{tmp_path / 'src'}")
    assert refused.returncode == 1
    assert f"it loaded {tmp_path / 'src' / 'helper.py'} (1 files of the other arm's tree)" in refused.stderr
    assert "set PYTHONPATH to where it lies in the tree" in refused.stderr


def environment_in(folder: Path) -> Path:
    """The python of an environment in `folder` that has the packages of this one."""
    venv.create(folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return folder / "bin" / "python"


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["src", "flat"])
def test_a_package_that_is_installed_editable_is_refused_or_loaded_from_both_trees(ab, tmp_path, layout):
    root = tmp_path / "repository"
    package = root / "src" / "helper" if layout == "src" else root / "helper"
    package.mkdir(parents=True)
    build = "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n"
    (root / "pyproject.toml").write_text(f"{build}[project]\nname = 'helper'\nversion = '1'\n")
    (root / "scripts").mkdir()
    (root / "scripts" / "train.py").write_text(SPINNING)
    (package / "__init__.py").write_text("SPIN_S = 1e-3\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "x")
    (package / "__init__.py").write_text("SPIN_S = 3e-3\n")
    python = environment_in(tmp_path / "venv")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps"]
    subprocess.run([*install, "--no-build-isolation", "-e", str(root)], check=True, capture_output=True)
    command = (str(python), "-m", "profiling", "ab", "scripts/train.py", "--git-a", "HEAD", "--budget-s", "1")
    refused = ab(command=command, cwd=root)
    assert refused.returncode == 1
    assert f"it loaded {package / '__init__.py'} (1 files of the other arm's tree)" in refused.stderr
    where = "src" if layout == "src" else "."
    measured = ab(command=command, cwd=root, PYTHONPATH=f"{where}:{ROOT}")
    assert measured.returncode == 0, measured.stderr
    assert "train: slower" in measured.stdout


@pytest.mark.slow
def test_a_variable_of_one_arm_is_what_differs(ab, tmp_path):
    (tmp_path / "train.py").write_text(SPINNING)
    (tmp_path / "helper.py").write_text("import os\nSPIN_S = float(os.environ.get('SPIN_S', 1e-3))\n")
    result = ab("train.py", "--env-b", "SPIN_S=3e-3", "--budget-s", "1", "--json")
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout)
    assert printed["changed"] == {"environment.SPIN_S": [None, "3e-3"]}
    assert printed["comparison"]["verdict"] == "slower"


def test_a_folder_with_names_of_ours_runs_its_own(ab, tmp_path):
    for name in ("profiling", "models", "train"):
        (tmp_path / f"{name}.py").write_text("OURS = False\n")
    text = "import models, profiling, train\nassert not (models.OURS or profiling.OURS or train.OURS)\n"
    (tmp_path / "script.py").write_text(f"{text}print('the own ones')\nraise SystemExit(3)\n")
    command = (sys.executable, "-P", "-c", "from profiling.__main__ import ab; raise SystemExit(ab())", "script.py")
    result = ab(command=command)
    assert result.returncode == 1
    assert "  the own ones" in result.stderr.splitlines(), "as the installed command: the folder is not searched"


@pytest.mark.skipif(not has_glibc(), reason="only glibc's heap can be kept")
def test_a_kept_heap_is_not_faulted_in_again(ab, tmp_path):
    (tmp_path / "script.py").write_text(
        "import resource\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "b'x' * 2**26\n"
        "before = faults()\n"
        "for _ in range(3): b'x' * 2**26\n"
        "print('often' if faults() - before > 1000 else 'hardly')\n"
        "raise SystemExit(3)\n"
    )
    assert "  often" in ab("script.py").stderr.splitlines()
    assert "  hardly" in ab("script.py", "--keep-heap").stderr.splitlines()


@pytest.mark.slow
def test_arms_with_other_steps_are_refused(ab, tmp_path):
    (tmp_path / "train.py").write_text(LOOP)
    (tmp_path / "infer.py").write_text("import profiling, torch\nwhile True: profiling.step()\n")
    result = ab("train.py", "infer.py")
    assert result.returncode == 1
    assert errors(result)[0] == (
        "error: a step ends with an optimizer in one arm only; end it with profiling.step() in both"
    )


@pytest.mark.slow
def test_an_interrupt_ends_all_processes(tmp_path):
    (tmp_path / "train.py").write_text(LOOP)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "profiling", "ab", "train.py"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as run:
        deadline = time.monotonic() + 60
        while len(arms := psutil.Process(run.pid).children(recursive=True)) < 2:
            assert time.monotonic() < deadline and run.poll() is None
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        _, error = run.communicate(timeout=60)
    assert run.returncode == 130
    assert error.splitlines()[-1].startswith("interrupted")
    assert psutil.wait_procs(arms, timeout=20)[1] == []


# --- the gate ---------------------------------------------------------------------------------------------------------


def compared(ratio: float, scatter: float):
    """A comparison of 12 launches with this effect; launches scatter by that share."""
    noise = [1 + scatter * ((i * 5) % 12 - 5.5) / 5.5 for i in range(12)]
    one = [1e-3] * 12
    timings = PhaseTimings(one, [1e-3 * ratio * factor for factor in noise], [1e-3 * f for f in noise[::-1]])
    return judge_comparison("x", Hypothesis("c", "b", "train", Expectation()), {"train": timings})


@pytest.mark.parametrize(
    ("ratio", "scatter", "status", "strict"),
    [
        (1.10, 0.001, 1, 1),
        (1.02, 0.001, 0, 0),
        (1.00, 0.001, 0, 0),
        (0.90, 0.001, 0, 0),
        (1.02, 0.10, 0, UNDECIDED),
    ],
)
def test_the_gate_fails_for_a_slowdown_that_is_called(ratio, scatter, status, strict):
    comparison = compared(ratio, scatter)
    assert gate(comparison, 0.03, strict=False) == status
    assert gate(comparison, 0.03, strict=True) == strict


def test_the_gate_cannot_decide_without_timings():
    comparison = msgspec.structs.replace(compared(1.0, 0.001), phases=())
    assert (gate(comparison, 0.03, strict=False), gate(comparison, 0.03, strict=True)) == (0, UNDECIDED)
