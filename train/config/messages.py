"""Errors of a configuration in one line: what is wrong, where, what is allowed, and the nearest match."""

import dataclasses
import re
import sys
from collections.abc import Sequence
from importlib import resources

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from profiling.errors import UserError, match, nearest, nearest_or_all
from train.config import compose, folders


def explain(error: Exception) -> str | None:
    """A message of one line for an error that the user can correct; None for any other."""
    if isinstance(error, MissingConfigException):
        return _explain_missing(error)
    if isinstance(error, OverrideParseException):
        key, _, value = str(error.override).partition("=")
        advice = f"; put the value into quotes: '{key}=\"{value}\"'" if "=" in value or not value.isascii() else ""
        if resources.files("configs").joinpath("experiment", f"{key}.yaml").is_file():
            advice = f"; did you mean +experiment={key}?"
        elif not value and (known := match(key, compose.every_key())):
            advice = f"; did you mean {known}=...?"
        return f"{error.override}: cannot be read as key=value: {str(error).splitlines()[0]}{advice}"
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark
        where = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}" if mark else "a configuration file"
        return f"{where}: not YAML: {error.problem or error.context}"
    if isinstance(error, ConnectionError) or str(error).startswith("DataLoader worker"):
        return "a loader worker was killed, perhaps since memory ran out: start fewer by loader.workers, or none by 0"
    if isinstance(error, OSError):
        return f"{error.filename or folders.of_the_run() or 'the folder of the run'}: {error.strerror or error}"
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


def explain_group(arguments: Sequence[str]) -> str | None:
    """The first of `arguments` that gives a group a number, for example, not a file's name; None if there is none."""
    overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    for override in OverridesParser.create().parse_overrides(overrides):
        value = override.value()
        options = value.list if isinstance(value, ChoiceSweep) else value if isinstance(value, list) else [value]
        group = override.key_or_group
        folder = resources.files("configs").joinpath(group)
        if not group:
            return f"{override.input_line}: there is no key before the ="
        if (folder.is_dir() or group.split("/")[0] == "hydra") and not all(isinstance(o, str) for o in options):
            files = sorted(f.name.removesuffix(".yaml") for f in folder.iterdir()) if folder.is_dir() else ()
            there_are = f"; there are: {', '.join(files)}" if files else ""
            return f"{override.input_line}: a group takes the name of a file{there_are}"
    return None


def _explain_missing(error: MissingConfigException) -> str:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if name.startswith("submitit"):
        return f"{group}={name}: a plugin of Hydra's: pip install 'abtrace[cluster]'"
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
            return f"{where}{cause.full_key}: no such key{compose.hint(key, str(cause.full_key), siblings)}"
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
    if several := re.match(r"Ambiguous value for argument '(.*)'", str(error)):
        key, _, values = several[1].partition("=")
        return f"{several[1]}: several values; a run with each: -m {several[1]}; one list: {key}=[{values}]"
    if second := re.match(r"Multiple values for (\S+)\. To override", str(error)):
        return f"{second[1]}: there is a file of this group already; to take another: {second[1]}=..., without +"
    merged = re.match(r"Error merging override \+*([\w.]+)=", str(error))
    return " ".join(str(error).split()) + (compose.allowed(merged[1]) if merged else "")
