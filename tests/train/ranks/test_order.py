"""What each rank gets of a batch: together exactly what one process gets, at every step."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import TINY_DATA
from train import session
from train.batches import make_batches
from train.config.schema import Loader
from train.data import TensorSplit
from train.ranks.exchange import equal_part
from train.ranks.group import Shares

SAMPLES = 22
SPLIT = TensorSplit(torch.arange(SAMPLES * 4, dtype=torch.uint8).view(SAMPLES, 1, 2, 2), torch.arange(SAMPLES))
LOADER = Loader(
    source="auto", workers=0, pin_memory=False, non_blocking=False, persistent_workers=False, prefetch_factor=2
)


@given(st.integers(1, 40), st.integers(1, 7), st.integers(0, 100))
def test_shares_follow_each_other_and_differ_by_one_sample_at_most(samples, ranks, start):
    batch = range(start, start + samples)
    shares = [equal_part(rank, ranks, batch) for rank in range(ranks)]
    assert [place for share in shares for place in share] == list(batch)
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert sizes[0] == max(sizes)  # rank 0, whose running statistics are kept, is never without a sample


@pytest.mark.parametrize("source", ["resident", "dataloader"])
@pytest.mark.parametrize("shuffled", [True, False])
@pytest.mark.parametrize("batch_size", [4, 7, 21, SAMPLES])  # 21: the last batch has one sample
def test_all_ranks_together_see_what_one_process_sees_at_every_step(source, shuffled, batch_size):
    loader = LOADER.__class__(**{**vars(LOADER), "source": source})

    def batches(**share):
        order = torch.Generator().manual_seed(3) if shuffled else None
        return make_batches(SPLIT, loader, torch.device("cpu"), batch_size, order, **share)

    alone = batches()
    ranks = [Shares(batches(share=partial(equal_part, rank, 3))) for rank in range(3)]
    for _ in range(2):  # the second pass is shuffled anew
        for whole, *shares in zip(alone, *ranks, strict=True):
            for part, pieces in zip(whole, zip(*shares, strict=True), strict=True):
                assert torch.equal(torch.cat(pieces), part)


def test_a_rank_knows_the_size_of_the_whole_batch():
    shares = Shares(make_batches(SPLIT, LOADER, torch.device("cpu"), 21, share=partial(equal_part, 2, 3)))
    assert [(len(labels), shares.batch_samples) for _, labels in shares] == [(7, 21), (0, 1)]


@pytest.mark.parametrize("preprocess", ["vectorized", "loop"])
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_a_step_without_a_sample_passes_the_whole_recipe(preprocess, micro_batches, configure):
    overrides = (f"switches.preprocess={preprocess}", f"micro_batches={micro_batches}", "model.width=4")
    parts = session.prepare(configure(*TINY_DATA, *overrides))
    images, labels = next(iter(parts.train_batches))
    inputs = parts.recipe.preprocess_train(images[:0])
    assert inputs.shape == (0, *images.shape[1:])
    metrics = parts.new_metrics()
    for micro_inputs, micro_labels in parts.recipe.micro_batches(inputs, labels[:0]):
        logits = micro_inputs.new_zeros((len(micro_inputs), 10))
        assert parts.recipe.loss(logits, micro_labels, 16) == 0
        metrics.loss = parts.recipe.running_loss(metrics.loss, logits, micro_labels)
        parts.recipe.confusion(metrics.confusion, logits, micro_labels)
    assert metrics.loss == metrics.confusion.sum() == 0
