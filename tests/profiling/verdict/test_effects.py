"""The ladder as a command: judged together, and whole in spite of single files that are not."""

import json
import os
from pathlib import Path

import msgspec
import pytest

from profiling.__main__ import main
from profiling.storage import WITHIN_VARIABLE
from profiling.verdict.record import write_comparison
from tests.profiling.report.reports import arm, compared, recorded


def write(folder: Path, name: str, shift: float, **changes: object) -> Path:
    folder.mkdir(parents=True)
    return write_comparison(recorded(compared(name, shift), **changes), folder)


def run_json(capsys: pytest.CaptureFixture[str], path: Path) -> dict:
    assert main(["effects", str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_holds_the_documented_keys_in_a_stable_order(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arms = {"baseline": arm(train="baseline/t.pt.trace.json"), "variant": arm()}
    write(tmp_path / "ladder" / "late", "slow", 1.5, started="2026-11-22T00:00:00", arms=arms)
    write(tmp_path / "ladder" / "early", "same", 1.0, topic="memory")
    found = run_json(capsys, tmp_path)
    assert list(found) == ["schema_version", "notes", "effects"]
    assert (found["schema_version"], found["notes"]) == (1, [])
    same, slow = found["effects"]
    assert list(slow) == [
        "experiment",
        "title",
        "folder",
        "started",
        "partial",
        "topic",
        "hypothesis",
        "verdict",
        "verdict_text",
        "outcome",
        "reason",
        "phases",
        "memory",
        "numerics",
        "numerics_text",
        "changed",
        "environment",
        "baseline",
        "variant",
    ]
    assert (same["experiment"], same["folder"], same["topic"]) == ("same", "ladder/early", "memory")
    assert same["verdict_text"].startswith("no detectable effect (<")
    assert (slow["verdict"], slow["outcome"], slow["numerics_text"]) == ("slower", "confirmed", "✓ identical")
    assert (slow["baseline"], slow["variant"]) == ("ladder/late/baseline", None)
    assert slow["changed"] == {"switches.eval_context": ["inference_mode", "grad"]}
    train, evaluate = slow["phases"]
    assert evaluate["ratio_low"] < evaluate["ratio"] < evaluate["ratio_high"]
    assert evaluate["p_holm"] >= evaluate["p_family"]
    assert train["p_holm"] == train["p_family"], "the only phase that the hypothesis does not name"
    assert run_json(capsys, tmp_path / "ladder" / "late")["effects"][0]["folder"] == "."
    assert run_json(capsys, tmp_path / "ladder" / "late" / "comparison.json")["effects"][0]["folder"] == "."


def test_what_cannot_be_read_is_noted_and_the_others_are_shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "good", "slow", 1.5)
    whole = json.loads(file.read_bytes())
    for effect in whole["comparison"]["phases"]:
        effect["ratio_low"] = -1.0
    for name, text in {
        "cut": file.read_bytes()[:500],
        "deep": b'{"configs":{"a":{"b":' + b"[" * 200_000,
        "future": msgspec.json.encode(whole | {"schema_version": 9}),
        "absurd": msgspec.json.encode(whole),
        "huge": b" " * (17 << 20),
        "bytes": b"\xff\xfe",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "comparison.json").write_bytes(text)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "comparison.json").symlink_to("/etc/hostname")
    if hasattr(os, "mkfifo"):
        (tmp_path / "pipe").mkdir()
        os.mkfifo(tmp_path / "pipe" / "comparison.json")
    monkeypatch.setenv(WITHIN_VARIABLE, str(tmp_path))
    found = run_json(capsys, tmp_path)
    assert [row["experiment"] for row in found["effects"]] == ["slow"]
    said = dict(note.split("/comparison.json: left out: ") for note in found["notes"])
    assert said.keys() == {"cut", "deep", "future", "absurd", "huge", "bytes", "linked"}
    assert "truncated" in said["cut"]
    assert "recursion" in said["deep"]
    assert "schema version 9" in said["future"]
    assert "figures mean nothing" in said["absurd"]
    assert "larger than 16 MiB" in said["huge"]
    assert "leads out" in said["linked"]
    assert all("\n" not in note and str(tmp_path) not in note for note in found["notes"])


def test_tables_for_people_and_errors(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "132")
    assert main(["effects", str(tmp_path)]) == 0
    assert "python -m train.ab" in capsys.readouterr().out
    write(tmp_path / "one", "[red]slow", 1.5)
    assert main(["effects", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "[red]slow" in shown
    assert "confirmed: evaluate slower" in shown
    assert main(["effects", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == f"{tmp_path / 'none'}: no such file or folder\n"
