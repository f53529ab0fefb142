"""Traces recorded once by torch.profiler, with what torch itself says about the same window."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.profiler_util import EventList
from torch.profiler import ProfilerActivity, profile, record_function
from torchvision.models import resnet18

SHARED = Path(__file__).parents[3] / "shared" / "traces"


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(16, 48)
        self.head = nn.Linear(16, 3)

    def forward(self, tokens: Tensor) -> Tensor:  # [B, T, 16]
        query, key, value = self.project(tokens).chunk(3, dim=-1)
        return self.head(nn.functional.scaled_dot_product_attention(query, key, value).mean(dim=1))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)), (4, 8)),
    "cnn": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)),
        (4, 1, 8, 8),
    ),
    "resnet18": (lambda: resnet18(num_classes=3), (2, 3, 32, 32)),
    "attention": (Attention, (4, 6, 16)),
}


@dataclass(frozen=True)
class Recording:
    """A trace file, and `key_averages` of the same window."""

    path: Path
    averages: EventList


def record(path: Path, model: str, *, full: bool) -> Recording:
    """Two training steps: `light` has shapes and memory, `full` also stacks, modules and FLOPs."""
    torch.manual_seed(0)
    make, shape = MODELS[model]
    network = make()
    optimizer = torch.optim.AdamW(network.parameters(), foreach=False)
    inputs, labels = torch.randn(shape), torch.arange(shape[0]) % 3

    def step() -> None:
        with record_function("forward"):
            logits = network(inputs)
        with record_function("loss"):
            loss = nn.functional.cross_entropy(logits, labels)
        with record_function("backward"):
            loss.backward()
        with record_function("optimizer"):
            optimizer.step()
            optimizer.zero_grad()

    step()
    with profile(
        activities=[ProfilerActivity.CPU], record_shapes=True, profile_memory=True, with_stack=full, with_flops=full
    ) as window:
        step()
        step()
    window.export_chrome_trace(str(path))
    return Recording(path, window.key_averages())


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Recording]:
    """Record each model and level once."""
    folder = tmp_path_factory.mktemp("traces")
    made: dict[tuple[str, bool], Recording] = {}

    def get(model: str, full: bool) -> Recording:
        if (model, full) not in made:
            made[model, full] = record(folder / f"{model}_{full}.pt.trace.json", model, full=full)
        return made[model, full]

    return get
