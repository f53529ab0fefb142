"""How ranks divide work and exchange gradients: `strategy` and `ddp` in configs/config.yaml. Imports no torch.

train/ranks/rank_model.py and exchange.py implement the options; the fast one is first.
"""

from dataclasses import dataclass
from enum import StrEnum

from train.config.checks import check

Strategy = StrEnum("Strategy", ["ddp", "fsdp"])
GradientExchange = StrEnum("GradientExchange", ["overlapped", "after_backward"])
StepGraph = StrEnum("StepGraph", ["static", "dynamic", "searched"])
Accumulation = StrEnum("Accumulation", ["local", "exchanged"])
LossExchange = StrEnum("LossExchange", ["every_pass", "every_step"])
Division = StrEnum("Division", ["equal", "unequal"])


MAX_TIMEOUT_S = 1_000_000


def check_timeout(seconds: float) -> None:
    """Raise UserError if `rank_timeout_s` is none that torch can wait for."""
    check(0 < seconds <= MAX_TIMEOUT_S, "rank_timeout_s", seconds, f"above 0, up to {MAX_TIMEOUT_S:,} seconds")


@dataclass(frozen=True)
class DDPConfig:
    """DistributedDataParallel, and what is around it: `accumulation`, `loss` and `division` are of both strategies."""

    bucket_mb: float | None
    gradient_view: bool
    exchange: GradientExchange
    graph: StepGraph
    accumulation: Accumulation
    loss: LossExchange
    division: Division

    def __post_init__(self) -> None:
        check(
            self.bucket_mb is None or 0 < self.bucket_mb <= 2**20,
            "ddp.bucket_mb",
            self.bucket_mb,
            "null, or above 0 MiB",
        )
