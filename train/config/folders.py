"""The folder of a run; it is removed where the run wrote nothing, because of a wrong configuration for example."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

HYDRAS_OWN = {".hydra", "multirun.yaml"}
jobs: list[tuple[list[str], Path]] = []  # of a multirun, that have ended: their overrides and folders
_new: list[Path] = []  # made for this command: the folder of the run or multirun, then those above it
_of_job: list[Path] = []  # of a multirun: the job's folder, then those above it up to the multirun's


def of_the_run() -> Path | None:
    """The folder of the run; None before Hydra has named it, and after the last run of several."""
    if not HydraConfig.initialized() or OmegaConf.is_missing(HydraConfig.get().runtime, "output_dir"):
        return None
    return Path(HydraConfig.get().runtime.output_dir)


class NoteNewFolders(Callback):
    """Notes which folders do not exist yet; configs/config.yaml names this class among Hydra's callbacks.

    https://hydra.cc/docs/1.3/experimental/callbacks/
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the folder of the run."""
        _note(config.hydra.run)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the folder of the multirun."""
        _note(config.hydra.sweep)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the folder of a multirun's job; Hydra has just made it."""
        if config.hydra.mode is RunMode.MULTIRUN:
            folder, sweep = Path(config.hydra.runtime.output_dir), Path(str(config.hydra.sweep.dir)).absolute()
            _of_job[:] = [path for path in (folder, *folder.parents) if sweep in path.parents]


class NoteJobs(Callback):
    """Notes the jobs of a multirun; configs/config.yaml names this class, too."""

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        """Note the job, if it ran in this process; `train.ranks.jobs` notes others."""
        jobs.append((list(job_return.overrides), Path(config.hydra.runtime.output_dir)))


class ShowJobs(NoteJobs):
    """Prints a table of a multirun's jobs, also of those that failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the table."""
        from profiling.terminal.sweep import print_sweep  # rich is slow to import, and most commands print no table

        print_sweep(jobs)


def _note(place: DictConfig) -> None:
    _new.clear()
    with suppress(OmegaConfBaseException, OSError):  # Hydra meets the same error at once
        folder = Path(str(place.dir)).absolute()
        _new.extend(path for path in (folder, *folder.parents) if not path.exists())


def discard(folder: Path | None = None) -> bool:
    """Remove `folder` if this command made it and only Hydra wrote to it; then the folders above it, likewise.

    Without `folder`, that of the run or of the multirun. Returns whether it is removed.
    """
    folder = folder or (_new[0] if _new else Path())
    ours = [*_of_job, *_new]
    made = [path for path in ours if path in folder.parents]
    with suppress(OSError):  # what cannot be removed stays
        if (made or folder in ours) and {entry.name for entry in folder.iterdir()} <= HYDRAS_OWN:
            shutil.rmtree(folder)
    for path in made:
        with suppress(OSError):
            path.rmdir()
    return not os.access(folder, os.F_OK)  # False for a name that is too long
