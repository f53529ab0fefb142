"""How the steps and phases of a script are found: in this process, by the functions that torch and the script call."""

import copy
import io
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.profiler import record_function

from profiling.ab.script_steps import WARMUP_STEPS, Recorder, leading_dimension


class Loop:
    """A script that trains a network of its own class, seen by a recorder. Its turns never end."""

    def __init__(self) -> None:
        class Network(nn.Linear):
            """Its calls are timed; this name cannot be pickled, its parameters can."""

        class Region(record_function):
            """As `record_function`, which other tests use."""

        self.region = Region
        self.ends = 0
        self.recorder = Recorder(None, self._end_turn)
        self.recorder.time_regions(Region)
        self.model = Network(8, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.optimizer.register_step_pre_hook(self.recorder.before_optimizer)
        self.optimizer.register_step_post_hook(self.recorder.after_optimizer)

    def _end_turn(self) -> None:
        self.ends += 1
        self.recorder.start(0)

    def step(self, samples: int = 4) -> None:
        self.optimizer.zero_grad()
        self.model(torch.randn(samples, 8)).square().mean().backward()
        self.optimizer.step()

    def warmed_up(self, step: Callable[[], None] | None = None) -> "Loop":
        for _ in range(WARMUP_STEPS):
            (step or self.step)()
        assert self.ends == 1
        return self


def test_steps_have_samples_and_phases():
    loop = Loop().warmed_up()
    for samples in (4, 3):
        loop.step(samples)
    steps = loop.recorder.steps()
    assert [step.samples for step in steps] == [4, 3]
    for step in steps:
        assert list(step.phase_s) == ["load", "forward", "backward", "optimizer"]
        assert sum(step.phase_s.values()) == pytest.approx(step.step_s)


def test_a_turn_ends_after_so_many_steps():
    loop = Loop().warmed_up()
    loop.recorder.start(3)
    for _ in range(4):
        loop.step()
    assert (loop.ends, loop.recorder.steps_of_turn, loop.recorder.steps_so_far) == (2, 1, WARMUP_STEPS + 4)


def test_a_forked_process_ends_no_turn():
    loop = Loop().warmed_up()
    loop.recorder.start(1)
    loop.recorder.stop()
    loop.step()
    loop.recorder.step(4)
    assert loop.ends == 1


def test_a_copy_and_what_is_saved_of_the_module_stay_as_they_were():
    loop = Loop().warmed_up()
    assert not loop.model._forward_hooks and not loop.model._forward_pre_hooks and "forward" not in vars(loop.model)
    average = copy.deepcopy(loop.model)
    with torch.no_grad():
        average.weight.zero_()
    assert average(torch.ones(3, 8)).tolist() == average.bias.expand(3, 2).tolist()
    loop.step()
    assert [step.samples for step in loop.recorder.steps()] == [4], "the call of the copy is none of the step"
    file = io.BytesIO()
    torch.save(loop.model.state_dict(), file)
    assert loop.model.state_dict().keys() == {"weight", "bias"}


def test_regions_that_the_script_names_are_its_phases():
    loop = Loop()

    def step_with_data() -> None:
        with loop.region("data"):
            pass
        loop.step()

    loop.warmed_up(step_with_data)
    with loop.region("data"):
        pass
    with loop.region("whole"):  # it ends after the step, so it is no part of it
        loop.step()
    (only,) = loop.recorder.steps()
    assert list(only.phase_s) == ["data"]


def test_without_regions_in_the_warm_up_their_class_is_given_back():
    loop = Loop()
    assert loop.region.__enter__ is not record_function.__enter__
    loop.warmed_up()
    assert loop.region.__enter__ is record_function.__enter__
    loop.step()
    assert "optimizer" in loop.recorder.steps()[0].phase_s


def test_what_torch_marks_itself_is_no_phase():
    loop = Loop()
    code = "with region('Optimizer.step#SGD.step'): pass"
    exec(code, {"__name__": "torch.optim.optimizer", "region": loop.region})
    exec(code.replace("Optimizer.step#SGD.step", "mine"), {"__name__": "torchvision.x", "region": loop.region})
    assert [name for name, _, _ in loop.recorder.phase_marks] == ["=mine"]


@pytest.mark.parametrize(
    ("values", "samples"),
    [
        ([torch.zeros(3, 2)], 3),
        ([[torch.zeros(5)], torch.zeros(2)], 5),
        ([{"input_ids": torch.zeros(7, 2)}], 7),
        ([torch.tensor(1.0), torch.zeros(6)], 6),
        ([None, "text"], 0),
    ],
)
def test_samples_are_the_leading_dimension_of_the_first_tensor(values, samples):
    assert leading_dimension(values) == samples
