"""Phases that nobody marked are found from what torch records anyway, and agree with marks where there are some."""

import gzip
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.checkpoint import checkpoint

from profiling.__main__ import main
from profiling.analysis.phases import Phase
from profiling.analysis.summary import Summary, summarize
from profiling.diff.diff import diff, load_windows
from profiling.trace.trace import read_trace
from profiling.vocabulary import TRACE_PHASES
from tests.profiling.conftest import SHARED
from tests.profiling.make_trace import Event, event, write

CLOSE = 0.15
"""Other processes interrupt the steps of these recordings; `bench_phases` measures the error, on a quiet machine."""
STEPS = 5
WIDTH = 256


def mlp(outputs: int = WIDTH) -> nn.Sequential:
    layers = nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, outputs)
    return nn.Sequential(*layers)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(64, 192)
        self.head = nn.Linear(64, 10)

    def forward(self, tokens: Tensor) -> Tensor:  # [B, T, 64]
        query, key, value = self.project(tokens).chunk(3, dim=-1)
        return self.head(functional.scaled_dot_product_attention(query, key, value).mean(dim=1))


def cnn() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(14400, 10))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: mlp(outputs=10), (512, WIDTH)),
    "cnn": (cnn, (16, 3, 32, 32)),
    "attention": (Attention, (32, 64, 64)),
}


def record(path: Path, step: Callable[[], None], *, stacks: bool = False) -> Path:
    """Trace some steps, after one that is not traced."""
    step()
    with profile(activities=[ProfilerActivity.CPU], with_stack=stacks) as window:
        for number in range(STEPS):
            with record_function(f"ProfilerStep#{number}"):
                step()
    window.export_chrome_trace(str(path))
    return path


def events_of(path: Path) -> list[Event]:
    found: list[Event] = json.loads(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())[
        "traceEvents"
    ]
    return found


def without_marks(events: list[Event], *also: str) -> list[Event]:
    """Take out the annotations of phases that a program makes, not those that torch makes."""
    return [
        event
        for event in events
        if not (
            event.get("cat") == "user_annotation"
            and (event["name"].strip("# ").lower() in TRACE_PHASES or event["name"].startswith(also or "\0"))
        )
    ]


def by_name(summary: Summary) -> dict[str, Phase]:
    return {row.name: row for row in summary.phases}


def phases_of(path: Path) -> dict[str, Phase]:
    return by_name(summarize([read_trace(path)]))


def phases_in(tmp_path: Path, events: list[Event]) -> dict[str, Phase]:
    return phases_of(write(tmp_path / "events.json", events))


class Comparison:
    """The marked and the derived phases of each step on its own, so that single interruptions do not matter."""

    def __init__(self, path: Path) -> None:
        self.marked = list(each_step(events_of(path), path.parent))
        self.bare = list(each_step(without_marks(events_of(path)), path.parent))

    def error(self, *names: str) -> float:
        """Median of the relative errors of these phases, taken together."""
        times = [
            [sum(phases[name].self_us for name in names if name in phases) for phases in steps]
            for steps in (self.marked, self.bare)
        ]
        return statistics.median(found / right - 1 for right, found in zip(*times, strict=True))

    def calls(self, *names: str) -> list[float]:
        """Median number of derived calls of each phase."""
        return [statistics.median(phases[name].calls for phases in self.bare) for name in names]


def each_step(events: list[Event], folder: Path) -> Iterator[dict[str, Phase]]:
    for number in range(STEPS):
        step = next(event for event in events if event.get("name") == f"ProfilerStep#{number}")
        start, end = step["ts"], step["ts"] + step["dur"]
        yield phases_in(folder, [event for event in events if event.get("ph") == "X" and start <= event["ts"] < end])


@pytest.mark.parametrize("stacks", [False, True], ids=["no stacks", "stacks"])
@pytest.mark.parametrize("network", NETWORKS)
def test_derived_phases_are_close_to_the_marked_ones(network: str, stacks: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, shape = NETWORKS[network]
    model, inputs, labels = make(), torch.randn(shape), torch.arange(shape[0]) % 10
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        with record_function("preprocess"):
            batch = (inputs + 0.1 * torch.randn(shape)).clamp(-3, 3)
        with record_function("forward"):
            logits = model(batch)
        with record_function("loss"):
            loss = functional.cross_entropy(logits, labels)
        with record_function("backward"):
            loss.backward()
        with record_function("metrics"):
            (logits.detach().argmax(dim=1) == labels).sum()
        with record_function("optimizer"):
            optimizer.step()
            optimizer.zero_grad()

    path = record(tmp_path / "train.json", step, stacks=stacks)
    comparison = Comparison(path)
    for names in (("forward",), ("forward", "loss"), ("backward",), ("optimizer",)):
        assert abs(comparison.error(*names)) < CLOSE, names
    assert comparison.calls("forward", "loss", "backward", "optimizer") == [1, 1, 1, 1]
    found = phases_in(tmp_path, without_marks(events_of(path)))
    assert [row.name for row in found.values() if row.derived] == ["forward", "loss", "backward", "optimizer"]


def test_phases_that_a_trace_marks_itself_are_not_derived(tmp_path: Path) -> None:
    events = [
        event("forward", 0, 100, "user_annotation"),
        event("aten::linear", 10, 50, Sequence_number=1),
        event("aten::mse_loss", 120, 20, Sequence_number=2),
        event("autograd::engine::evaluate_function: MseLossBackward0", 200, 20, Sequence_number=2),
        event("autograd::engine::evaluate_function: AddmmBackward0", 220, 60, Sequence_number=1),
    ]
    found = phases_in(tmp_path, events)
    assert (found["forward"].total_us, found["forward"].derived) == (100, False)
    assert found["loss"].derived
    assert found["backward"].derived
    assert found["backward"].operator_us == 80


def test_backward_passes_on_autograds_thread_belong_to_the_main_thread(tmp_path: Path) -> None:
    events = [
        event("aten::randn", 0, 100),
        event("aten::linear", 110, 190, Sequence_number=1),
        event("aten::relu", 310, 90, Sequence_number=2),
        event("aten::mse_loss", 420, 80, Sequence_number=3),
        event("aten::ones_like", 510, 10),
        event("autograd::engine::evaluate_function: MseLossBackward0", 540, 60, tid=2, Sequence_number=3),
        event("autograd::engine::evaluate_function: ReluBackward0", 620, 100, tid=2, Sequence_number=2),
        event("autograd::engine::evaluate_function: AddmmBackward0", 720, 110, tid=2, Sequence_number=1),
        *[event("aten::mm", 721 + 5 * number, 4, tid=2) for number in range(20)],
        event("aten::_foreach_add_", 1000, 80),
    ]
    found = phases_in(tmp_path, events)
    # Half of a pause belongs to each side, but no more than an eighth of the phase.
    assert found["forward"].total_us == (400 + 420) / 2 - (100 + 110) / 2
    assert found["loss"].total_us == (500 + 510) / 2 - (400 + 420) / 2
    assert found["backward"].total_us == 830 + (830 - 510) / 8 - (500 + 510) / 2
    assert found["backward"].operator_us == 10 + 60 + 100 + 110
    assert found["optimizer"].operator_us == 80
    assert (found["other"].operator_us, found["other"].calls) == (100, 1)


def test_a_long_pause_belongs_to_no_phase(tmp_path: Path) -> None:
    events = [
        event("aten::randn", 0, 10),
        event("aten::linear", 500_000, 8_000, Sequence_number=1),
        event("autograd::engine::evaluate_function: AddmmBackward0", 508_000, 8_000, Sequence_number=1),
        event("aten::randn", 900_000, 10),
    ]
    found = phases_in(tmp_path, events)
    assert (found["forward"].total_us, found["backward"].total_us) == (8_100, 8_100)


def test_backward_functions_without_an_engine_around_them_are_one_pass(tmp_path: Path) -> None:
    events = [event("aten::mm", 10, 20, Sequence_number=1), event("aten::mm", 30, 20, Sequence_number=2)]
    for start, number in ((100, 2), (200, 1)):  # as old releases write them
        events.append(event("MmBackward0", start, 50, Sequence_number=number))
        events.append(event("aten::add", start + 60, 20))
    events += [event("aten::mm", 300, 20, Sequence_number=3), event("MmBackward0", 350, 50, Sequence_number=3)]
    found = phases_in(tmp_path, events)
    assert (found["forward"].calls, found["backward"].calls) == (2, 2)
    assert found["backward"].operator_us == 50 + 20 + 50 + 50


def test_two_backward_passes_are_divided_by_the_end_of_a_step(tmp_path: Path) -> None:
    events = [event(f"ProfilerStep#{number}", 100 * number, 100, "user_annotation") for number in range(2)]
    events += [event("autograd::engine::evaluate_function: MmBackward0", 80, 15)]
    events += [event("autograd::engine::evaluate_function: MmBackward0", 110, 15)]
    assert phases_in(tmp_path, events)["backward"].calls == 2


def test_every_pass_of_gradient_accumulation_counts(tmp_path: Path) -> None:
    model, inputs = mlp(), torch.randn(256, WIDTH)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        for _ in range(3):
            with record_function("forward"):
                outputs = model(inputs)
            with record_function("loss"):
                loss = functional.mse_loss(outputs, inputs) / 3
            with record_function("backward"):
                loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    path = record(tmp_path / "accumulation.json", step)
    comparison = Comparison(path)
    assert comparison.calls("forward", "loss", "backward", "optimizer") == [3, 3, 3, 1]
    assert abs(comparison.error("forward", "loss")) < CLOSE
    assert abs(comparison.error("backward")) < CLOSE


def test_two_models_that_train_against_each_other(tmp_path: Path) -> None:
    generator, judge, real = mlp(), mlp(outputs=1), torch.randn(256, WIDTH)
    optimizers = [torch.optim.Adam(model.parameters()) for model in (generator, judge)]

    def learn(make: Callable[[], Tensor], target: float) -> None:
        with record_function("forward"):
            verdict = make()
        with record_function("loss"):
            loss = functional.binary_cross_entropy_with_logits(verdict, torch.full_like(verdict, target))
        with record_function("backward"):
            loss.backward()

    def step() -> None:
        learn(lambda: judge(real), 1)
        learn(lambda: judge(generator(torch.randn(256, WIDTH)).detach()), 0)
        optimizers[1].step()
        learn(lambda: judge(generator(torch.randn(256, WIDTH))), 1)
        optimizers[0].step()
        for optimizer in optimizers:
            optimizer.zero_grad()

    path = record(tmp_path / "gan.json", step)
    comparison = Comparison(path)
    assert comparison.calls("forward", "loss", "backward", "optimizer") == [3, 3, 3, 2]
    assert abs(comparison.error("forward", "loss")) < CLOSE
    assert abs(comparison.error("backward")) < CLOSE


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputing_activations_is_part_of_the_backward_pass(reentrant: bool, tmp_path: Path) -> None:
    model, inputs = mlp(), torch.randn(256, WIDTH, requires_grad=True)

    def step() -> None:
        with record_function("forward"):
            outputs = checkpoint(model, checkpoint(model, inputs, use_reentrant=reentrant), use_reentrant=reentrant)
        with record_function("loss"):
            loss = functional.mse_loss(outputs, inputs.detach())
        with record_function("backward"):
            loss.backward()

    comparison = Comparison(record(tmp_path / "checkpoint.json", step))
    assert abs(comparison.error("forward", "loss")) < CLOSE
    assert abs(comparison.error("backward")) < CLOSE


def test_a_step_that_the_optimizer_calls_is_not_the_optimizers_own_time(tmp_path: Path) -> None:
    model, inputs = mlp(), torch.randn(256, WIDTH)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def closure() -> Tensor:
        optimizer.zero_grad()
        with record_function("forward"):
            outputs = model(inputs)
        with record_function("loss"):
            loss = functional.mse_loss(outputs, inputs)
        with record_function("backward"):
            loss.backward()
        return loss

    path = record(tmp_path / "closure.json", lambda: optimizer.step(closure))
    found = phases_in(tmp_path, without_marks(events_of(path)))["optimizer"]
    assert found.calls == STEPS
    assert found.self_us < found.total_us / 2
    assert abs(Comparison(path).error("forward", "loss")) < CLOSE


def test_frozen_layers_belong_to_the_forward_pass(tmp_path: Path) -> None:
    backbone, head, labels = mlp().requires_grad_(False), nn.Linear(WIDTH, 10), torch.arange(256) % 10
    inputs = torch.randn(256, WIDTH)

    def step() -> None:
        with record_function("preprocess"):
            batch = inputs.clamp(-1, 1)
        with record_function("forward"):
            logits = head(backbone(batch))
        with record_function("loss"):
            loss = functional.cross_entropy(logits, labels)
        with record_function("backward"):
            loss.backward()

    assert abs(Comparison(record(tmp_path / "frozen.json", step)).error("forward", "loss")) < CLOSE


@pytest.mark.parametrize("stacks", [False, True], ids=["no stacks", "stacks"])
def test_an_optimizer_that_nothing_marks_is_found_by_its_updates(stacks: bool, tmp_path: Path) -> None:
    model, inputs = mlp(), torch.randn(256, WIDTH)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, foreach=True)

    def step() -> None:
        functional.mse_loss(model(inputs), inputs).backward()
        optimizer.step()

    path = record(tmp_path / "unmarked.json", step, stacks=stacks)
    marked = phases_of(path)["optimizer"]
    found = phases_in(tmp_path, without_marks(events_of(path), "Optimizer."))["optimizer"]
    assert (marked.derived, found.derived, found.calls) == (False, True, STEPS)
    assert found.operator_us == pytest.approx(marked.operator_us, rel=CLOSE)


@pytest.mark.parametrize("stacks", [False, True], ids=["no stacks", "stacks"])
def test_inference_has_a_forward_pass_where_stacks_show_the_model(stacks: bool, tmp_path: Path) -> None:
    model, inputs = mlp(), torch.randn(2048, WIDTH)

    def step() -> None:
        with torch.inference_mode(), record_function("forward"):
            outputs = model(inputs)
        outputs.argmax(dim=1)

    path = record(tmp_path / "inference.json", step, stacks=stacks)
    found = summarize([read_trace(write(tmp_path / "bare.json", without_marks(events_of(path))))])
    assert [(row.name, row.calls) for row in found.phases] == ([("forward", STEPS)] if stacks else []) + [
        ("other", STEPS)
    ]
    assert bool(found.trace.notes) is stacks
    if stacks:
        assert abs(Comparison(path).error("forward")) < CLOSE


def test_lightnings_annotations_are_marks(tmp_path: Path) -> None:
    events = [
        event("[pl][profile][_TrainingEpochLoop].train_dataloader_next", 0, 10, "user_annotation"),
        event("[pl][profile][Strategy]SingleDeviceStrategy.batch_to_device", 10, 10, "user_annotation"),
        event("[pl][profile]run_training_batch", 20, 180, "user_annotation"),
        event("[pl][profile][LightningModule]Net.optimizer_step", 30, 160, "user_annotation"),
        event("Optimizer.step#SGD.step", 40, 150, "user_annotation"),
        event("[pl][profile][Strategy]SingleDeviceStrategy.training_step", 50, 50, "user_annotation"),
        event("[pl][profile][Strategy]SingleDeviceStrategy.backward", 110, 60, "user_annotation"),
        event("[pl][profile][LightningModule]Net.on_after_backward", 180, 5, "user_annotation"),
    ]
    found = phases_in(tmp_path, events)
    assert {name: (row.calls, row.self_us, row.derived) for name, row in found.items() if name != "other"} == {
        "load": (1, 10, False),
        "transfer": (1, 10, False),
        "forward": (1, 50, False),
        "backward": (1, 60, False),
        "optimizer": (1, 50, False),
    }


TRAINING = [
    event("aten::linear", 10, 50, Sequence_number=1),
    event("aten::mse_loss", 60, 20, Sequence_number=2),
    event("autograd::engine::evaluate_function: MseLossBackward0", 80, 20, Sequence_number=2),
    event("autograd::engine::evaluate_function: AddmmBackward0", 100, 60, Sequence_number=1),
]


def test_the_terminal_names_derived_phases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(tmp_path / "a.json", TRAINING))
    assert main(["summary", path]) == 0
    assert "backward (derived)" in capsys.readouterr().out
    assert main(["summary", path, "--json"]) == 0
    info = json.loads(capsys.readouterr().out)["trace"]
    assert info["whole"]
    assert [note for note in info["notes"] if note.endswith("not marked in the trace: forward, loss, backward")]


def test_diff_says_on_which_side_phases_are_derived(tmp_path: Path) -> None:
    marks = [event("forward", 10, 50, "user_annotation"), event("backward", 80, 80, "user_annotation")]
    bare, marked = (
        load_windows(write(tmp_path / name, events))
        for name, events in (("bare.json", TRAINING), ("marked.json", [*TRAINING, *marks]))
    )
    found = diff(bare, marked)
    assert {row.phase: row.derived for row in found.phases} == {
        "forward": True,
        "loss": True,
        "backward": True,
        "other": False,
    }
    assert {row.difference_us for row in found.phases} == {0}
    note = "A derives phases that the other side marks: forward, backward"
    assert [line for line in found.notes if line.startswith(note)]
    assert not any(row.derived for row in diff(marked, marked).phases if row.phase != "loss")


def test_phases_of_real_gpu_traces(tmp_path: Path) -> None:
    if not SHARED.exists():
        pytest.skip("the shared traces are not here")
    rocm = phases_of(SHARED / "rocm_mi250_toy_train.json.gz")
    assert {name: (row.calls, row.derived) for name, row in rocm.items() if name != "other"} == {
        "forward": (1, True),
        "loss": (1, True),
        "backward": (1, True),
        "optimizer": (1, False),
    }
    for rank in range(2):
        path = SHARED / f"cuda_ddp_rank-{rank}.json.gz"
        marked, found = phases_of(path), phases_in(tmp_path, without_marks(events_of(path)))
        for name in ("forward", "backward", "optimizer"):
            assert found[name].total_us == pytest.approx(marked[name].total_us, rel=CLOSE), name
