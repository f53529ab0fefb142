"""From Hydra's composition to frozen dataclasses, and from these to plain dicts. Imports no torch."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from importlib import resources
from types import NoneType, UnionType
from typing import Any, cast, get_args, get_origin, get_type_hints

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, ListConfig, OmegaConf

from profiling.errors import UserError, match, nearest_or_all
from train.config import schema as schemas
from train.config.schema import Config

SCHEMAS: Mapping[str, type] = {
    "schema/config": schemas.Config,
    "schema/data/custom": schemas.CustomDataConfig,
    "schema/data/embedded": schemas.EmbeddedDataConfig,
    "schema/data/download": schemas.DownloadDataConfig,
    "schema/data/folder": schemas.FolderDataConfig,
    "schema/data/synthetic": schemas.SyntheticDataConfig,
    "schema/model/mlp": schemas.MLPConfig,
    "schema/model/cnn": schemas.CNNConfig,
    "schema/model/resnet18": schemas.ResNet18Config,
    "schema/model/vit": schemas.ViTConfig,
    "schema/model/custom": schemas.CustomModelConfig,
    "schema/optimizer/adamw": schemas.AdamWConfig,
    "schema/optimizer/sgd": schemas.SGDConfig,
    "schema/optimizer/custom": schemas.CustomOptimizerConfig,
    "schema/profiler/profiler": schemas.Profiler,
}

TYPE_NAMES = {bool: "true or false", int: "integers of 64 bits", float: "finite numbers", str: "text", NoneType: "null"}
SHOWN_CHARACTERS = 60  # of a wrong value


def schema_of(group: str, target: Any) -> type | None:
    """The schema of the file in configs/`group`/ whose `_target_` is `target`; None if there is no such file."""
    for file in resources.files("configs").joinpath(group).iterdir():
        option = yaml.safe_load(file.read_text()) if file.name.endswith(".yaml") else {}
        if option.get("_target_") == target:
            return SCHEMAS[option["defaults"][0].removeprefix("/").removesuffix("@_here_")]
    return None


def register() -> None:
    """Register the schemas with Hydra, under the names that `defaults` lists use."""
    for path, schema in SCHEMAS.items():
        group, name = path.rsplit("/", 1)
        ConfigStore.instance().store(group=group, name=name, node=_editable(schema))


def every_key() -> list[str]:
    """All dotted keys that a configuration may have: `epochs`, `loader.workers`, `model.width`, ..."""
    paths: list[str] = []
    for path, schema in SCHEMAS.items():
        group = path.split("/")[1]
        paths += _keys(schema, "" if group == "config" else f"{group}.")
    return list(dict.fromkeys(paths))


def _keys(schema: type, prefix: str) -> Iterator[str]:
    for field in dataclasses.fields(schema):
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            yield from _keys(field.type, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def allowed(key: str) -> str:
    """`; allowed: ...` for a dotted key, for messages; empty for a key that does not exist."""
    for path, schema in SCHEMAS.items():
        group = path.split("/")[1]
        hint: Any = schema
        for part in (key if group == "config" else key.removeprefix(f"{group}.")).split("[")[0].split("."):
            hint = get_type_hints(hint).get(part) if dataclasses.is_dataclass(hint) else None
        if hint not in (None, Any):
            return f"; allowed: {_allowed(hint)}"
    return ""


def hint(key: str, full_key: str, siblings: Sequence[str]) -> str:
    """The nearest key in the same group, else the nearest in any group, else all keys of this group."""
    if "params" in siblings:
        return f"{nearest_or_all(key, siblings)}; what the class takes: +{full_key.rpartition('.')[0]}.params.{key}=..."
    if full_key in every_key():  # of another file of the same group
        return nearest_or_all("", siblings)
    elsewhere = {path.rpartition(".")[2]: path for path in every_key()}
    suggestion = match(key, siblings) or elsewhere.get(match(key, elsewhere) or "")
    return f"; did you mean {suggestion!r}?" if suggestion else nearest_or_all(key, siblings)


def _editable(schema: type) -> DictConfig:
    """The schema as a node that Hydra can modify: OmegaConf makes nodes of frozen dataclasses read-only."""
    node = cast(DictConfig, OmegaConf.structured(schema))
    OmegaConf.set_readonly(node, None)
    for field in dataclasses.fields(schema):
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            node[field.name] = _editable(field.type)
    return node


def to_config(composed: DictConfig) -> Config:
    """Convert Hydra's composition to frozen dataclasses, which check ranges and fields that depend on each other.

    Raises:
        UserError: a key is unknown or was deleted, or a value is missing, of a wrong type or out of range.
        OmegaConfBaseException: an interpolation cannot be resolved.
    """
    _check_types(composed, "")
    return cast(Config, OmegaConf.to_object(composed))


def _check_types(node: DictConfig, path: str) -> None:
    """Check what OmegaConf leaves unchecked: added and deleted keys, interpolations, tuples, and numbers' ranges."""
    fields = get_type_hints(OmegaConf.get_type(node))
    for key in node:
        if key not in fields:
            raise UserError(f"{path}{key!s}: no such key{hint(str(key), f'{path}{key!s}', list(fields))}")
    for field, expected in fields.items():
        key = f"{path}{field}"
        if field not in node and not OmegaConf.is_missing(node, field):
            raise UserError(deleted(key))
        if OmegaConf.is_missing(node, field):
            raise UserError(f"{key}: no value; give one: {key}=...")
        value = node[field]
        schema = OmegaConf.get_type(value) if isinstance(value, DictConfig) else None
        if dataclasses.is_dataclass(schema) and expected in (Any, schema):
            _check_types(value, f"{key}.")
        elif not _is_of_type(value, expected):
            kind = "out of range" if isinstance(value, int | float) else "wrong type"
            raise UserError(f"{key}={_shown(value)}: {kind}; allowed: {_allowed(expected)}")


def deleted(key: str) -> str:
    """The message for a key that an override deletes."""
    return f"{key}: deleted, and every key is needed; leave ~{key} out"


def _shown(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def _is_of_type(value: Any, hint: Any) -> bool:
    options, inner = get_args(hint), get_origin(hint)
    if inner is UnionType:
        return any(_is_of_type(value, option) for option in options)
    if inner is tuple:
        same_length = isinstance(value, ListConfig) and len(value) == len(options)
        return same_length and all(map(_is_of_type, value, options))
    if inner is list:
        return isinstance(value, ListConfig) and all(_is_of_type(item, options[0]) for item in value)
    if inner is dict:
        return isinstance(value, DictConfig) and all(isinstance(key, str) for key in value)
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    if hint is int:
        return type(value) is int and abs(value) < 2**63
    return hint is Any or isinstance(value, hint)


def _allowed(hint: Any) -> str:
    """What a field of this type may hold, for messages."""
    options, inner = get_args(hint), get_origin(hint)
    if inner is UnionType:
        return " or ".join(_allowed(option) for option in options)
    if inner is tuple:
        return f"{len(options)} {_allowed(options[0])}"
    if inner is list:
        return f"a list of {_allowed(options[0])}"
    if dataclasses.is_dataclass(hint):
        return f"the keys {', '.join(field.name for field in dataclasses.fields(hint))}"
    if issubclass(hint, Enum):
        return ", ".join(hint)
    return TYPE_NAMES.get(hint, "names with values")


def plain(tree: Any) -> dict[str, Any]:
    """A configuration, or a part of one, as nested dicts of JSON types: for records, event files and comparison."""
    node = tree if isinstance(tree, DictConfig) else OmegaConf.structured(tree)
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=True, enum_to_str=True))


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys: `{"a": {"b": 1}}` is `{"a.b": 1}`."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            leaves.update(flat(value, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
