"""docs/json.md, made from the types that write the JSON: `python -m tests.docs.json_reference` writes it again."""

import inspect
from typing import Any

import msgspec

from profiling.analysis.summary import Summary
from profiling.diff.differences import Diff
from profiling.run_record import RunRecord
from profiling.verdict.ladder import Ladder
from profiling.verdict.record import ComparisonRecord
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "json.md"
OUTPUTS = {
    "summary --json": Summary,
    "diff --json": Diff,
    "effects --json": Ladder,
    "record.json": RunRecord,
    "comparison.json": ComparisonRecord,
}
INTRODUCTION = """# JSON

What `python -m profiling … --json` prints, and what runs leave as files. `schema_version` rises when a key changes its
meaning or goes; new keys may be added. Units stand in the names: `_us` microseconds, `_s` seconds, `_bytes` bytes.
`memory --json` prints the keys `schema_version`, `trace` (`TraceInfo`) and `memory` (a list of `DeviceMemory`).
[traces.md](traces.md) says what the figures of a trace mean and what they rest on. This page is made from the code by
`python -m tests.docs.json_reference`.
"""


def type_name(schema: dict[str, Any]) -> str:
    """Name the type that a JSON schema describes, with a link where it has a section of its own."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(map(type_name, schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array" and "prefixItems" in schema:
        return f"list of {len(schema['prefixItems'])} values: " + ", ".join(map(type_name, schema["prefixItems"]))
    if schema.get("type") == "array":
        return f"list of {type_name(schema['items'])}" if schema.get("items") else "list"
    if schema.get("type") == "object":
        values = schema.get("additionalProperties")
        return f"object of {type_name(values)}" if isinstance(values, dict) else "object"
    return str(schema.get("type", "anything"))


def section(name: str, schema: dict[str, Any]) -> str:
    """Describe one type: its docstring, then its keys or its values."""
    described = inspect.cleandoc(schema.get("description", ""))
    text = f"\n### {name}\n\n" + (f"{described}\n\n" if described else "")
    if "enum" in schema:
        return text + type_name(schema) + "\n"
    rows = [f"| `{key}` | {type_name(value)} |" for key, value in schema["properties"].items()]
    return text + "\n".join(["| key | type |", "| --- | --- |", *rows]) + "\n"


def page() -> str:
    """Write the page: for each output the types that are not described further up."""
    text, described = INTRODUCTION, set[str]()
    for output, root in OUTPUTS.items():
        _, types = msgspec.json.schema_components([root])
        text += f"\n## {output}\n"
        for name, schema in types.items():
            if name not in described:
                text += section(name, schema)
                described.add(name)
    return text


if __name__ == "__main__":
    PAGE.write_text(page())
