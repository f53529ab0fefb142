"""Lines on standard error that several ranks would print. Imports no torch before it is needed."""

from profiling.errors import Terminated, UserError
from profiling.terminal.streams import print_line
from train.ranks.launch import Launch, launched

STORE_S = 5.0  # to reach the store; without it, each rank prints its lines


def tell(message: str) -> None:
    """Print `error: message` to standard error, once where several ranks tell it; else with the rank that does."""
    try:
        launch = launched()
        line = message if launch is None else _as_told(launch, message)
    except UserError:  # no store, or no proper environment: perhaps that is the message
        line = message
    except (KeyboardInterrupt, Terminated):  # torchrun ends this rank since another one has ended, which told why
        line = ""
    if line:
        print_line(f"error: {line}")


def _as_told(launch: Launch, message: str) -> str:
    from train.ranks.store import Board  # imports torch

    board = Board(launch, STORE_S)
    if launch.rank == 0:
        board.say(message)
        return message
    return "" if board.is_said(message) else f"rank {launch.rank}: {message}"
