"""From Hydra's composition to frozen dataclasses, and from these to plain dicts. Imports no torch."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any, cast

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from profiling.errors import UserError, nearest_or_all
from train.config.schema import (
    AdamWConfig,
    CNNConfig,
    Config,
    CustomModelConfig,
    DownloadDataConfig,
    EmbeddedDataConfig,
    FolderDataConfig,
    MLPConfig,
    Profiler,
    ResNet18Config,
    SGDConfig,
    SyntheticDataConfig,
    ViTConfig,
)

SCHEMAS: Mapping[str, type] = {
    "schema/config": Config,
    "schema/data/embedded": EmbeddedDataConfig,
    "schema/data/download": DownloadDataConfig,
    "schema/data/folder": FolderDataConfig,
    "schema/data/synthetic": SyntheticDataConfig,
    "schema/model/mlp": MLPConfig,
    "schema/model/cnn": CNNConfig,
    "schema/model/resnet18": ResNet18Config,
    "schema/model/vit": ViTConfig,
    "schema/model/custom": CustomModelConfig,
    "schema/optimizer/adamw": AdamWConfig,
    "schema/optimizer/sgd": SGDConfig,
    "schema/profiler/profiler": Profiler,
}


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
        UserError: there is a key that no schema has (`+key=value` adds one), or a value is missing or out of range.
    """
    for path, node in _containers(composed):
        schema = OmegaConf.get_type(node)
        if not dataclasses.is_dataclass(schema):
            continue
        fields = [field.name for field in dataclasses.fields(schema)]
        for key in node:
            if key not in fields:
                raise UserError(f"{path}{key!s}: no such key{nearest_or_all(str(key), fields)}")
        for field in fields:
            if OmegaConf.is_missing(node, field):
                raise UserError(f"{path}{field}: no value; give one: {path}{field}=...")
            value = node[field]
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"{path}{field}={value}: out of range; allowed: finite numbers")
    return cast(Config, OmegaConf.to_object(composed))


def _containers(node: DictConfig, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    yield path, node
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not (child._is_missing() or child._is_none()):
            yield from _containers(child, f"{path}{key!s}.")


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
