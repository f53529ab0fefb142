"""What do the hooks of a script's arm add to a short step? `python -m tests.bench.bench_hooks`.

One loop trains the same layers with and without the hooks (`profiling.ab.script_steps`), in alternating blocks; a block
counts with its fastest step, because everything else on the machine only adds time. Both ways have a module and an
optimizer of their own: to add and remove hooks between blocks would make the interpreter specialize its code anew.
"""

import random
import time

import torch
from torch import nn

from profiling.ab.script_steps import WARMUP_STEPS, Recorder
from profiling.verdict.stats import paired_effect
from tests.bench.targets import out_argument, ratio, report

BLOCKS, STEPS = 300, 30


def main() -> None:
    """Measure, print, write."""
    out = out_argument(__doc__)
    torch.set_num_threads(1)  # what is measured is Python
    layers = [nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)]
    images, labels = torch.randn(160, 256), torch.randint(0, 10, (160,))

    class Hooked(nn.Sequential):
        """The class of the module whose calls are timed."""

    class Plain(nn.Sequential):
        """The class of the other."""

    def made(kind: type[nn.Sequential]) -> tuple[nn.Module, torch.optim.Optimizer]:
        model = kind(*layers)
        return model, torch.optim.SGD(model.parameters(), lr=0.01)

    def fastest_s(model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
        seconds = []
        for _ in range(STEPS):
            start = time.perf_counter()
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    recorder = Recorder(None, lambda: recorder.start(0))
    hooked, plain = made(Hooked), made(Plain)
    hooked[1].register_step_pre_hook(recorder.before_optimizer)
    hooked[1].register_step_post_hook(recorder.after_optimizer)
    assert STEPS > WARMUP_STEPS
    fastest_s(*hooked)
    assert recorder.module is hooked[0]
    with_hooks_s, without_s = [], []
    for _ in range(BLOCKS):
        pair = [(hooked, with_hooks_s), (plain, without_s)]
        for contender, seconds in random.sample(pair, 2):
            seconds.append(fastest_s(*contender))
        recorder.start(0)
    effect = paired_effect(without_s, with_hooks_s)
    findings = [ratio(f"a step of {1e3 * min(without_s):.2f} ms, with hooks / without", effect, at_most=1.01)]
    report("hooks of a script's arm", findings, {"with_s": with_hooks_s, "without_s": without_s}, out)


if __name__ == "__main__":
    main()
