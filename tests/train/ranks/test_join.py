"""Joining a group of ranks: what does not apply, environments that nobody can join, and errors that say what to do."""

import re
import signal

import pytest
from torch.distributed import TCPStore

from profiling.errors import NotApplicableError, Terminated, UserError
from train.ranks.join import explained_loss, joined, mistake_behind
from train.ranks.launch import Launch, launched, variables
from train.ranks.store import Board
from train.ranks.tell import tell


@pytest.mark.parametrize("override", ["strategy=fsdp", "ddp.bucket_mb=0.5", "ddp.division=unequal"])
def test_in_one_process_what_is_of_several_does_not_apply(override, configure):
    refusal = f"^not applicable here: {override} is of several ranks: start it with torchrun"
    with pytest.raises(NotApplicableError, match=refusal), joined(configure(override)):
        pass


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RANK", None, r"WORLD_SIZE=2: without RANK; torchrun sets both, one process neither"),
        ("RANK", "2", r"RANK=2: not below WORLD_SIZE=2; torchrun sets all of them"),
        ("WORLD_SIZE", "0", r"RANK=1: not below WORLD_SIZE=0; torchrun sets all of them"),
        ("LOCAL_WORLD_SIZE", "0", r"LOCAL_RANK=1: not below LOCAL_WORLD_SIZE=0; torchrun sets all of them"),
        ("MASTER_PORT", "99999", r"MASTER_PORT=99999: not below 65536; torchrun sets all of them"),
        ("MASTER_PORT", "x", r"MASTER_PORT=x: needed beside RANK and WORLD_SIZE: a number; torchrun sets all of them"),
        ("TORCHELASTIC_RESTART_COUNT", "x", r"TORCHELASTIC_RESTART_COUNT=x: .* a number; torchrun sets all of them"),
    ],
)
def test_an_environment_that_no_torchrun_makes_is_one_line(name, value, message, monkeypatch):
    for variable, correct in variables(2)[1].items():
        monkeypatch.setenv(variable, correct)
    assert launched().ranks == 2
    monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"^{message}$"):
        launched()


@pytest.mark.parametrize(
    ("error", "overrides", "message"),
    [
        (
            ValueError("Expected more than 1 value per channel when training, got input size torch.Size([1, 16])"),
            ("batch_size=9",),
            r"batch_size=9: a rank gets a single image of a batch, .*; give another batch_size",
        ),
        (
            ValueError("fully_shard doesn't support scalar parameters. Change temperature to a 1D tensor"),
            ("strategy=fsdp",),
            r"model=models\.cnn\.CNN: not with strategy=fsdp: fully_shard doesn't support scalar .*; give strategy=ddp",
        ),
        (
            RuntimeError("aten.pow_.Scalar: in-place operations that require placement changes are not supported"),
            ("strategy=fsdp",),
            r"strategy=fsdp: .* \(optimizer=torch\.optim\.AdamW\); give another optimizer, or strategy=ddp",
        ),
    ],
)
def test_what_torch_refuses_is_a_line_that_says_what_to_do(error, overrides, message, configure):
    assert re.fullmatch(message, str(mistake_behind(error, configure(*overrides))))


def test_ranks_whose_torchrun_has_ended_say_so():
    server = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    board = Board(Launch(1, 2, 1, 2, server.port, "localhost", 0), 5.0)
    assert not board.has_error()
    del server
    assert str(explained_loss(board)).startswith("torchrun has ended, through which the ranks agree")
    assert not board.has_error()


def test_a_rank_that_is_ended_while_it_asks_who_tells_says_nothing(monkeypatch, capsys):
    """Torchrun ends the others once a rank has ended with an error, which that one has told."""

    def end(number, frame):
        raise Terminated(signal.SIGTERM)

    server = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    for variable, value in {**variables(2)[1], "MASTER_PORT": str(server.port)}.items():
        monkeypatch.setenv(variable, value)
    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        tell("a mistake of all ranks")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert capsys.readouterr().err == ""
