"""Numbers and names as text: durations, sizes, ratios, intervals. Every table, chart and page uses these."""

import re
from collections.abc import Sequence

_SHORTEST_US = 1e-6
"""Less than a picosecond is written as 0: it is what rounding leaves of a sum."""
MAX_NAME_BYTES = 128
"""Most file systems take names of 255 bytes, encrypted ones of 143."""
_HASH_DIGITS = 8
_SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def duration(time_us: float) -> str:
    """Write microseconds with three digits and a unit: `812 ns`, `14.4 µs`, `2.05 ms`, `1,204 s`."""
    if abs(time_us) < _SHORTEST_US:
        return "0 µs"
    if 0 < time_us < 1:
        return f"{_digits(time_us * 1000)} ns"
    for unit, size_us in (("s", 1e6), ("ms", 1e3)):
        if time_us >= size_us:
            return f"{_digits(time_us / size_us)} {unit}"
    return f"{_digits(time_us)} µs"


def duration_change(time_us: float) -> str:
    """Write a difference of microseconds, with its sign."""
    return f"{'-' if time_us <= -_SHORTEST_US else '+'}{duration(abs(time_us))}"


def axis_unit(time_us: float) -> tuple[str, float]:
    """Return the unit of an axis up to `time_us`, and its length in microseconds."""
    return next(((unit, unit_us) for unit, unit_us in (("s", 1e6), ("ms", 1e3)) if time_us >= unit_us), ("µs", 1.0))


def size(byte_count: float) -> str:
    """Write a number of bytes with three digits and a unit: `19.2 MiB`."""
    unit, unit_bytes = size_unit(byte_count)
    return f"{_digits(byte_count / unit_bytes)} {unit}"


def size_unit(byte_count: float) -> tuple[str, int]:
    """Return the largest unit that is at most `byte_count`, and its bytes: for an axis up to `byte_count`."""
    power = next((power for power in range(len(_SIZE_UNITS) - 1, 0, -1) if abs(byte_count) >= 1024**power), 0)
    return _SIZE_UNITS[power], 1024**power


def count(number: float) -> str:
    """Write a count; one per sample may be a fraction."""
    return f"{number:,.0f}" if float(number).is_integer() else _digits(number)


def counted(number: int, noun: str) -> str:
    """Write a count with its noun: `1 step`, `2,000 steps`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """Write a fraction of 1: `12.3 %`."""
    return f"{100 * share:.1f} %"


def phase_name(name: str, derived: bool) -> str:
    """Name a phase; `derived`: the trace does not mark it."""
    return f"{name} (derived)" if derived else name


def flops(number: float) -> str:
    """Write floating-point operations: `1.84 GFLOP`."""
    power = next((power for power in range(5) if abs(number) < 1000 ** (power + 1)), 5)
    return f"{_digits(number / 1000**power)} {('', 'k', 'M', 'G', 'T', 'P')[power]}FLOP"


def ratio(value: float) -> str:
    """Write a ratio so that the rows of a table align: `×1.052`, `×21.3`, `×1,204`."""
    digits = 3 if value < 10 else 1 if value < 100 else 0
    return f"×{value:,.{digits}f}"


def interval(low: float, high: float) -> str:
    """Write the interval of a ratio: `1.043 – 1.061`."""
    return f"{ratio(low)[1:]} – {ratio(high)[1:]}"


def probability(value: float | None) -> str:
    """Write a p-value; empty where there is none."""
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def minute(iso_time: str) -> str:
    """Shorten an ISO 8601 time to the minute."""
    return iso_time[:16].replace("T", " ")


def _digits(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"


def visible(text: str) -> str:
    """Write characters without a picture of their own as escape sequences of Python, all but the space.

    Names from files must not control the user's terminal, reverse the direction of text, or look like other names
    (https://unicode.org/reports/tr36/#Visual_Security_Issues).
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def file_name(parts: Sequence[str]) -> str:
    """Join `parts` to a file's name; what does not fit into MAX_NAME_BYTES is counted, and a hash tells it apart."""
    import hashlib  # slow to import, and most programs name no file

    code = hashlib.sha256(repr(parts).encode()).hexdigest()[:_HASH_DIGITS]
    parts = [re.sub(r"[^\w.+-]|^[.]+", "_", part) for part in parts]
    label = "+".join(parts)
    kept = len(parts)
    while len(label.encode()) > MAX_NAME_BYTES and kept > 1:
        kept -= 1
        label = "+".join([*parts[:kept], f"{len(parts) - kept}-more-{code}"])
    if len(label.encode()) <= MAX_NAME_BYTES:
        return label
    end = f"-{code}" if len(parts) == 1 else f"+{len(parts) - 1}-more-{code}"
    return parts[0].encode()[: MAX_NAME_BYTES - len(end)].decode(errors="ignore") + end
