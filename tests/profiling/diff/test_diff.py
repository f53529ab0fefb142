"""Differences: they add up, they are per sample, and they name what changed."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from profiling.__main__ import main
from profiling.diff.call_tree import DEEPEST, PYTHON, SMALLEST
from profiling.diff.diff import diff, load_windows
from profiling.diff.differences import Diff
from profiling.diff.totals import StageWindow
from profiling.trace.parse import TraceError
from profiling.trace.trace import read_trace
from tests.profiling.cases import case
from tests.profiling.conftest import SHARED, Recording
from tests.profiling.make_trace import Event, event, write

PHASES = [event("forward", 10, 40, "user_annotation"), event("optimizer", 60, 30, "user_annotation")]


def compare(tmp_path: Path, a: Sequence[Event], b: Sequence[Event], samples: tuple[int, int] | None = None) -> Diff:
    one, other = read_trace(write(tmp_path / "a.json", a)), read_trace(write(tmp_path / "b.json", b))
    return diff([StageWindow(one, "", samples and samples[0])], [StageWindow(other, "", samples and samples[1])])


def adds_up(found: Diff) -> None:
    parts = sum(cause.difference_us for cause in found.causes)
    left = sum(row.unattributed_us for row in found.phases)
    assert parts + left == pytest.approx(found.difference_us, abs=1e-6)
    for row in found.phases:
        causes = sum(cause.difference_us for cause in found.causes if cause.phase == row.phase)
        assert causes + row.unattributed_us == pytest.approx(row.difference_us, abs=1e-6)


def test_a_trace_does_not_differ_from_itself(recordings: Callable[[str, bool], Recording]) -> None:
    windows = load_windows(recordings("resnet18", True).path)
    found = diff(windows, windows)
    assert (found.difference_us, found.attributed_share, found.unattributed_us) == (0, 1, 0)
    assert not (found.added or found.removed or found.causes or found.replaced)
    assert all(row.difference_us == 0 and row.a_calls == row.b_calls for row in found.changed)


def test_two_recordings_are_attributed_in_full(recordings: Callable[[str, bool], Recording]) -> None:
    found = diff(load_windows(recordings("cnn", False).path), load_windows(recordings("cnn", True).path))
    adds_up(found)
    forward = next(row for row in found.phases if row.phase == "forward")
    assert forward.unattributed_us == pytest.approx(0, abs=1e-6)
    assert forward.difference_us == pytest.approx(forward.operators_us + forward.python_us)
    assert found.attributed_share > 0.5


def test_operators_python_and_waiting_make_the_difference(tmp_path: Path) -> None:
    a = [*PHASES, event("aten::mm", 10, 30), event("aten::item", 62, 10)]
    b = [
        event("forward", 10, 60, "user_annotation"),
        event("optimizer", 80, 60, "user_annotation"),
        event("aten::mm", 10, 35),
        event("aten::item", 82, 30),
        event("cudaStreamSynchronize", 85, 25, "cuda_runtime"),
    ]
    found = compare(tmp_path, a, b)
    adds_up(found)
    rows = {row.phase: (row.operators_us, row.python_us, row.waiting_us, row.unattributed_us) for row in found.phases}
    assert rows["forward"] == (5, 15, 0, 0)
    assert rows["optimizer"] == (-5, 10, 25, 0)
    assert [(cause.phase, cause.kind, cause.difference_us) for cause in found.causes[:2]] == [
        ("optimizer", "waiting", 25),
        ("forward", "python", 15),
    ]


def test_time_outside_every_phase_is_python_where_no_operator_runs(tmp_path: Path) -> None:
    step = event("ProfilerStep#1", 0, 100, "user_annotation")
    longer = event("ProfilerStep#1", 0, 130, "user_annotation")
    found = compare(tmp_path, [step, *PHASES], [longer, event("forward", 10, 50, "user_annotation"), PHASES[1]])
    adds_up(found)
    assert (found.unit, found.difference_us, found.unattributed_us) == ("step", 30, 0)
    assert {(cause.phase, cause.kind, cause.difference_us) for cause in found.causes} == {
        ("forward", "python", 10),
        ("other", "python", 20),
    }


def test_different_batch_sizes_compare_per_sample(tmp_path: Path) -> None:
    def run(scale: int) -> list[Event]:
        return [event("forward", 0, 10 * scale, "user_annotation"), event("aten::mm", 0, 8 * scale)]

    found = compare(tmp_path, run(1), run(4), samples=(8, 32))
    assert (found.unit, found.a_units, found.b_units) == ("sample", 8, 32)
    assert found.difference_us == pytest.approx(0)
    (row,) = found.changed
    assert (row.a_calls, row.b_calls) == (1 / 8, 1 / 32)


def test_a_fused_operator_is_paired_with_what_it_replaced(tmp_path: Path) -> None:
    attention = event("aten::scaled_dot_product_attention", 10, 38)
    a = [*PHASES, attention, event("aten::_math", 11, 35), event("aten::softmax", 15, 20)]
    a += [event("aten::add_", 62, 5), event("aten::mul_", 70, 5)]
    b = [*PHASES, attention, event("aten::_flash", 12, 10), event("aten::_foreach_add_", 62, 7)]
    found = compare(tmp_path, a, b)
    adds_up(found)
    pairs = {(row.phase, row.under): (row.removed, row.added) for row in found.replaced}
    assert pairs == {
        ("forward", "aten::scaled_dot_product_attention"): (["aten::softmax", "aten::_math"], ["aten::_flash"]),
        ("optimizer", "optimizer"): (["aten::add_", "aten::mul_"], ["aten::_foreach_add_"]),
    }
    assert {row.name for row in found.added} == {"aten::_flash", "aten::_foreach_add_"}
    assert {row.name for row in found.removed} == {"aten::_math", "aten::softmax", "aten::add_", "aten::mul_"}


def test_loaders_beside_the_step_do_not_explain_it(tmp_path: Path) -> None:
    worker = [event("aten::stack", 10, 60, tid=9)]
    found = compare(tmp_path, [*PHASES, event("aten::mm", 12, 5)], [*PHASES, event("aten::mm", 12, 5), *worker])
    adds_up(found)
    assert found.difference_us == 0
    assert [(row.phase, row.name) for row in found.added] == [("beside", "aten::stack")]


def test_the_tree_has_both_sides_call_chains(tmp_path: Path) -> None:
    a = [event("forward", 0, 100, "user_annotation"), event("linear", 10, 50), event("t", 12, 8), event("mm", 25, 30)]
    b = [
        event("forward", 0, 100, "user_annotation"),
        event("linear", 10, 70),
        event("mm", 25, 40),
        event("relu", 85, 5),
    ]
    found = compare(tmp_path, a, b)
    rows = [(node.parent, node.name, node.a_us, node.b_us, node.difference_us) for node in found.tree]
    assert rows[: len(rows) - 1] == [
        (-1, "forward", 100, 100, 0),
        (0, "linear", 50, 70, 20),
        (1, "mm", 30, 40, 10),
        (1, "t", 8, 0, -8),
        (0, "(python between operators)", 50, 25, -25),
        (0, "relu", 0, 5, 5),
    ]
    assert rows[-1] == (-1, "other", 0, 0, 0)


def test_the_tree_folds_what_is_small_or_deep_and_loses_nothing(tmp_path: Path) -> None:
    small = [event(f"op{i}", 10 + i, 0.5) for i in range(30)]
    deep = [event(f"level{i}", 100 + i, 9000 - 2 * i) for i in range(DEEPEST + 5)]
    phase = event("forward", 0, 10000, "user_annotation")
    found = compare(tmp_path, [phase, *small, *deep], [phase, *deep])
    (folded,) = (node for node in found.tree if node.name == "(30 more)")
    assert (folded.parent, folded.a_us, folded.b_us) == (0, 15, 0)
    last = next(number for number, node in enumerate(found.tree) if node.name == f"level{DEEPEST - 1}")
    assert (found.tree[last + 1].name, found.tree[last + 1].parent) == ("(5 more)", last)
    assert found.tree[last + 1].a_us == 9000 - 2 * DEEPEST
    assert (found.tree[0].a_us, found.tree[0].b_us) == (10000, 10000)


def test_the_tree_adds_up_to_the_operators_of_each_phase(recordings: Callable[[str, bool], Recording]) -> None:
    found = diff(load_windows(recordings("cnn", False).path), load_windows(recordings("cnn", True).path))
    operators = [*found.added, *found.removed, *found.changed]
    phases = [node for node in found.tree if node.parent < 0]
    whole = max(sum(node.a_us for node in phases), sum(node.b_us for node in phases))
    for number, phase in enumerate(found.tree):
        below = [node for node in found.tree if node.parent == number]
        for side in ("a_us", "b_us"):
            assert sum(getattr(node, side) for node in below) <= getattr(phase, side) + 1e-6
        if phase.parent < 0:
            own = sum(row.a_self_us for row in operators if row.phase == phase.name)
            python = [node.a_us for node in below if node.name == PYTHON]
            if python or not any(node.name.endswith(" more)") for node in below):
                assert phase.a_us == pytest.approx(own + sum(python))
            else:  # folded, as it is small
                assert 0 <= phase.a_us - own + 1e-6 <= SMALLEST * whole


def test_the_shared_pair_differs_by_what_was_changed_in_it() -> None:
    if not SHARED.exists():
        pytest.skip("the shared traces are not here")
    found = diff(load_windows(SHARED / "diff_base.json.gz"), load_windows(SHARED / "diff_test.json.gz"))
    adds_up(found)
    added = {row.name for row in found.added} - {row.name for row in found.removed}
    assert added == {"All2All_Pooled_Req", "AddmmBackward0", "CatBackward0"}


def test_stages_of_runs_are_compared_with_their_own_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, scale in (("a", 1), ("b", 2)):
        stages = {}
        for stage, dur in (("train", 40), ("infer", 10)):
            path = tmp_path / name / f"{stage}.1.pt.trace.json"
            path.parent.mkdir(exist_ok=True)
            write(path, [event("forward", 0, dur * scale, "user_annotation"), event("aten::mm", 0, dur * scale)])
            stages[stage] = (path.name, 4)
        _write_record(tmp_path / name, stages)
    found = diff(load_windows(tmp_path / "a"), load_windows(tmp_path / "b"))
    adds_up(found)
    assert found.unit == "sample"
    assert {row.phase: row.difference_us for row in found.phases if row.a_us} == {
        "train/forward": 10,
        "infer/forward": 2.5,
    }
    assert [(row.stage, row.a_us, row.b_us, row.difference_us) for row in found.stages] == [
        ("train", 10, 20, 10),
        ("infer", 2.5, 5, 2.5),
    ]
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "per sample: train 10 µs -> 20 µs (+10 µs), infer 2.5 µs -> 5 µs (+2.5 µs); " in capsys.readouterr().out
    for name in ("a", "b"):  # of another rank, which has no record
        write(tmp_path / name / "rank1_train.1.pt.trace.json", [event("forward", 0, 1000, "user_annotation")])
    beside = diff(load_windows(tmp_path / "a"), load_windows(tmp_path / "b"))
    assert (beside.unit, beside.difference_us) == ("sample", found.difference_us)
    assert beside.notes == ["rank1_train.1.pt.trace.json: left out, as no record tells its stage"]
    with pytest.raises(TraceError, match="nothing to compare"):
        diff(
            load_windows(tmp_path / "a" / "train.1.pt.trace.json"),
            load_windows(tmp_path / "b" / "infer.1.pt.trace.json"),
        )


def _write_record(folder: Path, stages: dict[str, tuple[str, int]]) -> None:
    timed = {"samples": [1], "step_s": [1.0], "phase_s": {}}
    memory = {"peak_resident_bytes": 1, "resident_is_per_stage": True, "peak_accelerator_bytes": None}
    environment = dict.fromkeys(("host", "platform", "processor", "device", "device_name", "precision"), "")
    record = {
        "schema_version": 1,
        **dict.fromkeys(("name", "status", "started"), ""),
        "error": None,
        **{key: {} for key in ("config", "changed", "results")},
        "environment": environment | {"cores": 1, "memory_bytes": 1, "threads": 1, "versions": {}},
        "stages": {
            name: {
                "timed": timed,
                "trace": {"path": path, "samples": [samples], "step_s": [1.0], "peak_allocated_bytes": None},
                **memory,
            }
            for name, (path, samples) in stages.items()
        },
    }
    (folder / "record.json").write_text(json.dumps(record))


def test_command_line(capsys: pytest.CaptureFixture[str], recordings: Callable[[str, bool], Recording]) -> None:
    paths = [str(recordings("mlp", full).path) for full in (False, True)]
    assert main(["diff", *paths, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = {"schema_version", "phases", "added", "removed", "changed", "attributed_share", "unattributed_us"}
    assert expected <= found.keys()
    assert found["memory"][0]["a_peak_bytes"] > 0
    assert main(["diff", *paths, "--samples", "4", "8", "--top", "2"]) == 0
    assert "causes (the first 2 of" in capsys.readouterr().out


def test_runs_that_are_bound_by_the_device_differ_by_kernels(tmp_path: Path) -> None:
    def run(kernels: Sequence[tuple[str, float, float]], copied: float) -> list[Event]:
        events = [event("ProfilerStep#1", 0, copied + 40, "user_annotation"), event("aten::mm", 5, 10)]
        for number, (name, start, dur) in enumerate(kernels, start=1):
            events.append(event("cudaLaunchKernel", 5 + number, 1, "cuda_runtime", correlation=number))
            events.append(event(name, start, dur, "kernel", tid=7, correlation=number))
        return [
            *events,
            event("aten::item", 20, copied),
            event("cudaMemcpyAsync", 20, copied, "cuda_runtime", correlation=9),
            event("Memcpy DtoH (Device -> Pageable)", 15 + copied, 3, "gpu_memcpy", tid=7, correlation=9),
        ]

    a = run([("softmax", 20, 300), ("gemm", 320, 500)], 800)
    b = run([("flash", 20, 100), ("gemm", 120, 550)], 650)
    found = compare(tmp_path, a, b)
    adds_up(found)
    assert [(cause.text, cause.difference_us) for cause in found.causes[:3]] == [
        ("waiting for kernel softmax of aten::mm", -300),
        ("waiting for kernel flash of aten::mm", 100),
        ("waiting for kernel gemm of aten::mm", 50),
    ]
    assert not any("aten::item" in cause.text for cause in found.causes)
    assert [(row.name, row.change, row.difference_us) for row in found.kernels] == [
        ("softmax", "removed", -300),
        ("flash", "added", 100),
        ("gemm", "slower", 50),
    ]


def test_the_synchronization_that_closes_a_window_is_no_difference() -> None:
    found = diff(load_windows(case("40-trailing-sync/a.json")), load_windows(case("40-trailing-sync/b.json")))
    assert (found.difference_us, found.causes) == (0, [])
