"""Are the verdicts of `train.ab` right? `python -m tests.bench.bench_validity [--resume FILE] [--counts 40 40 20]`.

Real comparisons on this machine with a budget of BUDGET_S each: the baseline against itself, and against a variant
whose training steps are longer by a known share (tests/bench/spinning.py). They run one after the other, the three
kinds in turn, so that a change of the machine's load affects all kinds. A variant that is the baseline differs in no
phase: each phase that is called is a false call. With `--resume`, each comparison is appended to
FILE when it ends, and those in FILE are not repeated. `--noise FILE` writes the timings of the A/A comparisons, from
which tests/bench/bench_validity_sim.py draws.
"""

import argparse
import gzip
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec
from hydra import compose, initialize_config_module

from profiling.ab.measure import Measurement
from profiling.verdict.judge import settled
from profiling.verdict.timings import PhaseTimings
from profiling.vocabulary import BASELINE, VARIANT, Verdict
from tests.bench.bench_validity_sim import Noise
from tests.bench.targets import Finding, report
from train.ab.arm_config import ArmConfig
from train.ab.experiment import hypothesis_of, judge
from train.config import cli
from train.config.compose import to_config
from train.config.schema import Config

BUDGET_S = 10.0
KINDS = {"A/A": 0.0, "5 %": 0.05, "3 %": 0.03}  # share of a step that the variant spins
COUNTS = (100, 40, 20)
MODEL = ("model=custom", "model._target_=tests.bench.spinning.SpinningCNN", "profiler=off")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison: its `train` phase, whose ratios are variant / baseline, and the phases that were called."""

    kind: str
    verdict: Verdict
    ratio: float
    low: float
    high: float
    floor: float
    startup_s: float
    waited_s: float
    called: list[str]
    launches: int
    noise: Noise  # the measured timings

    @property
    def is_called(self) -> bool:
        return self.verdict in (Verdict.slower, Verdict.faster)

    @property
    def covers(self) -> bool:
        """Whether the interval contains the true ratio."""
        return self.low <= 1 + KINDS[self.kind] <= self.high


def configured(spin: float) -> Config:
    """The default run with a model that spins for the share `spin` of each training step."""
    with initialize_config_module("configs", version_base="1.3"):
        params = f"+model.params={{spin: {spin}, width: 16, dropout: 0.0}}"
        return to_config(compose("ab", overrides=[*MODEL, params]))


def one(kind: str) -> Result:
    """Measure and judge one comparison."""
    variant = configured(KINDS[kind])
    arms = {BASELINE: ArmConfig(configured(0.0), {}).start, VARIANT: ArmConfig(variant, {}).start}
    with tempfile.TemporaryDirectory() as folder:
        is_settled = partial(settled, hypothesis_of(variant))
        measured = Measurement(
            arms, "train", BUDGET_S, Path(folder), "", lambda done, total: None, settled=is_settled
        ).run()
    if measured.stop is not None:
        raise measured.stop
    phases = judge(variant, measured).phases
    effect = next(e for e in phases if e.phase == "train")
    return Result(
        kind=kind,
        verdict=effect.verdict,
        ratio=effect.ratio,
        low=effect.ratio_low,
        high=effect.ratio_high,
        floor=effect.floor_ratio,
        startup_s=measured.startup_s,
        waited_s=measured.waited_s,
        called=[e.phase for e in phases if e.verdict in (Verdict.slower, Verdict.faster)],
        launches=measured.launches,
        noise=Noise({phase: rounded(timings) for phase, timings in measured.timings.items()}),
    )


def rounded(timings: PhaseTimings) -> PhaseTimings:
    """The timings rounded to five digits, which is finer than their noise."""
    baseline, variant, twin = ([float(f"{seconds:.5g}") for seconds in of_arm] for of_arm in timings.arms)
    probe_s = [float(f"{seconds:.3g}") for seconds in timings.probe_s]
    return PhaseTimings(baseline, variant, twin, timings.rounds, probe_s, timings.cores_apart)


def measure(counts: Mapping[str, int], log: Path | None) -> list[Result]:
    """Run all comparisons that are not in `log` yet, the kinds in turn; return them with those of `log`."""
    results: list[Result] = []
    if log is not None and log.exists():
        results = [msgspec.json.decode(line, type=Result) for line in log.read_bytes().splitlines()]
    for number in range(max(counts.values())):
        for kind, count in counts.items():
            if number < count and sum(result.kind == kind for result in results) <= number:
                results.append(one(kind))
                last = results[-1]
                interval = f"{last.ratio:.4f} ({last.low:.4f} to {last.high:.4f}), floor {last.floor:.4f}"
                print(f"{kind} {interval}: {last.verdict}; called: {', '.join(last.called) or 'nothing'}")
                sys.stdout.flush()
                if log is not None:
                    with log.open("ab") as file:
                        file.write(msgspec.json.encode(last) + b"\n")
    return results


def findings(results: list[Result]) -> list[Finding]:
    """Shares of the results with their targets, which are chosen for 40 comparisons of a kind, and 100 A/A."""
    of = {kind: [result for result in results if result.kind == kind] for kind in KINDS}

    def share(values: Sequence[bool]) -> float:
        return sum(values) / len(values) if values else math.nan

    return [
        Finding(name="A/A: called an effect", measured=share([r.is_called for r in of["A/A"]]), at_most=2 / 40),
        Finding(
            name="A/A: called an effect in any phase", measured=share([bool(r.called) for r in of["A/A"]]), at_most=0.1
        ),
        Finding(name="A/A: interval covers 1", measured=share([r.covers for r in of["A/A"]])),
        Finding(
            name="5 %: called slower",
            measured=share([r.verdict is Verdict.slower for r in of["5 %"]]),
            at_least=36 / 40,
        ),
        Finding(name="5 %: interval covers 1.05", measured=share([r.covers for r in of["5 %"]]), at_least=36 / 40),
        Finding(name="3 %: called slower", measured=share([r.verdict is Verdict.slower for r in of["3 %"]])),
        Finding(name="3 %: interval covers 1.03", measured=share([r.covers for r in of["3 %"]])),
    ]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    parser.add_argument("--resume", type=Path, help="append each comparison to this file, and skip what it holds")
    parser.add_argument("--counts", type=int, nargs=3, default=COUNTS, help="comparisons of A/A, 5 %%, 3 %%")
    parser.add_argument("--noise", type=Path, help="write the timings of the A/A comparisons to this file (.json.gz)")
    args = parser.parse_args()
    cli.register()
    counts = dict(zip(KINDS, args.counts, strict=True))
    results = measure(counts, args.resume)
    if args.noise:
        noise = msgspec.json.encode([result.noise for result in results if result.kind == "A/A"])
        args.noise.write_bytes(gzip.compress(noise, mtime=0))
    title = f"Verdicts of {len(results)} real comparisons of {BUDGET_S:.0f} s (shares)"
    report(
        title,
        findings(results),
        {"comparisons": [msgspec.structs.replace(result, noise=None) for result in results]},
        args.out,
    )


if __name__ == "__main__":
    main()
