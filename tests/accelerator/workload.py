"""A training large enough to keep the device busy, found by measuring; the ladder and the clocks run it."""

from functools import partial
from itertools import chain, islice, repeat
from typing import Any

from profiling.analysis.index import Index
from profiling.analysis.kernels import device_work
from profiling.trace.trace import read_trace
from tests.accelerator import results
from tests.accelerator.context import Context, Pieces, scratch
from train import session

BUSY_SHARE = 0.85
SIZES = ((32, 512), (64, 512), (128, 512), (128, 1024), (256, 1024))  # width of the CNN, batch; least work first
PIXELS = 64
BATCHES = 4  # in an epoch: every process of an A/B makes them anew
NAME = "workload/choose"


def pieces(context: Context) -> Pieces:
    return {"choose": partial(choose, context)}


def choose(context: Context) -> dict[str, Any]:
    """The first size whose kernels fill BUSY_SHARE of the steps; on a CPU, the small default run."""
    if not context.is_accelerator:
        return {"overrides": [], "busy_share": {}}
    shares: dict[str, float] = {}
    for width, batch in SIZES:
        overrides = sized(width, batch)
        shares[f"width {width}, batch of {batch}"] = share = measured(context, overrides)
        if share >= BUSY_SHARE:
            break
    return {"overrides": overrides, "busy_share": shares}


def sized(width: int, batch: int) -> list[str]:
    """Few layers and one shape of batch: each process of an A/B tries cuDNN's algorithms anew."""
    data = ["data=synthetic", f"data.image_size={PIXELS}", f"data.train_samples={BATCHES * batch}"]
    batches = [f"batch_size={batch}", f"eval_batch_size={batch}", f"infer_batch_size={batch}"]
    return [f"model.width={width}", *data, f"data.test_samples={batch}", *batches]


def measured(context: Context, overrides: list[str]) -> float:
    """Share of a window of training steps in which the device is busy."""
    folder = scratch()
    parts = session.prepare(context.configure(*overrides, "profiler.wait=2", "profiler.active=4"))
    session.warm_up(parts)
    stage, file = next(session.trace(parts, folder, lambda metrics: None))
    assert stage == "train"
    (device,) = device_work(Index(read_trace(folder / file.path))).devices
    return device.busy_us / device.span_us


def endless(batches: Any, count: int) -> Any:
    """`count` batches, from as many passes as it takes."""
    return islice(chain.from_iterable(repeat(batches)), count)


def chosen(context: Context) -> list[str]:
    """Overrides of the workload; the smallest one if choosing it failed."""
    found = results.read_all(context.out).get(NAME)
    if found is not None and found.status == results.PASSED:
        return list(found.found["overrides"])
    return sized(*SIZES[0]) if context.is_accelerator else []
