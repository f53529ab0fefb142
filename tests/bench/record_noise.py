"""Record how block timings scatter on this machine: `python -m tests.bench.record_noise --out FILE`.

Two workers run the *same* small training loop, one at a time, in the order that train.ab uses (0 1 1 0). Whatever
differs between their blocks is noise, so the series are the material for `tests.bench.bench_validity_sim`. Workers are
started afresh for every launch, because a process keeps its own memory layout, and with it its own speed, for life.

Two things had to be mended before identical workers were equally fast (2-core virtual machine, five to six launches):

- glibc gives freed memory back to the kernel. One process settled at 47 page faults per step and its twin at 336, and
  stayed 16 % slower for as long as they lived. KEEP_HEAP takes the faults to zero.
- OpenMP threads of the worker that has just stopped spin on for a while: the first three steps after a switch took
  10, 7 and 4 ms instead of 3.8. LEAD_IN_STEPS run before the clock starts.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import torch
from sklearn.datasets import load_digits
from torch import nn

PHASES = ("train", "forward", "optimizer", "evaluate")
BATCH_SIZE = 64
LEAD_IN_STEPS, TRAIN_STEPS, EVALUATE_BATCHES = 4, 8, 6  # blocks of about 60 ms on a 2-core virtual machine
WARM_UP_BLOCKS = 10
KEEP_HEAP = {"MALLOC_TRIM_THRESHOLD_": "-1", "MALLOC_MMAP_MAX_": "0"}  # man 3 mallopt; read when a process starts


class Launch(msgspec.Struct, frozen=True):
    """Blocks of two fresh workers, in the order in which they ran: 0 1 1 0, 0 1 1 0, ..."""

    block_s: float  # median wall time of a block, lead-in and switch included
    s_per_sample: dict[str, list[float]]  # phase -> [blocks]


class Recording(msgspec.Struct, frozen=True):
    """What `record_noise` writes; `busy` says that other work was allowed on the machine meanwhile."""

    busy: bool
    launches: list[Launch]


def make_block() -> Callable[[], list[float]]:
    """Build the workload; calling the result times one block and returns seconds per sample for each of PHASES."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(32 * 64, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters())
    loss_fn = nn.CrossEntropyLoss()
    clock = time.perf_counter

    def block() -> list[float]:
        forward_s = optimizer_s = start = 0.0
        for step in range(-LEAD_IN_STEPS, TRAIN_STEPS):
            if step == 0:
                forward_s = optimizer_s = 0.0
                start = clock()
            batch = torch.randint(len(images), (BATCH_SIZE,))
            x, y = images[batch], labels[batch]
            before_forward = clock()
            logits = model(x)
            forward_s += clock() - before_forward
            loss_fn(logits, y).backward()
            before_optimizer = clock()
            optimizer.step()
            optimizer.zero_grad()
            optimizer_s += clock() - before_optimizer
        train_s = clock() - start
        start = clock()
        with torch.no_grad():
            for i in range(EVALUATE_BATCHES):
                rows = slice(i * BATCH_SIZE, (i + 1) * BATCH_SIZE)
                (model(images[rows]).argmax(1) == labels[rows]).sum().item()
        evaluate_s = clock() - start
        trained, evaluated = TRAIN_STEPS * BATCH_SIZE, EVALUATE_BATCHES * BATCH_SIZE
        return [train_s / trained, forward_s / trained, optimizer_s / trained, evaluate_s / evaluated]

    return block


def worker(pipe: Connection) -> None:
    """Time one block for every message until None arrives."""
    block = make_block()
    while pipe.recv() is not None:
        pipe.send(block())


def record_launch(seconds: float) -> Launch:
    """Start two workers, warm them up, then alternate their blocks for `seconds`."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(2):
        here, there = context.Pipe()
        processes.append(context.Process(target=worker, args=(there,), daemon=True))
        processes[-1].start()
        pipes.append(here)

    def timed_block(index: int) -> tuple[float, list[float]]:
        start = time.perf_counter()
        pipes[index].send(True)
        samples = pipes[index].recv()
        return time.perf_counter() - start, samples

    order = (0, 1, 1, 0)
    for index in order * (WARM_UP_BLOCKS // 2):
        timed_block(index)
    wall_s, rows = [], []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for index in order:
            wall, samples = timed_block(index)
            wall_s.append(wall)
            rows.append(samples)
    for pipe in pipes:
        pipe.send(None)
    for process in processes:
        process.join()
    columns = zip(*rows, strict=True)
    series = {phase: [round(s, 9) for s in column] for phase, column in zip(PHASES, columns, strict=True)}
    return Launch(block_s=round(statistics.median(wall_s), 6), s_per_sample=series)


def main() -> None:
    """Record and write one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--launches", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=45, help="per launch")
    parser.add_argument("--busy", action="store_true", help="note in the file that other work ran meanwhile")
    args = parser.parse_args()
    os.environ.update(KEEP_HEAP)
    launches = [record_launch(args.seconds) for _ in range(args.launches)]
    args.out.write_bytes(msgspec.json.encode(Recording(busy=args.busy, launches=launches)))
    blocks = sum(len(launch.s_per_sample["train"]) for launch in launches)
    print(f"{blocks} blocks in {len(launches)} launches: {args.out}")


if __name__ == "__main__":
    main()
