"""How this process was started: alone, or by torchrun as one of several ranks. Imports no torch."""

import os
import socket
import sys
from dataclasses import dataclass

from profiling.errors import UserError

NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")


@dataclass(frozen=True)
class Launch:
    """What torchrun tells each process by its environment.

    https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables

    Attributes:
        rank: number of this process among all `ranks`.
        local_rank: number of this process among the `local_ranks` of its machine.
        port: of the store at `address`.
        restarts: how often torchrun has started all ranks again.
    """

    rank: int
    ranks: int
    local_rank: int
    local_ranks: int
    port: int
    address: str
    restarts: int


def launched() -> Launch | None:
    """How torchrun started this process; None if it was started alone.

    Raises:
        UserError: a variable of torchrun's is missing, or out of range.
    """
    if "WORLD_SIZE" not in os.environ:
        return None
    if "RANK" not in os.environ:
        if os.environ["WORLD_SIZE"] in ("", "1"):
            return None
        raise UserError(f"WORLD_SIZE={os.environ['WORLD_SIZE']}: without RANK; torchrun sets both, one process neither")
    rank, ranks, local_rank, local_ranks, port = (_number(name) for name in NUMBERS)
    for name, number, limit in (
        ("RANK", rank, f"WORLD_SIZE={ranks}"),
        ("LOCAL_RANK", local_rank, f"LOCAL_WORLD_SIZE={local_ranks}"),
        ("MASTER_PORT", port, "65536"),
    ):
        if number >= int(limit.rpartition("=")[2]):
            raise UserError(f"{name}={number}: not below {limit}; torchrun sets all of them")
    address = os.environ.get("MASTER_ADDR", "")
    if not address:
        raise UserError("MASTER_ADDR: needed beside RANK and WORLD_SIZE: the first machine; torchrun sets all of them")
    restarts = _number("TORCHELASTIC_RESTART_COUNT") if "TORCHELASTIC_RESTART_COUNT" in os.environ else 0
    return Launch(rank, ranks, local_rank, local_ranks, port, address, restarts)


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    if not value.isdecimal():
        raise UserError(f"{name}={value}: needed beside RANK and WORLD_SIZE: a number; torchrun sets all of them")
    return int(value)


def number_of_ranks() -> int:
    """How many processes train the model together."""
    launch = launched()
    return launch.ranks if launch else 1


def variables(ranks: int) -> list[dict[str, str]]:
    """What torchrun would tell so many processes of this machine by their environment; to one, nothing."""
    if ranks == 1:
        return [{}]
    with socket.socket() as chosen:
        chosen.bind(("localhost", 0))
        port = chosen.getsockname()[1]  # that the system gives to nobody else for some time
    numbers = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
    of_all = {"MASTER_ADDR": "localhost", **{name: str(number) for name, number in numbers.items()}}
    return [{**of_all, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def alone_only(what: str) -> None:
    """Raise UserError if torchrun started this process, which `what` has no use for."""
    if launched() is not None:
        raise UserError(f"{what}: one process does it; start it without torchrun")


def is_first() -> bool:
    """Whether this process prints and writes what one is enough for: rank 0, or one that was started alone."""
    return "WORLD_SIZE" not in os.environ or os.environ.get("RANK", "0") == "0"


def silence_other_ranks() -> None:
    """Let only rank 0 print to standard output; to be called before torch is imported."""
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # c10d logs a backtrace for each lost connection
    if not is_first():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def root_process() -> int:
    """The process that all of this run descend from on this machine: torchrun, or this process itself."""
    return os.getpid() if launched() is None else os.getppid()


def usable_cores() -> int:
    """Cores that this process may use: fewer than the machine has under taskset, in a container or on a cluster."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_of_rank() -> int:
    """`usable_cores`, divided among the ranks of this machine; at least one."""
    launch = launched()
    return max(1, usable_cores() // launch.local_ranks) if launch else usable_cores()


def threads_of_rank(default: int) -> int:
    """Intra-op threads of this process, where the configuration names no number.

    `default` is torch's choice. torchrun sets OMP_NUM_THREADS=1 for several ranks of a machine, so that they do not
    share cores; its cores are divided among them instead, unless the user has set the variable to another number.
    """
    return default if launched() is None or os.environ.get("OMP_NUM_THREADS", "1") != "1" else cores_of_rank()
