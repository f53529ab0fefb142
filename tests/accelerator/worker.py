"""A process that asks the pieces of one group, one after the other, and writes what each has shown.

It tells its parent on standard output what it begins: `begin NAME`; whatever the pieces print goes to a log. Pieces
that have a result are skipped. The parent holds standard input open: when the parent ends, so does this process, with
all that it has started.
"""

import importlib
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from tests.accelerator import results
from tests.accelerator.results import Result

ERROR_LINES = 12


def ask_all(group: str, device: str, out: Path, share: int, shares: int) -> None:
    """Ask every `shares`-th piece, from number `share` on."""
    said = os.fdopen(os.dup(1), "w", buffering=1)
    log = out / "logs" / f"{group}-{share}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from profiling.errors import NotApplicableError  # imports nothing of torch; below, nearly everything does
    from tests.accelerator.context import Context

    module = importlib.import_module(f"tests.accelerator.{group}")
    pieces = module.pieces(Context(device, out))
    for piece in [*pieces][share::shares]:
        name = f"{group}/{piece}"
        if results.path_of(out, name).exists():
            continue
        print(f"== {name}", flush=True)
        said.write(f"begin {name}\n")
        start = time.perf_counter()
        try:
            status, found, error = results.PASSED, pieces[piece](), ""
        except NotApplicableError as reason:
            status, found, error = results.NOT_APPLICABLE, {}, str(reason)
        except BaseException as failure:  # also pytest's, which is no Exception
            traceback.print_exc()
            lines = "".join(traceback.format_exception_only(failure)).strip().splitlines()
            status, found, error = results.FAILED, {}, "\n".join(lines[:ERROR_LINES])
        results.write(out, Result(name, status, time.perf_counter() - start, found, error))


def end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    group, device, out, share, shares = sys.argv[1:]
    ask_all(group, device, Path(out), int(share), int(shares))
