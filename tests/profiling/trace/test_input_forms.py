"""However a trace arrives: packed, encoded, through a pipe, in a zip file; and what is JSON but no trace."""

import gzip
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from profiling.__main__ import main
from profiling.analysis.summary import Summary, summarize
from profiling.trace import parallel_reader, text
from profiling.trace.files import find_traces
from profiling.trace.parse import TraceError
from profiling.trace.trace import read_trace, read_traces
from tests.profiling.cases import case
from tests.profiling.make_trace import Event, event, write

EVENTS: list[Event] = [
    event("ProfilerStep#3", 0, 100, "user_annotation"),
    event("aten::mm µ", 10, 20),
    event("aten::add", 40, 5),
]
PLAIN = json.dumps({"schemaVersion": 1, "traceEvents": EVENTS}, ensure_ascii=False)


def summary(path: Path) -> Summary:
    return summarize(read_traces(path))


def names(path: Path) -> list[str]:
    return sorted(row.name for row in summary(path).operators)


class Unseekable(io.RawIOBase):
    """A stream that only goes forward: `zipfile` then writes sizes behind the members."""

    def __init__(self) -> None:
        self.content = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.content += bytes(data)
        return len(data)


def zipped(members: dict[str, bytes], *, packing: int = zipfile.ZIP_DEFLATED, streamed: bool = False) -> bytes:
    target = Unseekable() if streamed else io.BytesIO()
    with zipfile.ZipFile(target, "w", packing) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return target.content if isinstance(target, Unseekable) else target.getvalue()


def zstandard(content: bytes) -> bytes:
    """A frame of one raw block, which any compressor may write."""
    assert len(content) < 1 << 17
    header = b"\x28\xb5\x2f\xfd" + bytes([0xA0]) + struct.pack("<I", len(content))
    return header + struct.pack("<I", 1 | len(content) << 3)[:3] + content


def crlf(content: str) -> bytes:
    return json.dumps(json.loads(content), indent=1, ensure_ascii=False).replace("\n", "\r\n").encode()


FORMS: dict[str, Callable[[str], bytes]] = {
    "gzip": lambda plain: gzip.compress(plain.encode()),
    "gzip in gzip": lambda plain: gzip.compress(gzip.compress(plain.encode())),
    "two gzip members": lambda plain: gzip.compress(plain.encode()[:50]) + gzip.compress(plain.encode()[50:]),
    "zip": lambda plain: zipped({"trace.json": plain.encode()}),
    "zip without compression": lambda plain: zipped({"trace.json": plain.encode()}, packing=zipfile.ZIP_STORED),
    "zip written to a stream": lambda plain: zipped(
        {"readme.txt": b"hello", "trace.json": plain.encode()}, streamed=True
    ),
    "zip from macOS": lambda plain: zipped(
        {"__MACOSX/._trace.json": b"\0\5\x16\7", "run/.hidden.json": b"{}", "run/trace.json": plain.encode()}
    ),
    "gzip in zip": lambda plain: zipped({"trace.json.gz": gzip.compress(plain.encode())}),
    "a byte order mark": lambda plain: plain.encode("utf-8-sig"),
    "UTF-16": lambda plain: plain.encode("utf-16"),
    "UTF-16, little-endian without mark": lambda plain: plain.encode("utf-16-le"),
    "UTF-16, big-endian without mark": lambda plain: plain.encode("utf-16-be"),
    "UTF-16 in gzip": lambda plain: gzip.compress(("\n" + plain).encode("utf-16-le")),
    "lines that end in CR LF": crlf,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("block", [7, 1 << 18])
def test_a_trace_is_read_whatever_form_it_has_and_name(
    form: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "BLOCK_BYTES", block)
    path = tmp_path / "trace.json"
    path.write_bytes(FORMS[form](PLAIN))
    assert names(path) == ["aten::add", "aten::mm µ"]
    assert summary(path).trace.whole
    assert find_traces(tmp_path) == [path]  # the folder finds it, too


@pytest.mark.parametrize("form", FORMS)
def test_standard_input_is_read_once_and_in_order(form: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "profiling", "check", "-"], input=FORMS[form](PLAIN), capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().strip() == "-: whole; cpu, rank 0; 2 cpu_op, 1 user_annotation"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("command", ["summary", "diff", "memory", "check"])
def test_pipes_are_read_by_every_command(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipes = [tmp_path / f"{i}.json" for i in range(2 if command == "diff" else 1)]
    for pipe in pipes:
        os.mkfifo(pipe)
    writers = [threading.Thread(target=pipe.write_text, args=(PLAIN,)) for pipe in pipes]
    for writer in writers:
        writer.start()
    assert main([command, *map(str, pipes)]) == 0
    for writer in writers:
        writer.join()
    assert str(pipes[0]) in capsys.readouterr().out.replace("\n", "")


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="no /dev/fd here")
def test_process_substitution_is_read() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, PLAIN.encode())
    os.close(write_end)
    try:
        assert names(Path(f"/dev/fd/{read_end}")) == ["aten::add", "aten::mm µ"]
    finally:
        os.close(read_end)


def test_an_input_without_text_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "profiling", "summary", "-"], input=b"", capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"-: the file is empty\n")


def test_a_file_whose_name_is_a_dash_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "-", EVENTS)
    monkeypatch.chdir(tmp_path)
    assert main(["check", "./-"]) == 0
    assert "2 cpu_op" in capsys.readouterr().out


def test_a_zip_file_of_several_traces_is_read_as_a_folder_of_them(tmp_path: Path) -> None:
    path = tmp_path / "run.zip"
    content = {f"run/rank{rank}.json": PLAIN.encode() for rank in (10, 9)}
    path.write_bytes(zipped({"run/record.json": b'{"name": "baseline"}', **content}))
    found = summary(path).trace
    assert found.files == [f"{path}/run/rank9.json", f"{path}/run/rank10.json"]
    assert found.ranks == [9, 10]
    assert summary(tmp_path).trace.files == found.files
    member = path / "run" / "rank9.json"
    assert summary(member).trace.ranks == [9]
    for command in (["summary", str(member)], ["diff", str(member), str(path)], ["check", str(path)]):
        assert main(command) == 0
    with pytest.raises(TraceError, match=r"rank7.json: the zip file has no such member"):
        read_traces(path / "run" / "rank7.json")


def test_further_traces_in_a_zip_file_from_a_pipe_are_named() -> None:
    content = zipped({"rank0.json": PLAIN.encode(), "rank1.json": PLAIN.encode()})
    done = subprocess.run(
        [sys.executable, "-m", "profiling", "summary", "-", "--json"], input=content, capture_output=True, check=True
    )
    notes = json.loads(done.stdout)["trace"]["notes"]
    assert notes == ["-: further files in the zip file were not read: rank1.json"]


def test_names_in_a_zip_file_lead_nowhere_else(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside.json", [event("aten::secret", 0, 1)])
    path = tmp_path / "inner" / "a.zip"
    path.parent.mkdir()
    path.write_bytes(
        zipped({str(outside): PLAIN.encode(), "../../outside.json": PLAIN.encode(), "a.json": PLAIN.encode()})
    )
    assert names(path.parent) == ["aten::add", "aten::mm µ"]


def tarred(name: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def encrypted(content: bytes) -> bytes:
    return content[:6] + bytes([content[6] | 1]) + content[7:]


REFUSED: dict[str, tuple[bytes, str]] = {
    "a cut zip file": (zipped({"a.json": PLAIN.encode()})[:40], "the zip file is cut short"),
    "a zip file without JSON": (zipped({"a.txt": b"hello"}), "the zip file holds no JSON file, only a.txt"),
    "an encrypted zip file": (encrypted(zipped({"a.json": PLAIN.encode()})), "a.json is encrypted: unpack it first"),
    "a zip file packed otherwise": (
        zipped({"a.json": PLAIN.encode()}, packing=zipfile.ZIP_BZIP2),
        "a.json is packed by method 12: unpack it first",
    ),
    "noise after zstandard's magic number": (b"\x28\xb5\x2f\xfd" + bytes(range(7, 250, 3)), "zstandard data"),
    "layers without end": (gzip.compress(gzip.compress(gzip.compress(gzip.compress(gzip.compress(b"{}"))))), "4 times"),
    "xz": (b"\xfd7zXZ\0\0\4", "packed with xz: unpack it first"),
    "a tar archive in gzip": (gzip.compress(tarred("a.json", PLAIN.encode())), "a tar archive: unpack it first"),
    "a pickle": (b"\x80\x04\x95\x10", "a Python pickle, such as a memory snapshot"),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_unpacked_says_what_it_is(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, said = REFUSED[what]
    path = tmp_path / "a.json"
    path.write_bytes(content)
    for command in ("summary", "check", "memory"):
        assert main([command, str(path)]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"{path}: ")
        assert said in error
        assert error.count("\n") == 1


def test_zstandard_is_unpacked(tmp_path: Path) -> None:
    if sys.version_info < (3, 14):
        pytest.importorskip("backports.zstd", reason="this Python has no zstandard")
    path = tmp_path / "a.json.zst"
    path.write_bytes(zstandard(PLAIN.encode()[:70]) + zstandard(PLAIN.encode()[70:]))
    assert names(path) == ["aten::add", "aten::mm µ"]
    assert find_traces(tmp_path) == [path]
    path.write_bytes(path.read_bytes()[:-20])
    assert "the zstandard data is cut short" in summary(path).trace.notes[0]


def test_zstandard_that_this_python_cannot_unpack_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    path = tmp_path / "a.json"
    path.write_bytes(zstandard(PLAIN.encode()))
    with pytest.raises(TraceError, match=r"pip install backports\.zstd, or unpack it with zstd -d"):
        read_trace(path)


def test_a_bomb_in_a_zip_file_is_cut_off_with_a_message(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("a.json", "w") as member:
        member.write(b'{"traceEvents": [')
        for _ in range(64):
            member.write(b" " * (1 << 20))
    assert path.stat().st_size < 1 << 20
    assert "no event ends within 8 MiB" in (read_trace(path).cut or "")


def test_a_zip_file_cut_anywhere_gives_what_precedes_the_cut(tmp_path: Path) -> None:
    many = json.dumps({"traceEvents": [event(f"aten::op{i}", 10 * i, 9) for i in range(200)]}).encode()
    content = zipped({"a.json": many})
    path = tmp_path / "a.zip"
    for cut in range(300, len(content), 97):
        path.write_bytes(content[:cut])
        trace = read_trace(path)
        unpacked = zlib.decompressobj(wbits=-15).decompress(content[36:cut])
        assert unpacked.count(b'"ph": ') - 1 <= sum(trace.counts.values()) <= 200


HEADER_BYTES = 3 << 20


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda plain: zipped({"a.json": plain})])
def test_a_folder_finds_a_trace_behind_a_header_of_megabytes(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    groups = [{"pg_name": str(i), "ranks": list(range(1024))} for i in range(HEADER_BYTES // 6000)]
    plain = json.dumps({"distributedInfo": {"rank": 5, "pg_config": groups}, "traceEvents": EVENTS}).encode()
    assert len(plain) > HEADER_BYTES // 2
    (tmp_path / "a.json.gz").write_bytes(pack(plain))
    (tmp_path / "large.json").write_text(json.dumps({"values": list(range(500_000))}))
    assert summary(tmp_path).trace.ranks == [5]


def test_a_folder_finds_a_bare_list_of_events(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(json.dumps(EVENTS))
    (tmp_path / "people.json").write_text(json.dumps([{"id": 1, "name": "x"}]))
    assert find_traces(tmp_path) == [tmp_path / "list.json"]


def test_a_trace_beside_its_packed_copies_counts_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("w.1.pt.trace.json.gz", "w.1.pt.trace.json", "w.2.pt.trace.json.gz"):
        write(tmp_path / name, EVENTS)
    (tmp_path / "w.1.pt.trace.json.zip").write_bytes(zipped({"w.1.pt.trace.json": PLAIN.encode()}))
    found = summary(tmp_path)
    assert [row.calls for row in found.operators] == [2, 2]
    note = (
        "w.1.pt.trace.json: left out, as only the packing differs by name: w.1.pt.trace.json.gz, w.1.pt.trace.json.zip"
    )
    assert found.trace.notes == [note]
    assert main(["check", str(tmp_path)]) == 0
    assert "left out, as only the packing differs" in capsys.readouterr().out
    assert not summary(tmp_path / "w.1.pt.trace.json.gz").trace.notes  # asked for by name


def test_a_large_file_with_a_byte_order_mark_is_read_by_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel_reader, "SMALLEST_BYTES", 0)
    path = tmp_path / "a.json"
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_bytes(PLAIN.encode(encoding))
        assert names(path) == ["aten::add", "aten::mm µ"]


FOREIGN: dict[str, tuple[Any, str]] = {
    "a memory timeline": ([[1, 2, 3], [[0, 0], [10, 20], [20, 30]]], "a memory timeline"),
    "a raw memory timeline": ([[0, 1, 100, 2], [1, 1, 100, 2]], "a memory timeline"),
    "an execution trace": ({"schema": "1.1.1-chakra.0.0.4", "pid": 1, "nodes": [{"id": 1}]}, "an execution trace"),
    "a memory snapshot": ({"segments": [], "device_traces": [[]]}, "a memory snapshot"),
    "a notebook": ({"cells": [], "metadata": {}, "nbformat": 4}, "a Jupyter notebook"),
    "a run record": ({"name": "a", "environment": {}, "stages": {}}, "a run record of abtrace"),
    "a package.json": ({"name": "a", "version": "1"}, "no traceEvents, only name, version"),
    "people": ([{"id": 1, "name": "x"}], "a list of objects, none of them an event"),
    "numbers as events": ({"traceEvents": [1, 2, 3]}, "none of its traceEvents is an event"),
    "lists as events": ({"traceEvents": [[1, 2], [3, 4]]}, "none of its traceEvents is an event"),
    "one string as event": ({"traceEvents": ["a"]}, "none of its traceEvents is an event"),
    "objects as events": ({"traceEvents": [{"a": 1}]}, "a list of objects, none of them an event"),
    "numbers": ([1, 2], "a list of numbers"),
    "strings": (["a"], "a list of strings"),
    "an empty object": ({}, "an empty object"),
    "a value": ("text", "a single value"),
}


@pytest.mark.parametrize("what", FOREIGN)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["json", "gzip"])
def test_json_that_is_no_trace_says_what_it_is(
    what: str, pack: Callable[[bytes], bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value, said = FOREIGN[what]
    path = tmp_path / "a.json"
    path.write_bytes(pack(json.dumps(value).encode()))
    for command in ("summary", "check", "memory"):
        assert main([command, str(path)]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"{path}: JSON, but no trace: {said}")
        assert error.count("\n") == 1


@pytest.mark.parametrize("length", [40_000_000, 5_000_000], ids=["whole", "cut short"])
def test_a_huge_execution_trace_says_what_it_is(length: int, tmp_path: Path) -> None:
    nodes = ",".join(['{"id": 1, "name": "%s"}' % ("x" * 1000)] * 20_000)
    path = tmp_path / "a.json"
    path.write_text(('{"schema": "1.1.1-chakra.0.0.4", "nodes": [' + nodes + "]}")[:length])
    with pytest.raises(TraceError, match="JSON, but no trace: an execution trace"):
        read_trace(path)


@pytest.mark.parametrize("events", [{"traceEvents": []}, []], ids=["an object", "a list"])
def test_a_trace_without_events_has_nothing_to_analyze(events: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(events))
    assert not summary(path).trace.whole
    assert any("nothing to analyze" in note for note in summary(path).trace.notes)
    assert summary(path).events == {}


def memory_event(ts: float, moved: int, address: int, total: int) -> Event:
    args = {"Bytes": moved, "Addr": address, "Total Allocated": total, "Device Type": 12, "Device Id": 0}
    return {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "pid": 1, "tid": 1, "ts": ts, "args": args}


@pytest.mark.parametrize("base", [1 << 40, (1 << 64) - (1 << 20), 1 << 80], ids=["48 bits", "64 bits", "81 bits"])
def test_large_addresses_stay_apart(base: int, tmp_path: Path) -> None:
    moves = [memory_event(i, 1000, base + 4096 * i, 1000 * (i + 1)) for i in range(4)]
    (device,) = summary(write(tmp_path / "a.json", moves)).memory
    assert [(row.bytes, row.allocations) for row in device.alive_at_peak] == [(4000, 4)]
    assert device.before_bytes == 0


@pytest.mark.parametrize("number", [1 << 62, (1 << 63) - 1, 1 << 64, 1 << 70, -(1 << 63), -(1 << 70)])
@pytest.mark.filterwarnings("error")
def test_numbers_that_no_sum_can_hold_are_reduced_and_said(number: int, tmp_path: Path) -> None:
    events = [
        *(event("aten::mm", 10 * i, 8, flops=number) for i in range(3)),
        *(event("Memcpy HtoD", 10 * i + 2, 1, "gpu_memcpy", tid=7, bytes=number) for i in range(3)),
        *(memory_event(10 * i + 3, number, 4096 * i, number) for i in range(3)),
    ]
    found = summary(write(tmp_path / "a.json", events))
    (device,) = found.memory
    assert device.allocated_bytes >= 0 and device.freed_bytes >= 0
    assert found.copies[0].bytes >= 0 and found.operators[0].flops >= 0
    assert any("numbers of bytes or operations are negative or too large" in note for note in found.trace.notes)


def test_large_numbers_that_fit_are_exact(tmp_path: Path) -> None:
    copies = [event("Memcpy HtoD", 10 * i, 1, "gpu_memcpy", tid=7, bytes=(1 << 50) + i) for i in range(100)]
    found = summary(write(tmp_path / "a.json", copies))
    assert found.copies[0].bytes == sum((1 << 50) + i for i in range(100))
    assert not any("too large" in note for note in found.trace.notes)


def test_case_15_a_folder_finds_the_trace_behind_its_header() -> None:
    assert [Path(file).name for file in summary(case("15-large-header")).trace.files] == ["rank0_trace.json"]


def test_case_16_counts_once() -> None:
    found = summary(case("16-json-and-gz"))
    assert {row.name: row.calls for row in found.operators} == {"aten::mm": 5}
    assert ["host_1.1.pt.trace.json.gz" in note for note in found.trace.notes] == [True]


@pytest.mark.parametrize("name", ["timeline.json", "timeline.raw.json"])
def test_case_19_is_a_memory_timeline(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", str(case("19-memory-timeline") / name)]) == 1
    assert "JSON, but no trace: a memory timeline" in capsys.readouterr().err


def test_case_28_is_read_or_says_what_it_is() -> None:
    for path in sorted(case("28-packed").iterdir()):
        if path.name == "zst.json":
            with pytest.raises(TraceError, match="zstandard data"):
                read_trace(path)
        else:
            assert sum(summary(path).events.values()) == 16, path


def test_case_31_keeps_addresses_apart() -> None:
    (device,) = summary(case("31-big-ints") / "trace.json").memory
    assert sum(row.bytes for row in device.alive_at_peak) == 10_000
