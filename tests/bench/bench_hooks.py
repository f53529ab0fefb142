"""What do the hooks of a script's arm add to a short step? `python -m tests.bench.bench_hooks`.

One loop trains with and without the hooks (`profiling.ab.script_steps`), in alternating blocks; a block counts with its
fastest step, because everything else on the machine only adds time.
"""

import time
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from profiling.ab.script_steps import WARMUP_STEPS, Recorder
from profiling.verdict.stats import paired_effect
from tests.bench.targets import out_argument, ratio, report

BLOCKS, STEPS = 200, 30
MODULE_HOOKS = ("_forward_pre_hooks", "_forward_hooks")


def main() -> None:
    """Measure, print, write."""
    out = out_argument(__doc__)
    torch.set_num_threads(1)  # what is measured is Python
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    images, labels = torch.randn(64, 256), torch.randint(0, 10, (64,))
    recorder = Recorder(None)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    def after_optimizer(stepped: Any, *_: Any) -> None:
        if recorder.after_optimizer(stepped):
            recorder.end_step(None)

    def fastest_s() -> float:
        seconds = []
        for _ in range(STEPS):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    def attach() -> list[Any]:
        before = register_optimizer_step_pre_hook(recorder.before_optimizer)
        return [before, register_optimizer_step_post_hook(after_optimizer)]

    handles = attach()
    recorder.start_step()
    for _ in range(WARMUP_STEPS + 1):
        step()
    module_hooks = {name: dict(getattr(model, name)) for name in MODULE_HOOKS}
    with_hooks_s, without_s = [], []
    for _ in range(BLOCKS):
        with_hooks_s.append(fastest_s())
        recorder.clear()
        for handle in handles:
            handle.remove()
        for name in MODULE_HOOKS:
            getattr(model, name).clear()
        without_s.append(fastest_s())
        handles = attach()
        for name, hooks in module_hooks.items():
            getattr(model, name).update(hooks)
    effect = paired_effect(without_s, with_hooks_s)
    findings = [ratio(f"a step of {1e3 * min(without_s):.2f} ms, with hooks / without", effect, at_most=1.01)]
    report("hooks of a script's arm", findings, {"with_s": with_hooks_s, "without_s": without_s}, out)


if __name__ == "__main__":
    main()
