"""Is the A/B of scripts right, for the kinds of scripts that there are? `python -m tests.bench.bench_scripts`.

Each of CASES is one `python -m profiling ab …` on a script of tests/bench/scripts/: an A/A, or a true change. With
`--validity N`, N comparisons of VALIDITY_SCRIPT with itself and N with steps that are 5 % longer, in turns. Each
comparison is kept as JSON in FOLDER when it ends, and what is there is not repeated: start it again after an interrupt.
`FOLDER/table.md` is written at the end.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec

from profiling.format import duration
from profiling.verdict.record import ComparisonRecord
from profiling.vocabulary import Verdict
from tests.bench.targets import Finding, report

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).with_name("scripts")
VALIDITY_SCRIPT = "loop"
SHARE = 0.05  # that a step is longer, in the comparisons of the validity
BUDGET_S = 10.0
COLUMNS = ("script", "B", "verdict", "B / A, 95 % interval", "noise floor", "results", "seconds")


class Case(NamedTuple):
    """A comparison: of a script, and the options of B; none is an A/A."""

    script: str
    options: str = ""


CASES = [
    Case("loop"),
    Case("loop", "--channels-last"),
    Case("loop", f"--spin {SHARE}"),
    Case("loop", "--workers 2"),
    Case("scaled", "--keep-grads"),
    Case("accelerated"),
    Case("accelerated", "--batch-size 128"),
    Case("lightning_fit"),
    Case("lightning_fit", "--batch-size 128"),
    Case("gan"),
    Case("gan", f"--spin {SHARE}"),
    Case("inference"),
    Case("inference", "--channels-last"),
]


def measured(case: Case, file: Path) -> ComparisonRecord | str:
    """The comparison that `file` holds, or that is made now and kept there; why it failed, which is not kept."""
    if not file.exists():
        script = str(SCRIPTS / f"{case.script}.py")
        command = [
            sys.executable,
            "-m",
            "profiling",
            "ab",
            script,
            f"{script} {case.options}".strip(),
            "--json",
            "--keep-heap",
        ]
        done = subprocess.run(
            [*command, "--budget-s", str(BUDGET_S)],
            cwd=file.parent,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=False,
        )
        if done.returncode:
            return done.stderr.decode(errors="replace").strip().partition("\n")[0]
        file.with_suffix(".new").write_bytes(done.stdout)
        file.with_suffix(".new").rename(file)
    return msgspec.json.decode(file.read_bytes(), type=ComparisonRecord)


def row(case: Case, result: ComparisonRecord | str) -> tuple[str, ...]:
    """The cells of the table."""
    name = case.options or "the same"
    if isinstance(result, str):
        return (case.script, name, f"failed: {result}", "", "", "", "")
    effect, numerics = result.comparison.declared_effect, result.comparison.numerics
    interval = "" if effect is None else f"{effect.ratio:.4f} ({effect.ratio_low:.4f} – {effect.ratio_high:.4f})"
    floor = "" if effect is None else f"{effect.floor_ratio:.4f}"
    agreement = "" if numerics is None else str(numerics.measured)
    return (case.script, name, str(result.comparison.verdict), interval, floor, agreement, f"{result.seconds:.0f}")


def table(rows: list[tuple[str, ...]]) -> str:
    """In Markdown."""
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [COLUMNS, ("---",) * len(COLUMNS), *rows])


def findings(pairs: list[tuple[Case, ComparisonRecord | str]]) -> list[Finding]:
    """Shares of the comparisons whose verdict is right, and of the intervals that contain the true ratio."""
    found = []
    for kind, options, right in (
        ("A/A: called an effect", "", {Verdict.slower, Verdict.faster}),
        (f"{SHARE:.0%}: called slower", f"--spin {SHARE}", {Verdict.slower}),
    ):
        records = [result for case, result in pairs if case.options == options and not isinstance(result, str)]
        effects = [record.comparison.declared_effect for record in records]
        known = [effect for effect in effects if effect is not None]
        true_ratio = 1 + SHARE if options else 1.0
        covered = [effect.ratio_low <= true_ratio <= effect.ratio_high for effect in known]
        if known:
            called = sum(effect.verdict in right for effect in known) / len(known)
            bounds = {"at_least": 0.9} if options else {"at_most": 0.05}
            found.append(Finding(name=kind, measured=called, **bounds))
            found.append(Finding(name=f"{kind.partition(':')[0]}: interval covers", measured=sum(covered) / len(known)))
    return found


def main() -> None:
    """Measure what is lacking, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench_scripts"), help="default: %(default)s")
    parser.add_argument("--validity", type=int, default=0, metavar="N", help="N comparisons of each kind instead")
    args = parser.parse_args()
    cases = [Case(VALIDITY_SCRIPT), Case(VALIDITY_SCRIPT, f"--spin {SHARE}")] * args.validity or CASES
    kind = "validity" if args.validity else "kinds"
    folder = args.folder.absolute() / kind
    folder.mkdir(parents=True, exist_ok=True)
    pairs = []
    for number, case in enumerate(cases):
        result = measured(case, folder / f"{number:02}-{case.script}{case.options.replace(' ', '')}.json")
        pairs.append((case, result))
        print(" | ".join(row(case, result)), flush=True)
    text = table([row(*pair) for pair in pairs])
    (folder / "table.md").write_text(text)
    seconds = sum(result.seconds for _, result in pairs if not isinstance(result, str))
    title = (
        f"Verdicts of {len(pairs)} comparisons of scripts in {duration(seconds * 1e6)} (shares); {folder / 'table.md'}"
    )
    report(title, findings(pairs), {"comparisons": [row(*pair) for pair in pairs]}, args.out)


if __name__ == "__main__":
    main()
