"""The command line around Hydra: labels of runs, the list of experiments, and error messages of one line."""

import dataclasses
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import hydra
import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from profiling.errors import NotApplicableError, Terminated, UserError, match, nearest, nearest_or_all
from profiling.format import file_name
from profiling.terminal.arguments import Parser
from profiling.terminal.early_signals import BEFORE_THE_RUN, exit_status, raise_exceptions
from profiling.terminal.encoding import replace_what_cannot_be_encoded
from profiling.terminal.streams import print_line, standard_output
from train.config import compose, folders
from train.config.options import Topic
from train.event_writers import silence_event_writer_threads
from train.ranks.command import command_of
from train.ranks.folder import time_of_run
from train.ranks.launch import is_first, silence_other_ranks
from train.ranks.tell import tell

NOT_IN_LABEL = ("name", "task", "output", "checkpoint", "checkpoint_every", "resume", "images", "profiler")


def register() -> None:
    """Register the schemas and resolvers that configs/config.yaml uses."""
    compose.register()
    OmegaConf.register_new_resolver("run_label", run_label, replace=True)
    OmegaConf.register_new_resolver("time_of_run", time_of_run, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("hydras_folder", lambda: ".hydra" if is_first() else None, replace=True)
    OmegaConf.register_new_resolver("experiment_list", experiment_list, replace=True)


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


def experiment_list() -> str:
    """All experiments with their claims, grouped by topic, as text."""
    claims: dict[str, list[tuple[str, str]]] = {topic: [] for topic in Topic}
    loader = GlobalHydra.instance().config_loader()  # knows --config-dir, too
    for name in loader.get_group_options("experiment"):
        source = next(source for source in loader.get_sources() if source.is_config(f"experiment/{name}"))
        hypothesis = cast(DictConfig, source.load_config(f"experiment/{name}").config).get("hypothesis") or {}
        claims.setdefault(hypothesis.get("topic", "?"), []).append((name, hypothesis.get("claim", "?")))
    width = max(len(name) for rows in claims.values() for name, _ in rows)
    lines = []
    for topic, rows in claims.items():
        if rows:
            lines += [topic, *(f"  {name:<{width}}  {claim}" for name, claim in rows), ""]
    return "\n".join(lines).replace("$", "$$")  # Hydra treats the help as a string.Template


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


_failures: list[str] = []
_wants_traceback = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("0", "")


def fail(message: str) -> None:
    """Report an error in one line; `run` returns 1."""
    _failures.append(message)
    tell(message)


class RefuseEmptySweep(Callback):
    """Ends a multirun without jobs, which is a success to Hydra; configs/config.yaml names this class."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Name the override that has no value."""
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        for override in parser.parse_overrides(list(config.hydra.overrides.task)):
            if override.is_discrete_sweep() and not list(override.sweep_iterator()):
                print_line(f"error: {override.input_line}: no value matches, so there is nothing to run")
                raise SystemExit(1)


def _run_folder() -> Path | None:
    """The folder of the run; None before Hydra has named it, and after the last run of several."""
    if not HydraConfig.initialized() or OmegaConf.is_missing(HydraConfig.get().runtime, "output_dir"):
        return None
    return Path(HydraConfig.get().runtime.output_dir)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Report the error of a job in one line, so that a sweep runs its next job; `run` returns the exit status."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as stop:
        folder = _run_folder()
        nothing_written = folders.discard(folder)
        written = f"interrupted; what was written is whole{f': {folder}' if folder else ''}"
        print_line(BEFORE_THE_RUN if nothing_written else written)
        raise SystemExit(exit_status(stop)) from stop
    except NotApplicableError as reason:
        print_line(str(reason), sys.stdout)
        folders.discard(_run_folder())
    except Exception as error:
        message = explain(error)
        if _wants_traceback or message is None:
            raise
        fail(message)
        folders.discard(_run_folder())


def _check_flags(arguments: Sequence[str]) -> None:
    """Exit with status 2 on a wrong flag, in one line where Hydra has many, and with status 0 after `--version`."""
    # Hydra's parser takes abbreviations: `--experiment nograd_off` would be `--experimental-rerun nograd_off`.
    parser = Parser("error", parents=[get_args_parser()], add_help=False, allow_abbrev=False)
    for argument, following in pairwise([*arguments, "..."]):
        key, _, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and key in ("experiment", *compose.every_key()):
            plus = "+" if key == "experiment" else ""
            parser.error(f"{argument}: not a flag; did you mean {plus}{key}={value or following}")
    if "--version" in arguments:
        print_line(f"abtrace {version('abtrace')} (Hydra {hydra.__version__})", sys.stdout)
        raise SystemExit
    parser.parse_args()
    warnings.filterwarnings("ignore", "Experimental rerun")


def run(job: Callable[[DictConfig], None], config_name: str) -> int:
    """Run `job` as a Hydra application; return its exit status. `HYDRA_FULL_ERROR=1` shows tracebacks."""
    replace_what_cannot_be_encoded()
    silence_other_ranks()
    register()
    _check_flags(sys.argv[1:])
    application = hydra.main(config_path="pkg://configs", config_name=config_name, version_base="1.3")(job)
    if _wants_traceback:
        raise_exceptions()
        sys.argv[1:] = command_of(sys.argv[1:], config_name)
        application()
        return 0
    _failures.clear()
    logging.raiseExceptions = False  # Hydra's messages on standard output: `standard_output` reports the error
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # hides the profiler's messages at its start and stop
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # hides "allocated before the profiling started" and the like
    silence_event_writer_threads()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints composition errors itself, in several lines
    try:
        raise_exceptions()
        sys.argv[1:] = command_of(sys.argv[1:], config_name)
        application()
    except (KeyboardInterrupt, Terminated) as stop:
        print_line(BEFORE_THE_RUN)
        return exit_status(stop)
    except Exception as error:
        if any(frame.f_code is job.__code__ for frame, _ in traceback.walk_tb(error.__traceback__)):
            raise  # `one_line_errors` did not know it: a defect of this program, or of a class of the user's
        # Before there is a folder, the only error of the system that names no file is that of what Hydra prints.
        if isinstance(error, OSError) and error.strerror and not error.filename and not _run_folder():
            with standard_output(fail):
                raise
        else:
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "  # Hydra's about its flags
            tell(explain(error) or _explain_group(sys.argv[1:]) or f"{kind}{error}")
        return 1
    finally:
        folders.discard()
        del os.environ["HYDRA_FULL_ERROR"]
    with standard_output(fail):
        pass  # what is left in its buffer, such as Hydra's messages
    return 1 if _failures else 0


# --- messages of one line: what is wrong, where, what is allowed, and the nearest match -------------------------------


def explain(error: Exception) -> str | None:
    """A message of one line for an error that the user can correct; None for any other."""
    if isinstance(error, MissingConfigException):
        return _explain_missing(error)
    if isinstance(error, OverrideParseException):
        key, _, value = str(error.override).partition("=")
        quoted = f"; put the value into quotes: '{key}=\"{value}\"'" if value and not value.isascii() else ""
        return f"{error.override}: cannot be read as key=value: {str(error).splitlines()[0]}{quoted}"
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark
        where = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}" if mark else "a configuration file"
        return f"{where}: not YAML: {error.problem or error.context}"
    if isinstance(error, OSError):
        return f"{error.filename or _run_folder() or 'the folder of the run'}: {error.strerror or error}"
    if isinstance(error, ConfigCompositionException):
        return _explain_composition(error)
    if "Original Traceback" in str(error):  # the error of a DataLoader worker contains its traceback as text
        return str(error).strip().splitlines()[-1].partition(": ")[2]
    if isinstance(error, OmegaConfBaseException):
        key = str(error.full_key or "")
        if own := _first_line(error).partition("UserError raised while resolving interpolation: ")[2]:
            return own
        if key.startswith("hydra."):  # the names of folders contain the overrides, in which the interpolation is
            key = next((argument for argument in sys.argv[1:] if "${" in argument), key)
        return f"{key}: {_first_line(error)}{compose.allowed(key)}" if key else _first_line(error)
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, HydraException | yaml.YAMLError):
        return str(error).replace("\n", " ")
    from profiling.out_of_memory import explain_out_of_memory  # imports psutil: not before the first message

    return explain_out_of_memory(error)


def _first_line(error: OmegaConfBaseException) -> str:
    return str(error.msg or error).splitlines()[0]


def _explain_group(arguments: Sequence[str]) -> str | None:
    """The first of `arguments` that gives a group a number, for example, not a file's name; None if there is none."""
    overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    for override in OverridesParser.create().parse_overrides(overrides):
        value = override.value()
        options = value.list if isinstance(value, ChoiceSweep) else value if isinstance(value, list) else [value]
        group = override.key_or_group
        folder = resources.files("configs").joinpath(group)
        if (folder.is_dir() or group.split("/")[0] == "hydra") and not all(isinstance(o, str) for o in options):
            files = sorted(f.name.removesuffix(".yaml") for f in folder.iterdir()) if folder.is_dir() else ()
            there_are = f"; there are: {', '.join(files)}" if files else ""
            return f"{override.input_line}: a group takes the name of a file{there_are}"
    return None


def _explain_missing(error: MissingConfigException) -> str:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    options = [option for option in error.options or () if option != "schema"]
    if not options:
        return str(error).splitlines()[0]
    return f"{group}={name}: no such file in configs/{group}/{nearest_or_all(name, options)}"


def _explain_composition(error: ConfigCompositionException) -> str:
    cause = error.__cause__ or error.__context__
    file = re.match(r"In '([^']+)'", str(error))
    where = f"configs/{file.group(1)}.yaml: " if file else ""
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and dataclasses.is_dataclass(cause.object_type):
        siblings = [field.name for field in dataclasses.fields(cause.object_type)]
        key = str(cause.key)
        if key == "experiment" and file:
            return f"{where}its first line must be `# @package _global_`, so that its keys are those of config.yaml"
        if key not in siblings:
            return f"{where}{cause.full_key}: no such key{_hint(key, str(cause.full_key), siblings)}"
    if isinstance(cause, ValidationError):
        reason = _first_line(cause)
        if reason.startswith("Merge error") and file:
            return f"{file[1].removeprefix('schema/').rpartition('/')[0]}: takes one file of its group, not several"
        allowed = re.search(r"expected one of \[(.*)\]", reason)
        value = re.search(r"'([^']*)'", reason)
        suggestion = nearest(value.group(1), allowed.group(1).split(", ")) if allowed and value else ""
        allowed_here = "" if allowed else compose.allowed(cause.full_key or "")
        return f"{where}{cause.full_key}: {reason}{suggestion or allowed_here}"
    if deleted := re.match(r"Error merging override ~([\w.]+)", str(error)):
        return compose.deleted(deleted[1])
    merged = re.match(r"Error merging override \+*([\w.]+)=", str(error))
    return " ".join(str(error).split()) + (compose.allowed(merged[1]) if merged else "")


def _hint(key: str, full_key: str, siblings: Sequence[str]) -> str:
    """The nearest key in the same group, else the nearest in any group, else all keys of this group."""
    if full_key in compose.every_key():  # of another file of the same group
        return nearest_or_all("", siblings)
    elsewhere = {path.rpartition(".")[2]: path for path in compose.every_key()}
    suggestion = match(key, siblings) or elsewhere.get(match(key, elsewhere) or "")
    return f"; did you mean {suggestion!r}?" if suggestion else nearest_or_all(key, siblings)
