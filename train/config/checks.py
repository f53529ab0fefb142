"""Ranges of values, checked where a configuration is made; an error is a UserError of one line."""

import os

from profiling.errors import UserError, nearest

MAX_PER_CORE = 8  # threads, worker processes: more only wait for each other, until the system has no process ids left


def check(ok: bool, key: str, value: object, allowed: str) -> None:
    """Refuse `value` of `key` unless it is `ok`."""
    if not ok:
        raise UserError(f"{key}={'null' if value is None else value}: out of range; allowed: {allowed}")


def check_range(key: str, value: int, least: int, most: int) -> None:
    """Refuse a number outside of `least` to `most`."""
    check(least <= value <= most, key, value, f"{least} to {most:,}")


def check_optional(key: str, value: int | None, least: int, most: int) -> None:
    """As `check_range`; None is allowed."""
    check(value is None or least <= value <= most, key, value, f"null, or {least} to {most:,}")


def most_per_core() -> int:
    """The largest number of threads or processes that is allowed on this machine."""
    return MAX_PER_CORE * (os.cpu_count() or 1)


def check_share(key: str, value: float) -> None:
    """Refuse what is no share of 1, or all of it."""
    check(0 <= value < 1, key, value, "0 to below 1")


def check_choice(key: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse what is not one of the words in `allowed`."""
    if value not in allowed:
        raise UserError(f"{key}={value}: not one of {', '.join(allowed)}{nearest(value, allowed)}")
