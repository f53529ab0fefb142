"""python -m train.ab: measure one deviation from the baseline against it.

    python -m train.ab +experiment=nograd_off                      # one switch
    python -m train.ab +experiment=nograd_off model=resnet18       # other overrides apply to both arms
    python -m train.ab -m '+experiment=glob(*)'                    # the ladder: all of them, one report
    python -m train.ab +experiment=baseline                        # A/A: the noise floor of this machine, now

`ab.gate` turns a recorded comparison into a regression test. Absolute times differ between machines, the worth of an
optimization much less; so the working tree is measured against its own slow twin, as it was then:

    python -m train.ab +experiment=nograd_off                                    # once; keep the comparison.json
    python -m train.ab +experiment=nograd_off ab.gate=ci/nograd_off.json         # in CI

The status is 1 when the ratio variant / baseline of the hypothesis' phase has fallen below the recorded interval by
more than the noise floor of the new measurement: the fast path has lost what it was worth.
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from profiling.comparison import ComparisonRecord
from train import cli
from train.ab import gate, table
from train.ab.experiment import experiment
from train.compose import to_config

_done: list[tuple[ComparisonRecord, Path]] = []


@hydra.main(config_path="pkg://configs", config_name="ab", version_base="1.3")
def job(composed: DictConfig) -> None:
    """One comparison, in the folder that Hydra made for it."""
    with cli.one_line_errors():
        config = to_config(composed)
        run = HydraConfig.get()
        recorded = gate.read(Path(config.ab.gate)) if config.ab.gate else None
        record, stop = experiment(
            config,
            cli.changed_from_baseline(composed),
            [override for override in run.overrides.task if override.lstrip("+").partition("=")[0] != "experiment"],
            [record for record, _ in _done],
            is_ladder=run.mode is RunMode.MULTIRUN,
            folder=Path(run.runtime.output_dir),
        )
        _done.append((record, Path(run.runtime.output_dir)))
        if stop is not None:
            raise stop
        if recorded is not None:
            gate.check(record, recorded)


def ladder() -> None:
    """Run every job, then judge those that finished as one family."""
    try:
        job()
    finally:
        if len(_done) > 1:
            table.write_ladder(table.new_console(), _done)


def main() -> None:
    """The command line."""
    cli.register()
    sys.exit(cli.run(ladder))


if __name__ == "__main__":
    main()
