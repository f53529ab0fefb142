"""Fuzz: `python -m tests.fuzz [KIND ...] [--cases N] [--seed S]`; `--again FILE` runs a case that failed once more."""

import argparse
import json
import sys
import time
from pathlib import Path

import msgspec

from tests.fuzz.case import Case, printed
from tests.fuzz.harness import KINDS, again, fuzz


def save(case: Case, folder: Path) -> Path:
    """Write a case to a file; in ASCII, since it may have text that UTF-8 cannot encode."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{case.kind}-{case.seed}-{case.number}.json"
    file.write_text(json.dumps(msgspec.to_builtins(case)))
    return file


def read(file: Path) -> Case:
    """Read a case that `save` wrote."""
    return msgspec.convert(json.loads(file.read_text()), Case)


def main() -> int:
    """Run the cases; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"any of {', '.join(KINDS)}; none is all of them")
    parser.add_argument("--cases", type=int, help=f"of each kind (default: {KINDS})")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--again", type=Path, metavar="FILE", help="run this saved case, and nothing else")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="for failed cases (default: %(default)s)")
    options = parser.parse_args()
    if unknown := sorted(set(options.kinds) - set(KINDS)):
        parser.error(f"no such kind: {', '.join(unknown)}; there are: {', '.join(KINDS)}")
    if options.again:
        fault = again(read(options.again))
        printed(fault or "nothing wrong")
        return 1 if fault else 0
    failed = False
    for kind in options.kinds or KINDS:
        start, faults = time.monotonic(), 0
        cases = KINDS[kind] if options.cases is None else options.cases
        for failure in fuzz(kind, options.seed, range(options.first, options.first + cases)):
            case = failure.case
            file = save(case, options.out)
            printed(f"{kind}, case {case.number}: {failure.fault}\n  again: python -m tests.fuzz --again {file}")
            faults += 1
        printed(f"{kind}: {cases} cases, {faults} failed, {time.monotonic() - start:.0f} s")
        failed = failed or bool(faults)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
