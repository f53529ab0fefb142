"""What the user changed: as the label of a run, as differences from the baseline, and as the keys that were given."""

from collections.abc import Sequence
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from profiling.format import file_name
from train.config import compose

NOT_IN_LABEL = ("name", "task", "output", "checkpoint", "checkpoint_every", "resume", "images", "profiler")


def run_label(name: str, overrides: Sequence[str], task: str) -> str:
    """The name of a run's folder, from its overrides: `nograd_off`, `a+b`, `baseline+model-vit`, `infer`.

    Contains only characters that need no quotes in Hydra's `checkpoint=runs/<name>/...`: neither `=` nor `,`. A long
    one is shortened to `baseline+model-custom+6-more-3f2a90c1`; the run's record has the full list, as `changed`.
    """
    if task == "infer":
        return "infer"
    names, settings = [name], []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if key == "experiment":
            names = value.strip("[]").split(",") if value.strip("[]") else names
        elif key not in NOT_IN_LABEL and not key.startswith(("profiler.", "ab.")):
            settings.append(f"{key}-{value}")
    return file_name([*names, *settings])


def changed_from_baseline(composed: DictConfig) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (baseline's value, this run's value) for every difference; None on a side without that key."""
    values = compose.flat(compose.plain(composed))
    baseline = compose.flat(compose.plain(hydra.compose("config")))
    keys = [*baseline, *(key for key in values if key not in baseline)]
    differing = [key for key in keys if baseline.get(key) != values.get(key) and key != "resume"]
    return {key: (baseline.get(key), values.get(key)) for key in differing}


def given(composed: DictConfig) -> dict[str, Any]:
    """Dotted keys that the user gave, with their values: on the command line, or by an experiment that it names.

    An option of a group gives its `_target_`; its other keys have defaults that a user may not know.
    """
    hydra_config = HydraConfig.get()
    choices = hydra_config.runtime.choices
    chosen = [f"{group}={choices[group]}" for group in ("data", "model", "optimizer", "profiler")]
    defaults = compose.flat(compose.plain(hydra.compose("config", chosen)))
    baseline = compose.flat(compose.plain(hydra.compose("config")))
    typed = [override.lstrip("+~").partition("=")[0] for override in hydra_config.overrides.task]
    values = compose.flat(compose.plain(composed))
    for group in ("data", "model"):
        target = f"{group}._target_"
        if group in typed or values[target] != baseline[target]:
            typed.append(target)
    return {
        key: value
        for key, value in values.items()
        if value != defaults.get(key) or any(f"{key}.".startswith(f"{name}.") for name in typed if name not in choices)
    }
