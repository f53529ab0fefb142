"""Findings of a benchmark and their targets, as a table and as JSON. A missed target is reported, not raised."""

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from profiling.verdict.stats import Effect


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One measured figure; `low` and `high` are its 95 % interval, `at_least` and `at_most` its target."""

    name: str
    measured: float
    low: float | None = None
    high: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the figure, not its interval, meets the target; None without a target."""
        if self.at_least is None and self.at_most is None:
            return None
        return (self.at_least or -math.inf) <= self.measured <= (self.at_most or math.inf)


def ratio(name: str, effect: Effect, *, at_least: float | None = None, at_most: float | None = None) -> Finding:
    """A log ratio and its interval, converted to ratios."""
    estimate, low, high = (math.exp(value) for value in effect[:3])
    return Finding(name=name, measured=estimate, low=low, high=high, at_least=at_least, at_most=at_most)


def out_argument(description: str | None) -> Path | None:
    """The command line of a benchmark: `--out FILE`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    out: Path | None = parser.parse_args().out
    return out


def report(title: str, findings: list[Finding], details: Mapping[str, Any], out: Path | None) -> None:
    """Print the findings; write them to `out`, together with `details`, the data that they were computed from."""
    table = Table("measured", "figure", "95 % interval", "target", "", title=title, title_justify="left")
    for finding in findings:
        interval = "" if finding.low is None else f"{finding.low:.3f} to {finding.high:.3f}"
        target = "" if finding.at_least is None else f">= {finding.at_least:g}"
        target += "" if finding.at_most is None else f"<= {finding.at_most:g}"
        verdict = {True: "[green]met", False: "[red]NOT MET", None: ""}[finding.met]
        table.add_row(finding.name, f"{finding.measured:.3f}", interval, target, verdict)
    Console().print(table)
    if out is not None:
        rows = [{**msgspec.to_builtins(finding), "met": finding.met} for finding in findings]
        out.write_bytes(msgspec.json.format(msgspec.json.encode({"findings": rows, **details}), indent=1))
