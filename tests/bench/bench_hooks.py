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


def main() -> None:
    """Measure, print, write."""
    out = out_argument(__doc__)
    torch.set_num_threads(1)  # what is measured is Python
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    images, labels = torch.randn(64, 256), torch.randint(0, 10, (64,))
    recorder = Recorder(None, lambda: recorder.start(0))

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    def fastest_s() -> float:
        seconds = []
        for _ in range(STEPS):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    def attach() -> list[Any]:
        before = register_optimizer_step_pre_hook(recorder.before_optimizer)
        return [before, register_optimizer_step_post_hook(recorder.after_optimizer)]

    handles = attach()
    for _ in range(WARMUP_STEPS + 1):
        step()
    timed_call = type(model).__call__
    with_hooks_s, without_s = [], []
    for _ in range(BLOCKS):
        with_hooks_s.append(fastest_s())
        recorder.start(0)
        for handle in handles:
            handle.remove()
        type(model).__call__ = nn.Module.__call__
        without_s.append(fastest_s())
        handles = attach()
        type(model).__call__ = timed_call
    effect = paired_effect(without_s, with_hooks_s)
    findings = [ratio(f"a step of {1e3 * min(without_s):.2f} ms, with hooks / without", effect, at_most=1.01)]
    report("hooks of a script's arm", findings, {"with_s": with_hooks_s, "without_s": without_s}, out)


if __name__ == "__main__":
    main()
