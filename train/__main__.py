"""python -m train: compose the configuration, check it, run."""

from pathlib import Path
from typing import TYPE_CHECKING

from profiling.terminal.early_signals import run_command

if TYPE_CHECKING:
    from omegaconf import DictConfig


def job(composed: "DictConfig") -> None:
    """Run the configured task, in the folder that Hydra created for it."""
    from hydra.core.hydra_config import HydraConfig

    from profiling.machine_load import OthersMeter
    from train.config import changes, cli
    from train.config.compose import to_config
    from train.config.options import Task
    from train.ranks.cores import own_cores
    from train.ranks.launch import alone_only, root_process

    with cli.one_line_errors(), own_cores():
        others = OthersMeter(root_process())
        config = to_config(composed)
        folder = Path(HydraConfig.get().runtime.output_dir)
        if config.task is Task.infer:
            from train.inference import infer  # imports torch: only after the configuration is checked

            alone_only("task=infer")
            infer(config, changes.given(composed), folder)
        else:
            from train.ranks.join import joined
            from train.run import train

            with joined(config) as group:
                train(config, changes.changed_from_baseline(composed), folder, group, others.cores())


def start() -> int:
    """Run `job` as a Hydra application; return its exit status."""
    from train.config import cli

    return cli.run(job, "config")


def main() -> None:
    """Entry point of the command line."""
    run_command(start)


if __name__ == "__main__":
    main()
