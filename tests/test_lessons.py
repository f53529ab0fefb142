"""What the course says, held against PyTorch: one test for each row of docs/lessons.md that names a test."""

import pytest
import torch


def test_row_2_broadcasting_a_vector_over_the_rows_of_a_matrix_keeps_its_shape():
    assert (torch.randn(4, 5) + torch.randn(5)).shape == (4, 5)


def test_row_3_an_accidental_broadcast_is_saved_for_the_backward_pass():
    """Not more graphs, as the lesson says, but larger intermediates, which autograd keeps."""
    saved = {}
    for name, target in (("matched", torch.zeros(64)), ("accident", torch.zeros(64, 1))):
        kept = []
        prediction = torch.randn(64, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, kept=kept: kept.append(tensor.numel()), lambda x: x
        ):
            (prediction - target).square().mean()
        saved[name] = max(kept)
    assert saved == {"matched": 64, "accident": 64 * 64}


def test_row_6_the_gradient_of_an_intermediate_result_is_not_kept():
    x, y = (torch.randn(3, requires_grad=True) for _ in range(2))
    z = x + y
    z.backward(torch.ones(3))
    with pytest.warns(UserWarning, match=r"\.grad attribute of a Tensor that is not a leaf Tensor"):
        assert z.grad is None
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones(3))


def test_row_13_the_printed_results_are_wrong():
    assert [(x * 2 + 5) ** 2 - 10 for x in (1, 2, 3)] == [39, 71, 111]
    assert ((torch.tensor([1, 2, 3]) * 2 + 5) ** 2 - 10).tolist() == [39, 71, 111]


def test_row_14_the_append_loop_equals_the_vectorized_operation():
    values = torch.randn(100)
    appended = []
    for value in values:
        appended.append(value * 2 + 1)
    assert torch.equal(torch.stack(appended), values * 2 + 1)


def test_row_15_backward_without_requires_grad_raises():
    with pytest.raises(RuntimeError, match="does not require grad and does not have a grad_fn"):
        (torch.randn(3) * 2).sum().backward()
    assert all(parameter.requires_grad for parameter in torch.nn.Linear(2, 2).parameters())
