"""Faults that happen for real while runs train; each is a row: what was done, what the program said, what was lost."""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import psutil
from PIL import Image

from profiling import run_record
from tests.faults.runs import SMALL, START_S, different_weights, finish, run_folder, start, steps_of, wait_for_state
from train.ranks.scratch import PREFIX
from train.ranks.state import FOLDER, files

RANK_TIMEOUT_S = 10
CLOCK_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
#define BACK_S 86400
int clock_gettime(clockid_t clock, struct timespec *now) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec -= BACK_S;
    return failed;
}
"""
"""Sets the clock of one process back by a day; that of the machine stays."""


class Row(NamedTuple):
    """One fault."""

    done: str
    said: str
    lost: str


def left(output: Path) -> str:
    """What a run left: the status of its record, and files that should not be there."""
    folder = run_folder(output)
    if folder is None:
        return "no folder of a run is left"
    partial = [path.name for path in folder.rglob(".tmp-*")]
    try:
        status = f'record: "{run_record.read(folder).status}"'
    except (OSError, ValueError):
        status = "no record"
    states = f"; {len(files(folder))} states to go on from" if (folder / FOLDER).exists() else ""
    return f"{status}{states}" + (f"; HALF-WRITTEN: {partial}" if partial else "")


def row(done: str, process: "subprocess.Popen[str]", output: Path) -> Row:
    """The row of a run that ends by itself."""
    status, _, said = finish(process)
    return Row(done, f"{' / '.join(said) or 'nothing'} (status {status})", left(output))


@contextmanager
def disk(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def full_disk(folder: Path) -> Iterator[Row]:
    """No room for events, and none for a state while training."""
    for size, room in (("20k", "the record"), ("300k", "the first state")):
        with disk(folder / size, f"size={size}") as small:
            process = start((*SMALL, "model.width=64", f"output={small}"))
            yield row(f"a disk of {size}, full before {room}", process, small)


def read_only(folder: Path) -> Iterator[Row]:
    """From the start, and while training."""
    with disk(folder / "disk", "ro") as output:
        yield row("`output` on a disk that can only be read", start((*SMALL, f"output={output}")), output)
    with disk(folder / "later", "size=50m") as output:
        process = start((*SMALL, "epochs=2000", f"output={output}"))
        wait_for_state(output, 1, process, 30)
        subprocess.run(["mount", "-o", "remount,ro", str(output)], check=False)
        yield row("that disk remounted read-only while it trains", process, output)


def class_folders(root: Path) -> Path:
    """A data set of image files."""
    for label in "ab":
        (root / label).mkdir(parents=True)
        for number in range(40):
            Image.effect_noise((32, 32), 50 + number).save(root / label / f"{number:02}.png")
    return root


def on_images(root: Path, output: Path, *overrides: str) -> tuple[str, ...]:
    """The command line of a run that reads files."""
    data = ("data=image_folder", f"data.root={root}", "data.image_size=12", "data.channels=1", "loader.workers=2")
    return (*(text for text in SMALL if not text.startswith("data")), *data, *overrides, f"output={output}")


def lost_file(folder: Path) -> Iterator[Row]:
    """An image is removed while it trains."""
    root = class_folders(folder / "data")
    process = start(on_images(root, folder / "runs", "epochs=2000"))
    wait_for_state(folder / "runs", 1, process, 4)
    (root / "a" / "07.png").unlink()
    yield row("an image file removed while it trains", process, folder / "runs")


def lost_folder(folder: Path) -> Iterator[Row]:
    """The run's own folder is removed while it trains."""
    process = start((*SMALL, "epochs=2000", f"output={folder / 'runs'}"))
    wait_for_state(folder / "runs", 1, process, 30)
    found = run_folder(folder / "runs")
    assert found is not None
    shutil.rmtree(found)
    yield row("the folder of the run removed while it trains", process, folder / "runs")


def no_image(folder: Path) -> Iterator[Row]:
    """A file that is no image, among those that are."""
    root = class_folders(folder / "data")
    (root / "b" / "07.png").write_bytes(b"not an image")
    yield row("an image that is none", start(on_images(root, folder / "raise")), folder / "raise")
    process = start(on_images(root, folder / "skip", "data.on_error=skip"))
    status, output, said = finish(process)
    notes = [line.partition("note: ")[2] for line in output.splitlines() if "note: " in line]
    yield Row(
        "the same, `data.on_error=skip`", f"{' / '.join([*notes, *said])} (status {status})", left(folder / "skip")
    )


def killed_worker(folder: Path) -> Iterator[Row]:
    """A worker of the loader is killed."""
    process = start((*SMALL, "loader.workers=2", "epochs=2000", f"output={folder}"))
    wait_for_state(folder, 1, process, 30)
    parent = psutil.Process(process.pid)
    next(child for child in parent.children() if child.cmdline() == parent.cmdline()).kill()  # forked
    yield row("a loader worker killed", process, folder)


def clock(folder: Path) -> Iterator[Row]:
    """The clock is a day behind when a run goes on."""
    (folder / "clock.c").write_text(CLOCK_SHIM)
    library = folder / "clock.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(folder / "clock.c"), "-ldl"], check=True)
    whole, cut = folder / "whole", folder / "cut"
    finish(start((*SMALL, f"output={whole}")))
    process = start((*SMALL, f"output={cut}"))
    wait_for_state(cut, 100, process, 30)
    process.send_signal(signal.SIGTERM)
    finish(process)
    status, _, said = finish(start(("resume=latest", f"output={cut}"), LD_PRELOAD=str(library)))
    before, after = run_folder(whole), run_folder(cut)
    assert before is not None and after is not None
    same = "weights identical" if different_weights(before, after) == [] else "WEIGHTS DIFFER"
    events = [file.name for file in sorted(after.glob("events.*"))]
    yield Row("the clock set back by a day before `resume=latest`", f"{said} (status {status})", f"{same}; {events}")


def same_second(folder: Path) -> Iterator[Row]:
    """Two runs begin at once."""
    processes = [start((*SMALL, f"output={folder}")) for _ in range(2)]
    statuses = [finish(process)[0] for process in processes]
    folders = sorted(path.name for path in folder.glob("*/*"))
    yield Row("two runs started in the same second", f"statuses {statuses}", f"folders {folders}")


def ranks(folder: Path) -> Iterator[Row]:
    """A rank hangs, or dies; what it leaves in TMPDIR."""
    for number, what in ((signal.SIGSTOP, "stopped (SIGSTOP), so that it hangs"), (signal.SIGKILL, "killed (SIGKILL)")):
        output, temporary = folder / number.name, folder / f"tmp-{number.name}"
        temporary.mkdir()
        arguments = (*SMALL, "epochs=2000", f"rank_timeout_s={RANK_TIMEOUT_S}", f"output={output}")
        process = start(arguments, 2, TMPDIR=str(temporary))
        wait_for_state(output, 1, process, 30)
        time.sleep(1)
        rank_1(process.pid).send_signal(number)
        found = row(f"rank 1 {what}, rank_timeout_s={RANK_TIMEOUT_S}", process, output)
        names = [path.name for path in temporary.glob(f"{PREFIX}*")]
        resumed = start((f"resume={run_folder(output)}", f"rank_timeout_s={RANK_TIMEOUT_S}"), 2, TMPDIR=str(temporary))
        folder_of_run = run_folder(output)
        assert folder_of_run is not None
        wait_for_state(output, steps_of(files(folder_of_run)[0], 30) + 25, resumed, 30)
        resumed.send_signal(signal.SIGTERM)
        finish(resumed)
        after = [path.name for path in temporary.glob(f"{PREFIX}*")]
        yield found._replace(lost=f"{found.lost}; in TMPDIR {names}; after the next start and its end: {after}")


def rank_1(launcher: int) -> psutil.Process:
    """The process of rank 1."""
    return next(child for child in psutil.Process(launcher).children() if child.environ().get("RANK") == "1")


def watched(folder: Path) -> Iterator[Row]:
    """A run's folder is removed while TensorBoard shows it; then there are 1,000 runs."""
    status, _, said = finish(start((*SMALL, "profiler=light", f"output={folder / 'runs'}")))
    assert status == 0, said
    run = run_folder(folder / "runs")
    assert run is not None
    copies = folder / "many" / "baseline"
    for number in range(1000):
        shutil.copytree(run, copies / f"2026-01-01_00-00-00-{number:06}")
    paths = (
        "data/plugin/abtrace/runs",
        f"data/plugin/abtrace/figures?run={quote(f'{run.parent.name}/{run.name}')}",
        "data/runs",
    )
    with tensorboard(folder / "runs", folder / "said") as address:
        before = [fetched(address + path)[0] for path in paths]
        shutil.rmtree(run)
        time.sleep(8)
        after = [fetched(address + path)[0] for path in paths]
    errors = [line for line in (folder / "said").read_text().splitlines() if "Traceback" in line]
    yield Row(
        "the folder of a run removed under a watching TensorBoard",
        f"its list, a view, TensorBoard's own: statuses {before} before, {after} after; {len(errors)} tracebacks",
        "the run",
    )
    with tensorboard(folder / "many", folder / "said") as address:
        seconds = []
        for _ in range(2):
            begin_s = time.monotonic()
            status, listed = fetched(address + paths[0])
            seconds.append(time.monotonic() - begin_s)
    yield Row(
        "1,000 runs in the logdir",
        f"status {status}, {listed.count('2026-01-01_00-00-00-')} runs listed",
        f"answered in {seconds[0]:.1f} s, then in {seconds[1]:.1f} s",
    )


@contextmanager
def tensorboard(logdir: Path, said: Path) -> Iterator[str]:
    """Run `tensorboard`; give its address. What it says is in the file `said`."""
    command = [Path(sys.executable).with_name("tensorboard"), "--logdir", logdir, "--port", "0", "--reload_interval=1"]
    with said.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        end_s = time.monotonic() + START_S
        while not (found := re.search(r"http://\S+?:(\d+)/", said.read_text())):
            assert time.monotonic() < end_s and process.poll() is None, said.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{found[1]}/"
        process.terminate()


def fetched(address: str) -> tuple[int, str]:
    """The status of an answer, and its text."""
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, str(error)


FAULTS: dict[str, Callable[[Path], Iterator[Row]]] = {
    function.__name__: function
    for function in (
        full_disk, read_only, lost_file, lost_folder, no_image, killed_worker, clock, same_second, ranks, watched,
    )
}  # fmt: skip


def main(names: list[str]) -> int:
    """Let the named faults happen, or all; print the rows as Markdown."""
    for name in names or FAULTS:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            for found in FAULTS[name](Path(folder)):
                cells = (cell.replace(folder, "…").replace("|", "/") for cell in found)
                print(f"| {' | '.join(cells)} |", flush=True)
    return 0
