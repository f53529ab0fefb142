"""The configuration of inference: what the checkpoint's run had, where the user gives nothing else."""

import dataclasses
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from profiling.errors import UserError, nearest_or_all
from train.checkpoint import CONVERSION_ERRORS, Checkpoint, refused
from train.config.compose import plain, schema_of
from train.config.schema import Config, Switches


def as_trained(config: Config, given: Mapping[str, Any], saved: Checkpoint, path: Path) -> Config:
    """`config` with the model, the switches that decide its weights, and the data set of `saved`, read from `path`.

    What the user gave is compared with the model and the switches, and takes precedence over fields of the data set.

    `given` holds the dotted keys that the user gave, with their values: see train.config.changes.given.

    Raises:
        UserError: a given value differs from the one that the model was trained with, the checkpoint's values are not
            allowed, or it names code of the user's that the configuration does not name.
    """
    data_keys = [key for key in given if key.startswith("data.")]
    if config.images is not None and data_keys:
        raise UserError(f"images={config.images}: {data_keys[0]}={given[data_keys[0]]} is given, too; leave one out")
    target = saved.model.get("_target_")
    if "model._target_" in given and given["model._target_"] != target:
        raise UserError(
            f"checkpoint={path}: of another model: it holds {_shown(target)}, and model._target_="
            f"{given['model._target_']} is given; leave model=... out"
        )
    _must_agree(given, "model", saved.model, path)
    _must_agree(given, "switches", saved.switches, path)
    return dataclasses.replace(
        config,
        model=_checked(_schema(config, "model", target, path), "model", saved.model, path),
        data=_data(config, given, saved, path) if config.images is None else config.data,
        switches=_checked(Switches, "switches", {**plain(config.switches), **saved.switches}, path),
    )


def _data(config: Config, given: Mapping[str, Any], saved: Checkpoint, path: Path) -> Any:
    """The data set of `saved`, or the one that is given, with images and classes as the model takes them."""
    configured = plain(config.data)
    shape = {"channels": saved.channels, "image_size": saved.image_size, "classes": len(saved.classes)}
    if saved.data is None or given.get("data._target_", saved.data.get("_target_")) != saved.data.get("_target_"):
        values = configured | {name: value for name, value in shape.items() if name in configured}
    else:
        limit = {"max_pixels": config.max_pixels} if "max_pixels" in saved.data else {}  # of this machine, not trained
        values = saved.data | limit
    values |= {key.removeprefix("data."): value for key, value in given.items() if key.startswith("data.")}
    data = _checked(_schema(config, "data", values.get("_target_"), path), "data", values, path)
    for name, trained in shape.items():
        if getattr(data, name, trained) != trained:  # known before anything is read
            raise UserError(f"checkpoint={path}: trained with {name}={trained}, and data.{name}={getattr(data, name)}")
    return data


def _must_agree(given: Mapping[str, Any], group: str, trained: Mapping[str, Any], path: Path) -> None:
    """Raise UserError if a given key of `group` has another value in `trained`; a group of switches may lack keys."""
    for key, value in given.items():
        top, *names = key.split(".")
        if top != group or (group == "switches" and names[0] not in trained):
            continue
        there: Any = trained
        for name in names:
            there = there.get(name) if isinstance(there, dict) else None
        if there != value:
            raise UserError(
                f"checkpoint={path}: trained with {key}={_shown(there)}, and {key}={value} is given; leave it out"
            )


def _schema(config: Config, group: str, target: Any, path: Path) -> type:
    """The dataclass of the option with that `_target_`: of one in configs/, or of the one that is configured.

    Raises:
        UserError: there is none; a file may not choose which code is imported and called.
    """
    if not isinstance(target, str):
        raise refused(path, f"{group}._target_={_shown(target)}, which is no name")
    configured = getattr(config, group)
    schema = type(configured) if target == configured._target_ else schema_of(group, target)
    if schema is None:
        raise UserError(
            f"checkpoint={path}: {group}._target_={_shown(target)} is in no file of configs/{group}/, and a checkpoint "
            f"may not choose which code runs; if you trust it, name it: "
            + (f"model=custom model._target_={_shown(target)}" if group == "model" else f"the {group}=... of training")
        )
    return schema


def _checked(schema: type, group: str, values: Mapping[str, Any], path: Path) -> Any:
    """An instance of `schema`, of the types and in the ranges that it declares."""
    fields = [field.name for field in dataclasses.fields(schema)]
    for name in values:
        if name not in fields:
            raise refused(path, f"{group}.{_shown(name)}: no such key{nearest_or_all(_shown(name), fields)}")
    try:
        return msgspec.convert(values, schema)
    except (*CONVERSION_ERRORS, UserError) as error:
        raise refused(path, f"{group}: {error}") from error


def _shown(value: Any) -> str:
    """A value of the file as text of bounded length: nested values may share parts, and be huge when written out."""
    return value if isinstance(value, str) and len(value) < 200 else reprlib.repr(value)
