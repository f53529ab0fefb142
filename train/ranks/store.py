"""The store through which ranks tell each other names, configurations and errors; torchrun's agent keeps it."""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import msgspec
from torch.distributed import DistNetworkError, DistStoreError, TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore, Store

from profiling.errors import Terminated, UserError
from train.config.compose import flat
from train.ranks.launch import Launch

Result = TypeVar("Result")

ANSWER_S = 2.0
"""Ranks that live notice a lost rank at about the same time; whoever says nothing for so long after that is lost."""

SAME_S = 1.0
"""Ranks make the same mistake, such as a wrong key on their command line, at about the same time."""

BETWEEN_SIGNALS_S, MIN_S = 0.5, 0.001
"""The store waits in C++, where Python handles no signal."""


_refused: dict[Launch, str] = {}  # why there is no store, which is not waited for again


@cache
def open_store(launch: Launch, timeout_s: float) -> Store:
    """The store of the job, which outlives a restart of its ranks.

    Raises:
        UserError: there is none within `timeout_s`, or its port is in use.
    """
    if launch in _refused:
        raise UserError(_refused[launch])
    kept_by_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        store = TCPStore(
            launch.address,
            launch.port,
            is_master=launch.rank == 0 and not kept_by_agent,
            wait_for_workers=False,
            timeout=timedelta(seconds=timeout_s),
        )
    except (DistNetworkError, ValueError) as error:
        reason = "the port is in use" if "EADDRINUSE" in str(error) else f"no answer within {timeout_s:g} s"
        _refused[launch] = (
            f"MASTER_ADDR={launch.address}, MASTER_PORT={launch.port}: {reason}; start all ranks by one torchrun, and "
            "give each job of a machine a port of its own (--standalone chooses one)"
        )
        raise UserError(_refused[launch]) from error
    return PrefixStore("abtrace", store)


def wait_for(store: Store, key: str, timeout_s: float) -> str:
    """The text that another rank sets; signals are handled while it is waited for.

    Raises:
        DistStoreError: it is not set within `timeout_s`.
    """
    end_s = time.monotonic() + timeout_s
    while not store.check([key]):
        left_s = end_s - time.monotonic()
        try:
            store.wait([key], timedelta(seconds=max(MIN_S, min(left_s, BETWEEN_SIGNALS_S))))
        except DistStoreError:
            if left_s <= BETWEEN_SIGNALS_S:
                raise
    return str(store.get(key), "utf-8")


def named_once(launch: Launch, key: str, value: str, timeout_s: float) -> str:
    """`value` of rank 0, the first time that it is named in this job: also after a restart of its ranks.

    Raises:
        UserError: rank 0 does not answer within `timeout_s`.
    """
    store = open_store(launch, timeout_s)
    if launch.rank == 0:
        return str(store.compare_set(key, "", value), "utf-8")
    try:
        return wait_for(store, key, timeout_s)
    except DistStoreError as error:
        raise UserError(f"rank 0 has not named the run's folder within {timeout_s:g} s") from error


class Board:
    """What the ranks tell each other between two restarts.

    Args:
        launch: this rank.
        timeout_s: how long to wait for the others.
    """

    def __init__(self, launch: Launch, timeout_s: float) -> None:
        self.launch = launch
        self.timeout_s = timeout_s
        self.store = PrefixStore(f"start_{launch.restarts}", open_store(launch, timeout_s))

    def agree(self, topic: str, values: Mapping[str, Any]) -> None:
        """Compare `values` with those of all other ranks.

        Raises:
            UserError: a rank has other values, or none within the time-out; the same message on all ranks.
        """
        own = msgspec.json.encode(flat(values)).decode()
        self.store.set(f"{topic}/{self.launch.rank}", own)
        if self.launch.rank == 0:
            self.store.set(f"{topic}/verdict", self._compare(topic, own))
        try:
            verdict = wait_for(self.store, f"{topic}/verdict", self.timeout_s + ANSWER_S)
        except DistStoreError as error:
            raise UserError(f"rank 0 does not answer within rank_timeout_s={self.timeout_s:g}") from error
        if verdict != "agreed":
            raise UserError(verdict)

    def _compare(self, topic: str, own: str) -> str:
        ours = msgspec.json.decode(own)
        for rank in range(1, self.launch.ranks):
            try:
                theirs = msgspec.json.decode(wait_for(self.store, f"{topic}/{rank}", self.timeout_s))
            except DistStoreError:
                missing = [str(r) for r in range(1, self.launch.ranks) if not self.store.check([f"{topic}/{r}"])]
                return f"rank {', '.join(missing)}: no answer within rank_timeout_s={self.timeout_s:g}"
            for key in {**ours, **theirs}:
                if ours.get(key) != theirs.get(key):
                    return (
                        f"ranks differ in {topic}: {key} is {ours.get(key)} on rank 0, {theirs.get(key)} on rank {rank}"
                    )
        return "agreed"

    def in_turn(self, name: str, action: Callable[[], Result]) -> Result:
        """Do `action`, on each machine first in its first rank alone.

        Raises:
            DistStoreError: that rank has not done it within the time-out.
        """
        first = self.launch.rank - self.launch.local_rank
        if self.launch.local_rank:
            wait_for(self.store, f"done/{name}/{first}", self.timeout_s)
        result = action()
        self.store.set(f"done/{name}/{first}", "")
        return result

    def all_end_after(self, step: int) -> bool:
        """Whether all ranks end after `step`: the one that follows the step after which the last of them was asked to.

        Ranks exchange gradients in every step: when one says that it has ended step k, none has ended step k + 1.
        """
        self.store.compare_set(f"asked_after/{self.launch.rank}", "", str(step))
        keys = [f"asked_after/{rank}" for rank in range(self.launch.ranks)]
        return bool(self.store.check(keys)) and step > max(int(self.store.get(key)) for key in keys)

    def say(self, message: str) -> bool:
        """Note the error `message`; whether no other rank has said the same before."""
        self.store.add("errors", 1)
        return self.store.add(f"error/{message}", 1) == 1

    def is_said(self, message: str) -> bool:
        """Whether rank 0 (within SAME_S) or another rank has said `message`; if not, this one has now."""
        self.store.add("errors", 1)
        try:
            self.store.wait([f"error/{message}"], timedelta(seconds=SAME_S))
        except DistStoreError:
            return not self.say(message)
        return True

    def has_error(self) -> bool:
        """Whether a rank has noted an error; none can where torchrun has ended, and the store with it."""
        with suppress(DistNetworkError):
            return bool(self.store.check(["errors"]))
        return False

    def lost_ranks(self) -> list[int]:
        """Ranks that do not notice, as this one just did, that one is lost: they have ended, or hang."""
        others = [f"lives/{rank}" for rank in range(self.launch.ranks) if rank != self.launch.rank]
        self.store.set(f"lives/{self.launch.rank}", "")
        try:
            for key in others:
                wait_for(self.store, key, ANSWER_S)
        except (DistStoreError, Terminated):  # torchrun terminates those that are left
            pass
        return [int(key.rpartition("/")[2]) for key in others if not self.store.check([key])]
