"""The arm that runs a user's script, in the user's interpreter: standard library, and torch once the script has it.

    python script_arm.py ADDRESS TASK        # path of its parent's socket; JSON that says what to run

The script runs unchanged, and is held at the end of a step until its parent asks for more: one JSON object a line. A
step ends when an optimizer has stepped, or when the script calls `profiling.step()`. Nothing is imported before the
script imports it, so that environment variables which the script sets are still in time. Python 3.9 and torch 2.6 do.
Of `torchrun`, every rank runs this file, and talks to the parent by itself.
"""

from __future__ import annotations

import ctypes
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import runpy
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from profiling.ab import arm_tools, script_steps
else:

    def _neighbor(name: str) -> ModuleType:
        """Load a file beside this one under a name that no module of the user has."""
        spec = importlib.util.spec_from_file_location(f"abtrace_{name}", Path(__file__).with_name(f"{name}.py"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    arm_tools, script_steps = _neighbor("arm_tools"), _neighbor("script_steps")

MIN_STEPS = 2  # of a block that the script's end cuts short
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # <linux/prctl.h>
MODULE_NAME = "abtrace_arm"  # where `profiling.step` and `profiling.phase` look for the arm, see profiling/marks.py


class ScriptWorker:
    """Runs the script, and answers requests while it is held."""

    def __init__(self, address: str, task: dict[str, Any]) -> None:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
        self._requests, self._replies = connection.makefile("r"), connection.makefile("w")
        self._task = task
        self.recorder = script_steps.Recorder(task["samples"], self._end_turn)
        os.register_at_fork(after_in_child=self.recorder.stop)
        self._started = time.perf_counter()
        self._heap = arm_tools.randomize_heap()
        self._is_ready = False
        self._page_faults = 0
        self._profiler: Any = None
        self._traced: list[script_steps.ScriptStep] = []
        self._traced_steps = 0  # with that of the profiler's warm-up
        self._probe: arm_tools.Probe | None = None

    # --- turns

    def _end_turn(self) -> None:
        if not self._is_ready:
            self._is_ready = True
            self._hold(self._describe())
        elif self._profiler is None:
            self._hold(self._reply())
        else:
            self._traced += self.recorder.steps()
            self._profiler.step()
            if len(self._traced) < self._traced_steps:
                self.recorder.start(1)
                return
            self._profiler.stop()
            self._profiler = None
            self._hold({"traced": self._traced[1:]})

    def _hold(self, reply: dict[str, Any]) -> None:
        """Answer, and wait at the end of a step until there is something to run."""
        self._send(reply)
        while True:
            line = self._requests.readline()
            if not line:  # the parent has gone
                os._exit(1)
            request = json.loads(line)
            if "probe" in request:
                self._probe = self._probe or arm_tools.Probe()
                self._send({"probe_s": self._probe.time_s()})
            elif "answer" in request:
                self._send({"tensors": self._write_answer(Path(request["answer"]))})
            else:
                break
        if "traced" in request:
            self._start_trace(request["traced"], request["path"])
        else:
            arm_tools.reset_peaks()
            self._page_faults = arm_tools.page_faults()
            self.recorder.start(max(request["steps"], self._workers()))

    def _send(self, reply: dict[str, Any]) -> None:
        try:
            self._replies.write(json.dumps(reply) + "\n")
            self._replies.flush()
        except ConnectionError:  # the parent has gone
            os._exit(1)

    def _reply(self) -> dict[str, Any]:
        """What the block has shown."""
        page_faults = arm_tools.page_faults() - self._page_faults
        steps = self.recorder.steps()
        timings = self.recorder.timings(steps, self._workers())
        return {**timings, "steps": steps, "page_faults": page_faults, **arm_tools.peaks_bytes()}

    def _describe(self) -> dict[str, Any]:
        """What the parent must know of an arm that has warmed up."""
        recorder = self.recorder
        torch: Any = sys.modules.get("torch")
        parameters = recorder.parameters()
        device = parameters[0].device if parameters else None
        return {
            "rank": int(os.environ["RANK"]) if self._task["role"] == "rank" else 0,
            "ranks": int(os.environ["WORLD_SIZE"]) if self._task["role"] == "rank" else 1,
            "pid": os.getpid(),
            "warmup_s": time.perf_counter() - self._started,
            "stage": recorder.stage,
            "samples": recorder.samples,
            "module": type(recorder.module).__name__ if recorder.module is not None else None,
            "device": device.type if device is not None else "cpu",
            "device_name": torch.cuda.get_device_name(device) if device is not None and device.type == "cuda" else "",
            "precision": str(parameters[0].dtype).replace("torch.", "") if parameters else "",
            "threads": torch.get_num_threads() if torch is not None else 1,
            "versions": {"python": sys.version.split()[0], **({"torch": str(torch.__version__)} if torch else {})},
            "foreign": _modules_below(self._task["foreign"]) if self._task["foreign"] else [],
        }

    def _workers(self) -> int:
        """Child processes, which are mostly those of a DataLoader."""
        multiprocessing = sys.modules.get("multiprocessing")
        return len(multiprocessing.active_children()) if multiprocessing is not None else 0

    def _write_answer(self, path: Path) -> list[Any]:
        """Write the parameters of all optimizers as numbers; return [name, kind of number, shape] of each."""
        import torch

        index = []
        with path.open("wb") as file:
            for number, optimizer in enumerate(self.recorder.optimizers):
                parameters = [p for group in optimizer.param_groups for p in group["params"]]
                for place, parameter in enumerate(parameters):
                    kind = torch.float64 if parameter.dtype == torch.float64 else torch.float32
                    local = parameter.to_local() if hasattr(parameter, "to_local") else parameter  # of a DTensor
                    values = local.detach().to("cpu", kind).contiguous()
                    size = values.numel() * values.element_size()
                    file.write((ctypes.c_char * size).from_address(values.data_ptr()) if size else b"")
                    index.append([f"optimizer{number}.{place}", str(kind).replace("torch.", ""), list(values.shape)])
        return index

    def _start_trace(self, steps: int, path: str | None) -> None:
        """Trace so many steps, after one in which the profiler warms up; without a path, only run them."""
        self._traced, self._traced_steps = [], steps + 1
        if path is None:
            self.recorder.start(self._traced_steps)
            return
        from torch.profiler import ProfilerActivity, profile, schedule

        activities = [ProfilerActivity.CPU]
        if self.recorder.clock.device is not None:
            activities.append(getattr(ProfilerActivity, self.recorder.clock.device.type.upper()))
        self._profiler = profile(
            activities=activities,
            schedule=schedule(wait=0, warmup=1, active=steps, repeat=1),
            on_trace_ready=lambda profiler: profiler.export_chrome_trace(path),
            record_shapes=True,
            profile_memory=True,
        )
        self._profiler.start()
        self.recorder.start(1)

    # --- the script, from start to end

    def run(self) -> int:
        """Run the script; return the exit status of this process."""
        status = 0
        try:
            self._run_script()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)  # noqa: T201
            if status:
                self._send({"failure": f"the script ended with exit status {status}"})
        except BaseException as error:
            with suppress(Exception):  # what a script may have done to its output: closed it
                _print_traceback(error)
            lines = str(error).strip().splitlines()
            self._send({"failure": f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__})
            status = 1
        if not status:
            if self._is_ready and self._profiler is None and self.recorder.steps_of_turn >= MIN_STEPS:
                self._send(self._reply())
            self._send({"ended": self.recorder.steps_so_far})
        return status

    def _run_script(self) -> None:
        if sys.path and Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
            del sys.path[0]
        name, *arguments = self._task["command"]
        if name == "-m":
            sys.path.insert(0, str(Path.cwd()))
            sys.argv = arguments
            runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(name).resolve().parent))
            sys.argv = [name, *arguments]
            runpy.run_path(name, run_name="__main__")


def _print_traceback(error: BaseException) -> None:
    """Print an error as Python does, without the frames of this file."""
    sys.stdout.flush()
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, runpy.run_path.__code__.co_filename):
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)


def _modules_below(folder: str) -> list[str]:
    """Files of loaded modules in a folder, without packages that are installed in an environment there."""
    root = os.path.realpath(folder) + os.sep
    loaded = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    files = {os.path.realpath(file) for file in loaded if file}
    return sorted(file for file in files if file.startswith(root) and "site-packages" not in file)


# --- imports of the script --------------------------------------------------------------------------------------------


class AfterImport(importlib.abc.MetaPathFinder):
    """Acts on a module as soon as the script has imported it; name -> what to do then."""

    def __init__(self, actions: dict[str, Callable[[Any], None]]) -> None:
        self._actions = actions

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """Find a module as if this finder were not there."""
        action = self._actions.pop(name, None)
        spec = importlib.util.find_spec(name) if action is not None else None
        if action is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            execute(module)
            action(module)

        spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]
        return spec


class ProfilingModule(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Provides `profiling.step` and `profiling.phase` in an interpreter that has no module of that name."""

    def __init__(self, recorder: script_steps.Recorder) -> None:
        self._recorder = recorder

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """Find `profiling`; asked last."""
        return importlib.machinery.ModuleSpec(name, self) if name == "profiling" else None

    def exec_module(self, module: Any) -> None:
        """Fill the module."""
        module.step, module.phase = self._recorder.step, self._recorder.phase


def _tie_processes() -> None:
    """Let Linux kill this process with its parent, also where no step ever ends, and give it the orphans of its own.

    So the parent finds all processes that a script has started as descendants of this one, daemons too.
    """
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None).prctl
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        prctl(PR_SET_CHILD_SUBREAPER, 1)


def _run_ranks(address: str, task: dict[str, Any]) -> int:
    """Be torchrun: it starts this file as every rank. Arms must not meet at one port, so each finds a free one."""
    from torch.distributed.run import get_args_parser, run

    options = get_args_parser().parse_args(task["command"])
    if options.nnodes not in ("1", "1:1"):
        sys.exit(f"--nnodes {options.nnodes}: an A/B runs on one machine")
    if options.no_python:
        sys.exit("--no-python: the ranks of an A/B are Python scripts")
    command = [*(["-m"] if options.module else []), options.training_script, *options.training_script_args]
    options.standalone, options.module = True, False
    options.training_script = __file__
    options.training_script_args = [address, json.dumps({**task, "role": "rank", "command": command})]
    run(options)  # type: ignore[no-untyped-call]
    return 0


def main() -> int:
    """Run the script, or be torchrun."""
    _tie_processes()
    address, task = sys.argv[1], json.loads(sys.argv[2])
    if task["role"] == "torchrun":
        return _run_ranks(address, task)
    worker = ScriptWorker(address, task)
    recorder = worker.recorder
    marks = ModuleType(MODULE_NAME)
    marks.step, marks.phase = recorder.step, recorder.phase  # type: ignore[attr-defined]
    sys.modules[MODULE_NAME] = marks
    seed = task["seed"]

    def add_hooks(optimizer: Any) -> None:
        optimizer.register_optimizer_step_pre_hook(recorder.before_optimizer)
        optimizer.register_optimizer_step_post_hook(recorder.after_optimizer)

    actions: dict[str, Callable[[Any], None]] = {
        "numpy": lambda numpy: numpy.random.seed(seed),
        "torch": lambda torch: torch.manual_seed(seed),
        "torch.optim.optimizer": add_hooks,
        "torch.autograd.profiler": lambda profiler: recorder.time_regions(profiler.record_function),
    }
    random.seed(seed)
    sys.meta_path.insert(0, AfterImport(actions))
    sys.meta_path.append(ProfilingModule(recorder))
    return worker.run()


if __name__ == "__main__":
    sys.exit(main())
