"""The arm that runs a user's script, in the user's interpreter: standard library, and torch once the script has it.

    python script_arm.py REQUESTS REPLIES        # two file descriptors; the first request says what to run

The script runs unchanged, and is held at the end of a step until its parent asks for more: one JSON object a line. A
step ends when an optimizer has stepped, or when the script calls `profiling.step()`. Nothing is imported before the
script imports it, so that environment variables which the script sets are still in time. Python 3.9 and torch 2.6 do.
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
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
MODULE_NAME = "abtrace_arm"  # where `profiling.step` and `profiling.phase` look for the arm, see profiling/marks.py


class ScriptWorker:
    """Runs the script, and answers requests while it is held."""

    def __init__(self, requests: int, replies: int) -> None:
        self._requests = open(requests, encoding="utf-8")  # noqa: SIM115
        self._replies = open(replies, "w", encoding="utf-8")  # noqa: SIM115
        self.task: dict[str, Any] = json.loads(self._requests.readline())
        self.recorder = script_steps.Recorder(self.task["samples"])
        self._pid = os.getpid()
        self._started = time.perf_counter()
        self._heap = arm_tools.randomize_heap()
        self._ready = False
        self._asked = 0  # steps of the present block
        self._profiler: Any = None
        self._probe: arm_tools.Probe | None = None

    # --- what the script calls, by hooks or by name

    def after_optimizer(self, optimizer: Any, *_: Any) -> None:
        """Hook: an optimizer has stepped."""
        if os.getpid() == self._pid and self.recorder.after_optimizer(optimizer):
            self._end_step(None)

    def step(self, samples: int | None = None) -> None:
        """The script says that a step of `samples` samples has ended."""
        if os.getpid() == self._pid:
            self.recorder.mark_step()
            self._end_step(samples)

    def phase(self, name: str) -> Any:
        """A context manager around a phase of the script."""
        return self.recorder.phase(name)

    # --- turns

    def _end_step(self, samples: int | None) -> None:
        self.recorder.end_step(samples)
        if self._profiler is not None:
            self._profiler.step()
            self.recorder.start_step()
        if not self._ready and self.recorder.calls >= script_steps.WARMUP_STEPS:
            self._ready = True
            self._hold(self._describe())
        elif self._ready and len(self.recorder.steps) >= self._asked:
            self._hold(self._reply())

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
        self._asked = max(request["steps"], self._workers())
        if "trace" in request:
            self._start_trace(Path(request["trace"]))
        else:
            arm_tools.reset_resident_peak()
        self.recorder.clear()

    def _send(self, reply: dict[str, Any]) -> None:
        try:
            self._replies.write(json.dumps(reply) + "\n")
            self._replies.flush()
        except BrokenPipeError:  # the parent has gone
            os._exit(1)

    def _reply(self) -> dict[str, Any]:
        """What the block or the traced window has shown."""
        recorder = self.recorder
        recorder.clock.synchronize()
        steps = [[step.samples or 1, recorder.clock.seconds(step.start, step.end), recorder.phases(step)]
                 for step in recorder.steps]  # fmt: skip
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler = None
            return {"traced": steps[1:]}
        return {**recorder.timings(self._workers()), "steps": steps, "resident_bytes": arm_tools.resident_peak_bytes()}

    def _describe(self) -> dict[str, Any]:
        """What the parent must know of an arm that has warmed up."""
        recorder = self.recorder
        recorder.clock.synchronize()
        torch: Any = sys.modules.get("torch")
        parameters = recorder.parameters()
        device = parameters[0].device if parameters else None
        return {
            "warmup_s": time.perf_counter() - self._started,
            "stage": recorder.stage,
            "samples": next((step.samples for step in reversed(recorder.steps) if step.samples), None),
            "module": type(recorder.module).__name__ if recorder.module is not None else None,
            "device": device.type if device is not None else "cpu",
            "device_name": torch.cuda.get_device_name(device) if device is not None and device.type == "cuda" else "",
            "precision": str(parameters[0].dtype).replace("torch.", "") if parameters else "",
            "threads": torch.get_num_threads() if torch is not None else 1,
            "versions": {"python": sys.version.split()[0], **({"torch": str(torch.__version__)} if torch else {})},
            "foreign": _modules_below(self.task["foreign"]) if self.task["foreign"] else [],
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
                    values = parameter.detach().to("cpu", kind).contiguous()
                    size = values.numel() * values.element_size()
                    file.write((ctypes.c_char * size).from_address(values.data_ptr()) if size else b"")
                    index.append([f"optimizer{number}.{place}", str(kind).replace("torch.", ""), list(values.shape)])
        return index

    def _start_trace(self, path: Path) -> None:
        from torch.profiler import ProfilerActivity, profile, schedule

        activities = [ProfilerActivity.CPU]
        if self.recorder.clock.device is not None:
            activities.append(getattr(ProfilerActivity, self.recorder.clock.device.type.upper()))
        self._asked += 1
        self._profiler = profile(
            activities=activities,
            schedule=schedule(wait=0, warmup=1, active=self._asked - 1, repeat=1),
            on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(path)),
            record_shapes=True,
            profile_memory=True,
        )
        self._profiler.start()

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
            _print_traceback(error)
            lines = str(error).strip().splitlines()
            self._send({"failure": f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__})
            status = 1
        if not status:
            if self._ready and self._profiler is None and len(self.recorder.steps) >= MIN_STEPS:
                self._send(self._reply())
            self._send({"ended": self.recorder.calls})
        return status

    def _run_script(self) -> None:
        if sys.path and Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
            del sys.path[0]
        name, arguments = self.task["command"][0], self.task["command"][1:]
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
    with suppress(Exception):  # what a script may have done to its standard output
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

    def __init__(self, worker: ScriptWorker) -> None:
        self._worker = worker

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """Find `profiling`; asked last."""
        return importlib.machinery.ModuleSpec(name, self) if name == "profiling" else None

    def exec_module(self, module: Any) -> None:
        """Fill the module."""
        module.step, module.phase = self._worker.step, self._worker.phase


def _end_with_parent() -> None:
    """Let Linux kill this process when its parent has gone, also where the script never comes to the end of a step."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> int:
    """Run the script of the first request."""
    _end_with_parent()
    worker = ScriptWorker(*map(int, sys.argv[1:3]))
    marks = ModuleType(MODULE_NAME)
    marks.step, marks.phase = worker.step, worker.phase  # type: ignore[attr-defined]
    sys.modules[MODULE_NAME] = marks
    seed = worker.task["seed"]

    def add_hooks(optimizer: Any) -> None:
        optimizer.register_optimizer_step_pre_hook(worker.recorder.before_optimizer)
        optimizer.register_optimizer_step_post_hook(worker.after_optimizer)

    actions: dict[str, Callable[[Any], None]] = {
        "numpy": lambda numpy: numpy.random.seed(seed),
        "torch": lambda torch: torch.manual_seed(seed),
        "torch.optim.optimizer": add_hooks,
    }
    random.seed(seed)
    sys.meta_path.insert(0, AfterImport(actions))
    sys.meta_path.append(ProfilingModule(worker))
    return worker.run()


if __name__ == "__main__":
    sys.exit(main())
