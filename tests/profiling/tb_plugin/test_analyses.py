"""Limits: what a hostile trace can cost, and what is said when it would cost more."""

import json
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from werkzeug.test import Client

from profiling.tb_plugin import analyses
from tests.profiling.make_trace import event, write
from tests.profiling.tb_plugin.conftest import parts_of, trace

FIGURES = "/data/plugin/abtrace/figures?run=a"
EVENT = json.dumps(event("aten::mm", 1.5, 2.5)).encode()


@pytest.fixture(autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    before = psutil.Process().children()  # the fork server of other tests
    yield
    assert [child for child in psutil.Process().children() if child not in before] == []


def pretend(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let the analyses run a program of our own."""
    monkeypatch.setattr(analyses, "COMMAND", ("-c", code))


def asked(client: Client, status: int) -> str:
    response = client.get(FIGURES)
    assert response.status_code == status, response.text
    error: str = response.get_json()["error"]
    assert "\n" not in error
    return error


@pytest.fixture(autouse=True)
def run(logdir: Path) -> Path:
    return trace(logdir / "a").parent


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_time_is_bounded_also_of_a_process_that_started_another(
    client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(analyses, "LIMIT_S", 0.5)
    spin = "while True: pass"
    pretend(
        monkeypatch,
        f"""
import subprocess, sys
process = subprocess.Popen([sys.executable, "-c", "{spin}"])
open({str(tmp_path / "pid")!r}, "w").write(str(process.pid))
process.wait()
""",
    )
    start = time.monotonic()
    assert asked(client, 422) == "the analysis was stopped: it would take more than 0.5 s"
    assert time.monotonic() - start < 3
    while running(int((tmp_path / "pid").read_text())):  # a killed process is still running until it is next scheduled
        assert time.monotonic() - start < 10
        time.sleep(0.01)


def test_memory_is_bounded_by_the_watch_on_every_system(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyses, "limit_bytes", lambda: 100 << 20)
    monkeypatch.setattr(analyses, "_limit", lambda pid: None)  # a system without resource limits
    pretend(monkeypatch, "import time; kept = bytearray(200 << 20); time.sleep(60)")
    assert asked(client, 422) == "the analysis was stopped: it would take more than 0.1 GiB of memory"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets one process limit another")
def test_memory_is_bounded_by_the_kernel_at_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyses, "MAX_LIMIT_BYTES", 100 << 20)
    monkeypatch.setattr(analyses, "_ADDRESS_SPACE_BYTES", 100 << 20)
    pretend(monkeypatch, "import time; time.sleep(0.2); bytearray(1 << 40)")
    assert asked(client, 500) == "the analysis failed: MemoryError"


def test_the_answer_is_bounded(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyses, "MAX_ANSWER_BYTES", 1 << 20)
    pretend(monkeypatch, "import sys, time; sys.stdout.write(' ' * (2 << 20)); sys.stdout.flush(); time.sleep(60)")
    assert "an answer of more than 1 MiB" in asked(client, 422)


def test_two_run_at_once_and_others_wait(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyses, "LIMIT_S", 0.4)
    pretend(monkeypatch, "import time; time.sleep(60)")
    paths = [f"{FIGURES}{by}" for by in ("", "&by=shape", "&by=stack")]
    with ThreadPoolExecutor(3) as pool:
        said = list(pool.map(lambda path: client.get(path).get_json()["error"], paths))
    assert sum("more than" in line for line in said) >= 2
    assert all("stopped" in line or "try again later" in line for line in said)


def test_what_fails_is_said_in_one_line_and_logged_in_full(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pretend(monkeypatch, "print('half an answer'); 1 / 0")
    assert asked(client, 500) == "the analysis failed: ZeroDivisionError: division by zero"
    assert "Traceback" in caplog.text
    pretend(monkeypatch, "import os; os.kill(os.getpid(), 9)")
    assert "processor time or memory" in asked(client, 422)
    pretend(monkeypatch, "import sys; sys.exit('a.json: no trace')")
    assert asked(client, 422) == "a.json: no trace"


def bomb(path: Path, head: bytes, unit: bytes, size: int) -> None:
    """Gzip `head` and `size` bytes of repeated `unit`."""
    pack = zlib.compressobj(1, wbits=31)
    with path.open("wb") as file:
        file.write(pack.compress(head))
        for _ in range(size // len(unit)):
            file.write(pack.compress(unit))
        file.write(pack.flush())


def test_a_bomb_of_spaces_is_not_unfolded(client: Client, run: Path) -> None:
    (run / "w.1.pt.trace.json").unlink()
    bomb(run / "b.pt.trace.json.gz", b'{"traceEvents": [', b" " * (1 << 24), 1 << 30)
    ((note,),) = (part["lines"] for part in parts_of(client.get(FIGURES).get_json()["overview"], "list"))
    assert note == "b.pt.trace.json.gz: partial: reading stopped at byte 8650752: no event ends within 8 MiB"


def test_a_bomb_of_events_is_stopped(client: Client, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyses, "limit_bytes", lambda: 150 << 20)
    (run / "w.1.pt.trace.json").unlink()
    bomb(run / "b.pt.trace.json.gz", b'{"traceEvents": [' + EVENT, (b"," + EVENT) * (1 << 14), 1 << 29)
    assert "more than 0.1 GiB of memory" in asked(client, 422)


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        (b'{"traceEvents":[{"ph":"X","args":' + b"[" * 200_000 + b"]" * 200_000 + b"}]}", 200, "unreadable"),
        (b'{"traceEvents":[' + b'{"a":' * 200_000, 200, "partial"),
        (b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b',"traceEvents":[]}', 200, "keys around traceEvents"),
        (b'{"x":' + b"[" * 200_000, 422, "recursion"),
        (b'{"traceEvents":{}}', 422, "no list"),
        (b'{"traceEvents":[1,null,"x",[],{}]}', 422, "none of its traceEvents is an event"),
        (b'{"traceEvents":[' + (EVENT + b",") * 100 + EVENT[:40], 200, "partial"),
        (bytes(range(256)) * 1000, 422, "not JSON"),
        (b"", 422, "empty"),
        (b"\x1f\x8b\x08\0broken", 422, "gzip"),
    ],
)
def test_broken_and_hostile_files_are_said_to_be(
    text: bytes, status: int, said: str, client: Client, run: Path
) -> None:
    (run / "w.1.pt.trace.json").write_bytes(text)
    response = client.get(FIGURES)
    assert response.status_code == status
    answer = response.get_json()
    assert said in (answer["error"] if status != 200 else str(parts_of(answer["overview"], "list")))


def test_events_nested_200_000_deep(client: Client, run: Path) -> None:
    """Spans in spans, as a hostile trace may nest them: answered, or stopped, but never for long."""
    count = 200_000
    spans = [event(f"op{i % 7}", i, 2 * (count - i) + 1) for i in range(count)]
    write(run / "w.1.pt.trace.json", spans)
    assert client.get(FIGURES).status_code == 200
