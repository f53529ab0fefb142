"""The options of `python -m profiling ab` and `abtrace-ab`. Light to import: `python -m profiling` always does."""

import argparse
import math

from profiling.terminal.arguments import count

EPILOG = """\
examples:
  ab 'train.py --batch-size 64' 'train.py --batch-size 64 --amp'    two command lines
  ab train.py                                                       the noise of this script, here, now
  ab train.py --git-a origin/main                                   that revision against the working tree
  ab train.py --env-b OMP_NUM_THREADS=1                             two environments
  ab train.py --python-b ../venv-next/bin/python                    two interpreters, two releases of torch
  ab '-m package.train --cfg x' '-m package.train --cfg y'          modules

Exit status with --fail-slower: 1 if a slowdown of that size is called, or the measurement failed; with --strict 2 if
such a slowdown can neither be called nor excluded; else 0.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what a comparison of two scripts takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("a", metavar="A", help="a script and its arguments in one word, or `-m MODULE ARGUMENTS`")
    parser.add_argument("b", metavar="B", nargs="?", help="what to compare it with (default: A)")
    parser.add_argument(
        "--env-b", metavar="NAME=VALUE", action="append", default=[], type=_variable, help="a variable of B's alone"
    )
    parser.add_argument("--python-b", metavar="PATH", help="B's interpreter (default: this one)")
    parser.add_argument("--git-a", metavar="REVISION", help="A runs in a worktree of that revision")
    parser.add_argument("--samples", metavar="N", type=count, help="samples in a step (default: found out)")
    parser.add_argument("--seed", metavar="N", type=_seed, default=0, help="of random, numpy and torch (default: 0)")
    parser.add_argument(
        "--keep-heap", action="store_true", help="freed memory stays with both arms' processes: less noise on CPUs"
    )
    parser.add_argument("--budget-s", metavar="S", type=_seconds, help="seconds of timed work, beside start-up")
    parser.add_argument("--max-s", metavar="S", type=_seconds, help="end after so many seconds (default: by the plan)")
    parser.add_argument("--fail-slower", metavar="PERCENT", type=_share, help="exit 1 if B is slower by that: 3%%")
    parser.add_argument("--strict", action="store_true", help="with --fail-slower: exit 2 if it could not decide")
    parser.add_argument("--json", action="store_true", help="the whole comparison, as JSON")


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=VALUE")
    return name, value


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:  # what numpy takes
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to {2**32 - 1}")
    return int(text)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    return number if number > 0 and math.isfinite(number) else math.nan


def _seconds(text: str) -> float:
    seconds = _number(text)
    if math.isnan(seconds):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def _share(text: str) -> float:
    share = _number(text.removesuffix("%")) / 100
    if math.isnan(share):
        raise argparse.ArgumentTypeError(f"{text!r} is no percentage above 0, such as 3%")
    return share
