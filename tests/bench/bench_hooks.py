"""What do the hooks of a script's arm add to a short step? `python -m tests.bench.bench_hooks`.

One loop trains the same layers with and without the hooks (`profiling.ab.script_steps`), in alternating blocks; a block
counts with its fastest step, because everything else on the machine only adds time. Both ways have a module and an
optimizer of their own: to add and remove hooks between blocks would make the interpreter specialize its code anew. Two
of equal code differ by up to half a percent for as long as they live, by where they lie in memory; so there are PAIRS
of them, one after the other, and the interval is over pairs.
"""

import random
import time
from statistics import median

import torch
from torch import nn

from profiling.ab.script_steps import WARMUP_STEPS, Recorder
from profiling.verdict.stats import paired_effect
from tests.bench.targets import out_argument, ratio, report

PAIRS, BLOCKS, STEPS = 12, 30, 30


def main() -> None:
    """Measure, print, write."""
    out = out_argument(__doc__)
    torch.set_num_threads(1)  # what is measured is Python
    layers = [nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)]
    images, labels = torch.randn(160, 256), torch.randint(0, 10, (160,))

    def made(name: str) -> tuple[nn.Module, torch.optim.Optimizer]:
        model: nn.Module = type(name, (nn.Sequential,), {})(*layers)  # the calls of a class are timed
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

    def pair_s() -> tuple[float, float]:
        """Seconds of a step with and without hooks."""
        recorder = Recorder(None, lambda: recorder.start(0))
        hooked, plain = made("Hooked"), made("Plain")
        hooked[1].register_step_pre_hook(recorder.before_optimizer)
        hooked[1].register_step_post_hook(recorder.after_optimizer)
        assert STEPS > WARMUP_STEPS
        fastest_s(*hooked)
        assert recorder.module is hooked[0]
        blocks: dict[str, list[float]] = {"hooked": [], "plain": []}
        for _ in range(BLOCKS):
            for name, contender in random.sample([("hooked", hooked), ("plain", plain)], 2):
                blocks[name].append(fastest_s(*contender))
            recorder.start(0)
        return median(blocks["hooked"]), median(blocks["plain"])

    with_hooks_s, without_s = zip(*(pair_s() for _ in range(PAIRS)), strict=True)
    effect = paired_effect(without_s, with_hooks_s)
    findings = [ratio(f"a step of {1e3 * min(without_s):.2f} ms, with hooks / without", effect, at_most=1.01)]
    report("hooks of a script's arm", findings, {"with_s": with_hooks_s, "without_s": without_s}, out)


if __name__ == "__main__":
    main()
