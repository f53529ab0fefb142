"""python -m train.ab: measure one deviation from the baseline against it.

    python -m train.ab +experiment=nograd_off                      # one switch
    python -m train.ab +experiment=nograd_off model=resnet18       # other overrides apply to both arms
    python -m train.ab -m '+experiment=glob(*)'                    # the ladder: all of them, one report
    python -m train.ab +experiment=baseline                        # A/A: the noise floor of this machine, now

`ab.gate` turns a recorded comparison into a regression test. Absolute times differ between machines, the worth of an
optimization much less; so the working tree is measured against its own slow variant, as it was then:

    python -m train.ab +experiment=nograd_off                                    # once; keep the comparison.json
    python -m train.ab +experiment=nograd_off ab.gate=ci/nograd_off.json         # in CI

The status is 1 when the ratio variant / baseline of the hypothesis' phase has fallen below the recorded interval by
more than the noise floor of the new measurement: the optimization is worth less than it was.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from profiling.terminal.early_signals import run_command

if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from omegaconf import DictConfig


def job(composed: "DictConfig") -> None:
    """One comparison, in the folder that Hydra made for it."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from train.config import cli

    run = HydraConfig.get()
    with cli.one_line_errors():
        _compare(composed, run, Path(run.sweep.dir) if run.mode is RunMode.MULTIRUN else None)


def _compare(composed: "DictConfig", run: "HydraConf", sweep: Path | None) -> None:
    from train.ab import gate
    from train.ab.experiment import run_experiment
    from train.ab.ladder import comparisons_in
    from train.config import changes
    from train.config.compose import to_config
    from train.ranks.cores import own_cores
    from train.ranks.launch import alone_only

    alone_only("train.ab")
    config = to_config(composed)
    recorded = gate.read(Path(config.ab.gate)) if config.ab.gate else None
    with own_cores() as cores:
        record, stop = run_experiment(
            config,
            changes.changed_from_baseline(composed),
            [override for override in run.overrides.task if override.lstrip("+").partition("=")[0] != "experiment"],
            [record for _, record in comparisons_in(sweep)] if sweep else [],
            cores,
            is_ladder=sweep is not None,
            folder=Path(run.runtime.output_dir),
        )
    if stop is not None:
        raise stop
    if recorded is not None:
        gate.check(record, recorded)


def start() -> int:
    """Run `job` as a Hydra application; return its exit status."""
    from train.ab.ladder import write_unfinished
    from train.config import cli

    try:
        return cli.run(job, "ab")
    finally:
        write_unfinished()


def main() -> None:
    """The command line."""
    run_command(start)


if __name__ == "__main__":
    main()
