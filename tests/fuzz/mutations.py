"""Changes that make sense for several kinds: odd values, and damaged bytes."""

import random
from typing import Any

CASES = 300
"""How many damaged inputs a test of robustness tries; `python -m tests.fuzz` tries more."""
NUMBERS = (
    0, 1, -1, 2, 0.5, -0.5, 1e-320, 1e16, 1e300, 1e308, -1e308, 2**31 - 1, 2**31, -(2**31), 2**32, 2**52, 2**53 + 1,
    2**63 - 1, 2**63, -(2**63), 2**64 - 1, 2**64, -(2**64), 10**30, 10**400, float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
TEXTS = (
    "", "x", "1", "-1", "1e400", "nan", "\x00", "\x1b[31m", "[/]", "../..", "a\nb", "\ud800", "\u202e", "ü" * 300,
    "${x}", "'", '"', "\\", "%s", "None", "true", "0x10", "1_000", "٣", " ",
)  # fmt: skip


def odd_value(source: random.Random, depth: int = 0) -> Any:
    """A value of any JSON type."""
    kind = source.randrange(8 if depth < 3 else 6)
    if kind < 3:
        return source.choice(NUMBERS)
    if kind < 5:
        return source.choice(TEXTS)
    if kind == 5:
        return source.choice((None, True, False))
    if kind == 6:
        return [odd_value(source, depth + 1) for _ in range(source.choice((0, 1, 2, 40)))]
    return {source.choice(TEXTS): odd_value(source, depth + 1) for _ in range(source.choice((0, 1, 3)))}


def changed_bytes(source: random.Random, content: bytes) -> bytes:
    """Content with flipped, repeated, removed or inserted bytes, or cut short."""
    changed = bytearray(content)
    for _ in range(source.choice((1, 1, 1, 4, 30))):
        at = source.randrange(len(changed) + 1)
        length = source.choice((1, 1, 2, 8, 100))
        kind = source.randrange(6)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << source.randrange(8)
        elif kind == 1 and at < len(changed):
            changed[at] = source.choice((0, 0xFF, 0x7F, 0x80, ord('"'), ord("{"), ord("}"), ord(","), ord("\\")))
        elif kind == 2:
            del changed[at : at + length]
        elif kind == 3:
            changed[at:at] = changed[at : at + length]
        elif kind == 4:
            changed[at:at] = source.randbytes(length)
        elif source.random() < 0.2:
            del changed[at:]
    return bytes(changed)
