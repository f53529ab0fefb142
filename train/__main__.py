"""python -m train: compose the configuration, check it, run."""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from train.config import cli
from train.config.compose import to_config
from train.config.options import Task

cli.register()


@hydra.main(config_path="pkg://configs", config_name="config", version_base="1.3")
def job(composed: DictConfig) -> None:
    """Run the configured task, in the folder that Hydra created for it."""
    with cli.one_line_errors():
        config = to_config(composed)
        folder = Path(HydraConfig.get().runtime.output_dir)
        if config.task is Task.infer:
            from train.inference import infer  # imports torch: only after the configuration is checked

            infer(config, cli.given(composed), folder)
        else:
            from train.run import train

            train(config, cli.changed_from_baseline(composed), folder)


def main() -> None:
    """Entry point of the command line: run `job` and exit with its status."""
    sys.exit(cli.run(job))


if __name__ == "__main__":
    main()
