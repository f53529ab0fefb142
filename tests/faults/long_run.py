"""A run of many steps: its memory, its files and its open handles, from time to time."""

import tempfile
import time
from pathlib import Path

import psutil

from profiling import run_record
from tests.faults.runs import finish, run_folder, start, steps_of
from train.ranks.state import files

STEPS_PER_EPOCH = 100
MODEL = (
    "data=synthetic", f"data.train_samples={8 * STEPS_PER_EPOCH}", "data.test_samples=40", "data.channels=1",
    "data.image_size=8", "batch_size=8", "model=mlp", "model.width=4", "augment.noise=0.1", "precision=fp32",
    "threads=1", "checkpoint_every=1000",
)  # fmt: skip
MIB = 2**20
GROWTH_LIMIT = 1.05  # of resident memory, after the first tenth of the steps


def main(steps: int, every_s: float) -> int:
    """Run, print a line every so many seconds; return 1 if memory or handles have grown."""
    looks: list[tuple[int, float, int]] = []
    print(f"{'seconds':>8} {'steps':>8} {'MiB':>8} {'handles':>8} {'events KiB':>11} {'states KiB':>11}")
    with tempfile.TemporaryDirectory() as temporary:
        output, begin_s = Path(temporary), time.monotonic()
        process = start((*MODEL, f"epochs={steps // STEPS_PER_EPOCH}", f"output={output}"))
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            time.sleep(every_s)
            folder = run_folder(output)
            states = files(folder) if folder else []
            if folder is None or not states:
                continue
            try:
                done = steps_of(states[0], STEPS_PER_EPOCH)
                resident, handles = watched.memory_info().rss / MIB, watched.num_fds()
                sizes = [sum(file.stat().st_size for file in some) for some in (folder.glob("events.*"), states)]
            except (OSError, psutil.Error):  # it ended meanwhile, or a state was replaced
                continue
            looks.append((done, resident, handles))
            kib = [size / 1024 for size in sizes]
            now_s = time.monotonic() - begin_s
            print(f"{now_s:8.0f} {done:8} {resident:8.1f} {handles:8} {kib[0]:11.0f} {kib[1]:11.0f}", flush=True)
        status, _, said = finish(process)
        assert status == 0, said
        folder = run_folder(output)
        assert folder is not None
        record = run_record.read(folder)
        for file in sorted(folder.iterdir()):
            if file.is_file():
                print(f"{file.name}: {file.stat().st_size / 1024:,.0f} KiB")
    timed = record.stages["train"].timed
    print(f"steps: {timed.steps:,}, of which the record has {len(timed.step_s):,}")
    warm = [look for look in looks if look[0] >= steps / 10]
    growth, handles = warm[-1][1] / warm[0][1], warm[-1][2] - warm[0][2]
    print(f"resident memory after step {warm[0][0]:,}: {warm[0][1]:.1f} MiB, at the end: {warm[-1][1]:.1f} MiB")
    print(f"growth ×{growth:.3f} (limit {GROWTH_LIMIT}); handles {handles:+}")
    return 1 if growth > GROWTH_LIMIT or handles > 0 else 0
