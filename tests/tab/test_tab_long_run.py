"""The record of a long run has a sample of its steps: the step chart shows them where they were, and says so."""

from pathlib import Path

import msgspec

from profiling import run_record
from profiling.step_sample import StepSample
from tests.profiling.make_trace import event, write
from tests.profiling.test_run_record import RECORD
from tests.tab.browser import Tab


def test_steps_of_a_sample_stand_at_their_numbers(growing: tuple[Path, Tab]) -> None:
    logdir, tab = growing
    sample = StepSample(max_steps=100)
    for number in range(1000):
        sample.add(8, 0.7 if number == 500 else 0.01, {"forward": 0.005})
    train = msgspec.structs.replace(RECORD.stages["train"], timed=sample.timings())
    (logdir / "long").mkdir()
    run_record.write(msgspec.structs.replace(RECORD, stages={"train": train}), logdir / "long")
    write(logdir / "long" / "a.pt.trace.json", [event("aten::add", 0, 1)])
    root = tab.open("overview", run="long")
    shown = root.locator(".plot").evaluate_all(
        "plots => plots.flatMap(plot => plot.data).filter(trace => trace.name === 'whole step').map(trace => trace.x)"
    )
    assert shown == [train.timed.numbers]
    axis = root.locator(".plot .xtitle").filter(has_text="random steps").text_content() or ""
    assert f"{len(train.timed.numbers)} random steps of 1000" in axis
    assert "700 ms" in axis
