"""`python -m tests.faults kills [--count N] [--signal SIGTERM]`, `table [NAME ...]`, `long [--steps N]`."""

import argparse
import signal
import sys

from tests.faults import kills, long_run, table


def main() -> int:
    """Run one kind; return 1 if something was not as promised."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    of_kills = kinds.add_parser("kills", help="end runs at random moments, and let them go on")
    of_kills.add_argument("--count", type=int, default=20, help="default: %(default)s")
    of_kills.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    of_kills.add_argument("--signal", type=signal.Signals.__getitem__, default=signal.SIGKILL, help="default: SIGKILL")
    of_table = kinds.add_parser("table", help="faults that happen for real; some need root, to mount a disk")
    of_table.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(table.FAULTS)}; none is all")
    of_long = kinds.add_parser("long", help="a run of many steps: memory, files, handles")
    of_long.add_argument("--steps", type=int, default=100_000, help="default: %(default)s")
    of_long.add_argument("--every-s", type=float, default=10, help="between two looks (default: %(default)s)")
    options = parser.parse_args()
    if options.kind == "table":
        return table.main(options.names)
    if options.kind == "long":
        return long_run.main(options.steps, options.every_s)
    return kills.main(options.count, options.signal, options.seed)


if __name__ == "__main__":
    sys.exit(main())
