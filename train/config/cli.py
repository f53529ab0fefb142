"""The command line around Hydra: its flags, the list of experiments, and what a job's failure prints and returns."""

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from profiling.errors import NotApplicableError, Terminated
from profiling.terminal.arguments import Parser
from profiling.terminal.early_signals import BEFORE_THE_RUN, exit_status, raise_exceptions
from profiling.terminal.encoding import replace_what_cannot_be_encoded
from profiling.terminal.event_writers import silence_event_writer_threads
from profiling.terminal.streams import print_line, standard_output
from train.config import changes, compose, folders, messages
from train.config.options import Topic
from train.ranks.command import command_of, how_to_go_on
from train.ranks.folder import time_of_run
from train.ranks.launch import is_first, silence_other_ranks
from train.ranks.tell import tell


def register() -> None:
    """Register the schemas and resolvers that configs/config.yaml uses."""
    compose.register()
    OmegaConf.register_new_resolver("run_label", changes.run_label, replace=True)
    OmegaConf.register_new_resolver("time_of_run", time_of_run, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("hydras_folder", lambda: ".hydra" if is_first() else None, replace=True)
    OmegaConf.register_new_resolver("experiment_list", experiment_list, replace=True)


def experiment_list() -> str:
    """All experiments with their claims, grouped by topic, as text."""
    claims: dict[str, list[tuple[str, str]]] = {topic: [] for topic in Topic}
    loader = GlobalHydra.instance().config_loader()  # knows --config-dir, too
    for name in loader.get_group_options("experiment"):
        source = next(source for source in loader.get_sources() if source.is_config(f"experiment/{name}"))
        folder = resources.files(source.path) if source.scheme() == "pkg" else Path(source.path)
        config: object = None
        with suppress(yaml.YAMLError, OSError, UnicodeDecodeError):  # only using such a file is an error
            # Not `source.load_config`, whose parser in Python takes ten times as long.
            config = yaml.load((folder / "experiment" / f"{name}.yaml").read_text("utf-8"), yaml.CSafeLoader)
        stated = config.get("hypothesis") if isinstance(config, dict) else None
        hypothesis = stated if isinstance(stated, dict) else {}  # a user's file may hold anything
        claims.setdefault(str(hypothesis.get("topic", "?")), []).append((name, str(hypothesis.get("claim", "?"))))
    width = max(len(name) for rows in claims.values() for name, _ in rows)
    lines = []
    for topic, rows in claims.items():
        if rows:
            lines += [topic, *(f"  {name:<{width}}  {claim}" for name, claim in rows), ""]
    return "\n".join(lines).replace("$", "$$")  # Hydra treats the help as a string.Template


failures: list[str] = []
"""What jobs of this process have told by `fail`."""

_wants_traceback = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("0", "")


def fail(message: str) -> None:
    """Report an error in one line; `run` returns 1."""
    failures.append(message)
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


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Report the error of a job in one line, so that a sweep runs its next job; `run` returns the exit status."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as stop:
        folder = folders.of_the_run()
        nothing_written = folders.discard(folder)
        written = f"interrupted; what was written is whole{f': {folder}' if folder else ''}{how_to_go_on(folder)}"
        print_line(BEFORE_THE_RUN if nothing_written else written)
        raise SystemExit(exit_status(stop)) from stop
    except NotApplicableError as reason:
        print_line(str(reason), sys.stdout)
        folders.discard(folders.of_the_run())
    except Exception as error:
        message = messages.explain(error)
        if _wants_traceback or message is None:
            raise
        fail(message)
        folders.discard(folders.of_the_run())


def _flags_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with flags before overrides, since Hydra's parser refuses flags between them.

    Exits with status 2 on a wrong flag, in one line where Hydra has many, and with status 0 after `--version`.
    """
    # Hydra's parser takes abbreviations: `--experiment nograd_off` would be `--experimental-rerun nograd_off`.
    parser = Parser("error", parents=[get_args_parser()], add_help=False, allow_abbrev=False)
    for argument, following in pairwise([*arguments, "..."]):
        key, _, value = argument.removeprefix("--").partition("=")
        key = key.replace("-", "_")
        if argument.startswith("--") and key in ("experiment", *compose.every_key()):
            plus = "+" if key == "experiment" else ""
            parser.error(f"{argument}: not a flag; did you mean {plus}{key}={value or following}")
    if "--version" in arguments:
        print_line(f"abtrace {version('abtrace')} (Hydra {hydra.__version__})", sys.stdout)
        raise SystemExit
    overrides = parser.parse_intermixed_args(arguments).overrides
    warnings.filterwarnings("ignore", "Experimental rerun")
    return [*(argument for argument in arguments if argument not in overrides), *overrides]


def run(job: Callable[[DictConfig], None], config_name: str) -> int:
    """Run `job` as a Hydra application; return its exit status. `HYDRA_FULL_ERROR=1` shows tracebacks."""
    replace_what_cannot_be_encoded()
    silence_other_ranks()
    register()
    sys.argv[1:] = _flags_first(sys.argv[1:])
    application = hydra.main(config_path="pkg://configs", config_name=config_name, version_base="1.3")(job)
    if _wants_traceback:
        raise_exceptions()
        sys.argv[1:] = command_of(sys.argv[1:], config_name)
        application()
        return 0
    failures.clear()
    folders.jobs.clear()
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
        if isinstance(error, OSError) and error.strerror and not error.filename and not folders.of_the_run():
            with standard_output(fail):
                raise
        else:
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "  # Hydra's about its flags
            text = " ".join(str(error).split())
            tell(messages.explain(error) or messages.explain_group(sys.argv[1:]) or f"{kind}{text}")
        return 1
    finally:
        folders.discard()
        del os.environ["HYDRA_FULL_ERROR"]
    with standard_output(fail):
        pass  # what is left in its buffer, such as Hydra's messages
    return 1 if failures else 0
