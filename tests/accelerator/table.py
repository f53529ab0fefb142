"""All results as a table in Markdown, and joined in one JSON file."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.accelerator import results
from tests.accelerator.results import Result

SIGNIFICANT = 4


def write(out: Path) -> str:
    """Write `table.md` and `results.json`; return the table."""
    found = results.read_all(out)
    text = "\n".join([*_counts(found), "", *_ladder(found), "", *_figures(found), "", *_failures(found)]) + "\n"
    (out / "table.md").write_text(text)
    (out / "results.json").write_text(json.dumps([result._asdict() for result in found.values()], indent=1))
    return text


def _counts(found: dict[str, Result]) -> list[str]:
    lines = ["| pieces | passed | not applicable | failed | cut | seconds |", "| --- | --: | --: | --: | --: | --: |"]
    kinds: dict[str, list[Result]] = {}
    for name, result in found.items():
        kinds.setdefault(name.rpartition("/")[0], []).append(result)
    for kind, members in kinds.items():
        number = Counter(result.status for result in members)
        statuses = (results.PASSED, results.NOT_APPLICABLE, results.FAILED, results.CUT)
        cells = [str(number[status]) for status in statuses]
        lines.append(f"| {kind} | {' | '.join(cells)} | {sum(result.seconds for result in members):.0f} |")
    return lines


def _ladder(found: dict[str, Result]) -> list[str]:
    lines = ["| experiment | phase | variant / baseline | floor | verdict | hypothesis |", "| --- " * 6 + "|"]
    for name, result in found.items():
        if name.startswith("ladder/") and "ratio" in result.found:
            of = result.found
            ratio = f"×{of['ratio']:.3f} ({of['ratio_low']:.3f} to {of['ratio_high']:.3f})"
            floor = f"×{of['floor_ratio']:.3f}"
            experiment = name.removeprefix("ladder/")
            lines.append(f"| {experiment} | {of['phase']} | {ratio} | {floor} | {of['verdict']} | {of['outcome']} |")
    return lines


def _figures(found: dict[str, Result]) -> list[str]:
    lines = ["| piece | found |", "| --- | --- |"]
    for name, result in found.items():
        if result.found and not name.startswith(("ladder/", "correctness/runs/", "correctness/parity/")):
            lines.append(f"| {name} | {', '.join(f'{key}: {_plain(value)}' for key, value in result.found.items())} |")
    return lines


def _failures(found: dict[str, Result]) -> list[str]:
    return [
        f"- {result.name}: {result.status}: {result.error.replace(chr(10), '; ')}"
        for result in found.values()
        if result.status in (results.FAILED, results.CUT)
    ]


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.{SIGNIFICANT}g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(of)}" for key, of in value.items()) + "}"
    return str(value)
