"""Parity of every table in variants.py, at the numerics that it declares."""

import dataclasses
import re

import pytest
import torch

from profiling.capture import NullCapture
from profiling.vocabulary import Agreement
from tests.conftest import ROOT, TINY_DATA
from train import session
from train.config.schema import Switches
from train.variants import TABLES, Table

# float32, so that a table's tolerance speaks of the algorithm and not of bfloat16's eight bits
COMMON = (*TINY_DATA, "precision=fp32", "epochs=3", "optimizer.lr=0.005")
MODELS = {
    "attention": ("model=vit", "model.dim=16", "model.depth=1", "model.heads=2"),
    "freeze": ("model=resnet18", "model.freeze_backbone=true"),
}
ELSEWHERE = {  # pairs that this comparison cannot judge
    ("parameters", "frozen"): "stops before its first step: test_experiments",
    ("random_on", "cpu"): "the same generator on a machine without an accelerator",
    ("execution", "cuda_graphs"): "`compiled` on a machine without CUDA",
}
PAIRS = [
    (switch, str(option))
    for switch, table in TABLES.items()
    for option in list(table.options)[1:]
    if (switch, option) not in ELSEWHERE
]


def outcome(config):
    """Weights, running statistics and metrics after a pass of training, evaluation and inference."""
    parts = session.prepare(config)
    training = parts.fit(parts.train_batches, NullCapture())
    held_out = parts.evaluate(parts.test_batches, NullCapture())
    weights = {name: value.clone() for name, value in parts.module.state_dict().items() if value.is_floating_point()}
    metrics = {
        "train_loss": training.mean_loss(),
        "loss": held_out.mean_loss(),
        "brier": held_out.mean_brier(),
        "train_accuracy": training.accuracy(),
        "accuracy": held_out.accuracy(),
    }
    return {
        **weights,
        **{name: torch.tensor(value) for name, value in metrics.items()},
        "probabilities": parts.infer(parts.infer_batches, NullCapture()),
    }


def assert_agree(table: Table, fast, slow):
    if table.numerics is Agreement.different:
        assert table.reason
        assert any(name not in fast or not torch.equal(fast[name], slow[name]) for name in slow)
    elif table.numerics is Agreement.identical:
        differing = [name for name in fast if not torch.equal(fast[name], slow[name])]
        assert differing == []
    else:
        for name in fast:
            torch.testing.assert_close(slow[name], fast[name], rtol=table.rtol, atol=table.atol)


COMPILES = pytest.mark.slow  # torch.compile starts a compiler


@pytest.mark.parametrize(
    ("switch", "option"),
    [
        pytest.param(switch, option, id=f"{switch}={option}", marks=COMPILES if option == "compiled" else ())
        for switch, option in PAIRS
    ],
)
def test_an_option_agrees_with_the_fast_one_as_its_table_declares(switch, option, configure):
    table = TABLES[switch]
    model = MODELS.get(switch, ("model.width=4",))
    fast = outcome(configure(*COMMON, *model))
    slow = outcome(configure(*COMMON, *model, f"switches.{switch}={option}"))
    assert_agree(table, fast, slow)


def test_the_activations_of_a_model_without_batch_norm_are_recomputed_to_the_same_bits(configure):
    """Only batch norm's running statistics make recomputation `different`."""
    fast = outcome(configure(*COMMON, "model=vit", "model.dim=16", "model.depth=2", "model.heads=2"))
    slow = outcome(
        configure(
            *COMMON, "model=vit", "model.dim=16", "model.depth=2", "model.heads=2", "switches.activations=recomputed"
        )
    )
    assert [name for name in fast if not torch.equal(fast[name], slow[name])] == []


def test_the_loop_is_chosen_before_it_runs(configure):
    """No callable of the recipe looks at the configuration again."""
    recipe = session.prepare(configure(*TINY_DATA, "model.width=4")).recipe
    assert all(callable(getattr(recipe, field)) for field in recipe.__dataclass_fields__)


@pytest.mark.parametrize("source", ["resident", "dataloader", "workers"])
def test_every_batch_source_gives_the_same_batches_in_the_same_order(source, configure):
    override = {"resident": [], "dataloader": ["loader.source=dataloader"], "workers": ["loader.workers=2"]}[source]
    expected = session.prepare(configure(*TINY_DATA, "model.width=4")).train_batches
    parts = session.prepare(configure(*TINY_DATA, "model.width=4", *override))
    for _ in range(2):  # the second epoch is shuffled anew
        pairs = zip(parts.train_batches, expected, strict=True)
        assert all(torch.equal(a, b) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True))


def test_micro_batches_add_up_to_the_gradient_of_the_whole_batch(configure):
    """Exact but for rounding where no layer mixes samples; the last batch of 32 samples does not divide by 5."""
    common = (*COMMON, "model=mlp", "model.dropout=0", "schedule=constant", "optimizer=sgd", "optimizer.lr=0.01")
    whole = outcome(configure(*common))
    parts = outcome(configure(*common, "micro_batches=5"))
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("switch", [field.name for field in dataclasses.fields(Switches)])
def test_the_configuration_names_every_option_beside_its_switch(switch):
    options = next(field.type for field in dataclasses.fields(Switches) if field.name == switch)
    (line,) = re.findall(rf"^  {switch}: .*#(.*)$", (ROOT / "configs" / "config.yaml").read_text(), re.MULTILINE)
    assert [option for option in options if not re.search(rf"\b{option}\b", line)] == []
