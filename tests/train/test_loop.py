"""The loop: it learns, it is not disturbed by measurement, and it says what went wrong."""

import itertools
import time

import pytest
import torch

from profiling.capture import NullCapture, ProfilerWindow, TimedCapture, TracedCapture
from profiling.errors import UserError
from tests.conftest import TINY_DATA
from train import session


def trained(config, capture, warm_up=False):
    parts = session.prepare(config)
    if warm_up:
        session.warm_up(parts)
    with capture:
        for _ in range(2):
            parts.fit(parts.train_batches, capture)
    return parts.module.state_dict()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
def test_every_optimizer_and_schedule_reduces_the_loss(configure, optimizer, schedule):
    parts = session.prepare(configure("model=mlp", "epochs=3", f"optimizer={optimizer}", f"schedule={schedule}"))
    losses = [parts.fit(parts.train_batches, NullCapture()).mean_loss() for _ in range(3)]
    assert losses[2] < losses[0] / 2


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_trains(configure, precision):
    parts = session.prepare(configure("model=mlp", "epochs=3", f"precision={precision}", "clip_norm=1.0"))
    losses = [parts.fit(parts.train_batches, NullCapture()).mean_loss() for _ in range(3)]
    assert losses[2] < losses[0] / 2


def test_timing_tracing_and_warming_up_leave_the_weights_bit_identical(configure, tmp_path):
    config = configure(*TINY_DATA, "model.width=4", "epochs=2")
    device = torch.device("cpu")
    plain = trained(config, NullCapture())
    others = {
        "timed": trained(config, TimedCapture(device)),
        "traced": trained(
            config, TracedCapture("train", device, ProfilerWindow(tmp_path, 1, 1, 2, {"profile_memory": True}))
        ),
        "warmed up": trained(config, NullCapture(), warm_up=True),
    }
    for how, weights in others.items():
        assert [name for name in plain if not torch.equal(plain[name], weights[name])] == [], how


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(configure):
    first, again, other = (
        trained(configure(*TINY_DATA, "model.width=4", f"seed={seed}"), NullCapture()) for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["optimizer=sgd", "optimizer.lr=1e30"],
            r"at step 1, phase (forward|optimizer): .* learning rate \(optim",
        ),
        (["augment.noise=3e38"], "at step 0, phase preprocess: the images are not finite"),
    ],
)
def test_a_loss_that_is_not_finite_stops_with_step_phase_and_cause(configure, overrides, message):
    parts = session.prepare(configure(*TINY_DATA, "model.width=4", "precision=fp32", *overrides))
    with pytest.raises(UserError, match=message):
        for _ in range(3):
            parts.fit(parts.train_batches, NullCapture())


def test_the_phases_of_a_step_add_up_to_it(configure):
    parts = session.prepare(configure("epochs=1"))
    with TimedCapture(parts.device) as capture:
        parts.fit(parts.train_batches, capture)
    samples = capture.timings()
    assert list(samples.phase_s) == [
        "load", "transfer", "preprocess", "forward", "loss", "backward", "metrics", "optimizer",
    ]  # fmt: skip
    assert samples.samples == [128] * 11 + [30]
    for index, step in enumerate(samples.step_s):
        covered = sum(seconds[index] for seconds in samples.phase_s.values())
        assert 0.8 * step < covered <= step


def test_what_follows_an_update_belongs_to_its_step(configure):
    parts = session.prepare(configure(*TINY_DATA, "model.width=4"))
    with TimedCapture(parts.device) as capture:
        parts.fit(itertools.islice(parts.train_batches, 1), capture, lambda sums: time.sleep(0.05))
    assert capture.timings().step_s[0] > 0.05


def test_a_frozen_backbone_is_left_alone_and_its_head_learns(configure):
    parts = session.prepare(configure(*TINY_DATA, "model=resnet18", "model.freeze_backbone=true"))
    before = {name: value.clone() for name, value in parts.module.state_dict().items()}
    parts.fit(itertools.islice(parts.train_batches, 1), NullCapture())
    after = parts.module.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head"}


def test_a_class_of_the_users_own_is_built_with_its_own_parameters(configure):
    config = configure(
        "model=custom", "model._target_=models.mlp.MLP", "+model.params={width: 8, depth: 1, dropout: 0.0}"
    )
    model = session.prepare(config).module
    assert type(model).__name__ == "MLP"
    assert sum(parameter.numel() for parameter in model.parameters()) == 28 * 28 * 8 + 8 + 8 * 10 + 10
