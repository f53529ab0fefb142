"""Prove everything on the device of this machine: `python -m tests.accelerator [device=auto] [limit_s=480] [out=DIR]`.

In order: correctness of every experiment and switch, the evidence of traces and clocks, the pipeline against a plain
loop, memory and FLOP/s; then a ladder of the switches that matter on a device, until the time is up. Each piece leaves
a JSON file when it is done; a second start with the same `out` goes on, and asks again what failed. With `device=cpu`
the same pieces run shrunk, so that nothing but the device is new on a machine that has one.

Needs no network. What a PyTorch image lacks is taken from `.wheels/`, which `make accelerator-wheels` fills elsewhere.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from tests.accelerator import packages, parent, results, table
from tests.accelerator.parent import Deadline, run_group
from tests.accelerator.results import Result

DEFAULTS = {"device": "auto", "limit_s": "480", "out": "accelerator-out"}
DEVICES = ("auto", "cpu", "cuda", "xpu", "mps")
REPORT_S = 20.0  # of the limit: to end what runs, draw and write
SIDE_BY_SIDE = 4  # workers of correctness, which times nothing; one for each four cores
GROUPS = ("correctness", "evidence", "speed", "workload", "ladder")


def main() -> int:
    """Run what the time allows; return 1 if a piece failed."""
    start = time.monotonic()
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        return 0
    options = parsed(sys.argv[1:])
    out = Path(options["out"]).absolute()
    out.mkdir(parents=True, exist_ok=True)
    if packages.missing():
        packages.unpack(packages.WHEELS, out / "unpacked")
    if absent := packages.missing():
        refuse(f"missing: {', '.join(absent)}; carry them in {packages.WHEELS}/ (make accelerator-wheels)")
    device = found_device(options["device"])
    results.forget_what_did_not_pass(out)
    earlier = len(results.read_all(out))
    print(f"device={device}: {earlier} pieces are done; {'going on' if earlier else 'starting'}", flush=True)
    deadline = Deadline(float(options["limit_s"]) - REPORT_S - (time.monotonic() - start))
    for number in (signal.SIGTERM, signal.SIGINT):  # what is done is kept and told, as at the deadline
        signal.signal(number, deadline.cut)
    for group in GROUPS:
        shares = max(1, min(SIDE_BY_SIDE, (os.cpu_count() or 1) // 4)) if group == "correctness" else 1
        run_group(group, device, out, shares, deadline, lambda result: show(result, deadline))
        print(f"-- {group}: {deadline.used_s:.0f} s so far", flush=True)
    parent.report(out, REPORT_S / 2)
    shutil.rmtree(out / "unpacked", ignore_errors=True)
    text = table.write(out)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    print(f"{text}\n{out}: {size / 1e6:.2f} MB; {time.monotonic() - start:.0f} s", flush=True)
    return int(any(result.status == results.FAILED for result in results.read_all(out).values()))


def parsed(arguments: list[str]) -> dict[str, str]:
    """The options, each `key=value`."""
    options = dict(DEFAULTS)
    for text in arguments:
        key, equals, value = text.partition("=")
        if key not in options or not equals:
            refuse(f"{text}: no such option; there are {', '.join(f'{name}=' for name in options)}")
        options[key] = value
    if options["device"] not in DEVICES:
        refuse(f"device={options['device']}: not one of {', '.join(DEVICES)}")
    if not options["limit_s"].replace(".", "", 1).isdigit() or float(options["limit_s"]) <= REPORT_S:
        refuse(f"limit_s={options['limit_s']}: out of range; allowed: more than {REPORT_S:.0f} seconds")
    return options


def found_device(wanted: str) -> str:
    """`wanted` with `auto` resolved."""
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    there = ["cpu", *([accelerator.type] if accelerator else [])]
    if wanted != "auto" and wanted not in there:
        refuse(f"device={wanted}: there is none here; this machine has {', '.join(there)}")
    return there[-1] if wanted == "auto" else wanted


def refuse(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def show(result: Result, deadline: Deadline) -> None:
    error = f": {result.error.splitlines()[0]}" if result.error else ""
    print(f"{deadline.used_s:5.0f} s  {result.status:14}  {result.name}{error}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
