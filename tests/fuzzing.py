"""How many damaged inputs a test of robustness tries: FUZZ_CASES of the environment, else a few hundred."""

import os
import random
from collections.abc import Callable

CASES = int(os.environ.get("FUZZ_CASES", "300"))


def damaged(content: bytes, chance: random.Random) -> bytes:
    """`content` with some bytes replaced, inserted or cut off."""
    position = chance.randrange(len(content))
    some = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 9)))
    ways: list[Callable[[], bytes]] = [
        lambda: content[:position] + bytes([content[position] ^ chance.randrange(1, 256)]) + content[position + 1 :],
        lambda: content[:position] + some + content[position + len(some) :],
        lambda: content[:position] + some + content[position:],
        lambda: content[:position],
        lambda: content[position:],
    ]
    return chance.choice(ways)()
