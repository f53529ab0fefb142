"""The cache: kept, bounded, shared, and never in the way."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from werkzeug.test import Client

from profiling.tb_plugin import cache
from profiling.tb_plugin.analyses import Analyses
from tests.conftest import ROOT
from tests.profiling.tb_plugin.conftest import trace

FIGURES = "/data/plugin/abtrace/figures?run=a"


def entries(caches: Path) -> set[Path]:
    return set(caches.rglob(f"*{cache.SUFFIX}"))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The analyses that were really run."""
    asked: list[str] = []
    run = Analyses._run
    monkeypatch.setattr(Analyses, "_run", lambda self, *given: asked.append(given[1][0]) or run(self, *given))
    return asked


def test_an_answer_is_computed_once_for_each_state_of_its_files(
    client: Client, logdir: Path, caches: Path, runs: list[str]
) -> None:
    file = trace(logdir / "a")
    first = client.get(FIGURES)
    (entry,) = entries(caches)
    assert entry.stat().st_mode & 0o77 == 0 or entry.parent.stat().st_mode & 0o77 == 0
    assert client.get(FIGURES).data == first.data
    assert runs == ["figures"]
    again = client.get(FIGURES, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    os.utime(file, ns=(1, 1))
    client.get(FIGURES)
    client.get(f"{FIGURES}&by=shape")
    assert runs == ["figures"] * 3
    assert not list(logdir.rglob(f"*{cache.SUFFIX}"))
    assert {path.name for path in logdir.rglob("*")} == {"a", file.name}


def test_two_servers_share_it_and_deleting_it_costs_only_time(
    client: Client, serve: Callable[[Path], Client], logdir: Path, caches: Path, runs: list[str]
) -> None:
    trace(logdir / "a")
    first = client.get(FIGURES)
    assert serve(logdir).get(FIGURES).data == first.data
    assert runs == ["figures"]
    for entry in entries(caches):
        entry.unlink()
    assert client.get(FIGURES).data == first.data
    for folder in caches.iterdir():
        folder.rename(caches.parent / "moved")
    assert client.get(FIGURES).data == first.data
    assert runs == ["figures"] * 3


def test_many_ask_at_once_and_one_process_answers(client: Client, logdir: Path, runs: list[str]) -> None:
    trace(logdir / "a")
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(client.get(FIGURES).data)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(answers), len(set(answers)), runs) == (8, 1, ["figures"])


def test_a_file_that_changes_meanwhile_is_not_kept(
    client: Client, logdir: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = trace(logdir / "a")
    run = Analyses._run

    def changing(self: Analyses, *given: object) -> bytes:
        os.utime(file, ns=(1, 1))
        return run(self, *given)

    monkeypatch.setattr(Analyses, "_run", changing)
    assert client.get(FIGURES).status_code == 200
    assert entries(caches) == set()


def test_a_cache_that_cannot_be_written_is_said_once_and_not_needed(
    client: Client, logdir: Path, caches: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trace(logdir / "a")
    caches.write_text("no folder")  # also root cannot write into this
    for path in (FIGURES, FIGURES, "/data/plugin/abtrace/plotly.min.js"):
        assert client.get(path).status_code == 200
    assert caplog.text.count("A/B Trace keeps no answers") == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry, other: entry.write_bytes(b"garbage"),
        lambda entry, other: entry.write_bytes(b""),
        lambda entry, other: entry.write_bytes(entry.read_bytes()[:-9]),
        lambda entry, other: entry.write_bytes(entry.read_bytes()[:40] + b"x" + entry.read_bytes()[41:]),
        lambda entry, other: entry.write_bytes(other.read_bytes()),
    ],
)
def test_a_damaged_entry_is_discarded_and_computed_again(
    damage: Callable[[Path, Path], object], client: Client, logdir: Path, caches: Path, runs: list[str]
) -> None:
    trace(logdir / "a")
    first = client.get(FIGURES)
    (entry,) = entries(caches)
    client.get(f"{FIGURES}&by=shape")
    (other,) = entries(caches) - {entry}
    damage(entry, other)
    again = client.get(FIGURES)
    assert (again.status_code, again.data) == (200, first.data)
    assert runs == ["figures"] * 3


def test_the_oldest_entries_make_room(tmp_path: Path) -> None:
    kept = cache.Cache(tmp_path / "cache", max_bytes=300)  # room for two entries with their checksums
    for number, name in enumerate(("one", "two", "three")):
        kept.put(name, bytes(100))
        if (path := tmp_path / "cache" / f"{name}{cache.SUFFIX}").exists():
            os.utime(path, ns=(number, number))
    assert kept.get("one") is None
    assert kept.get("two") == bytes(100)  # which makes it the youngest
    kept.put("four", bytes(100))
    assert kept.get("three") is None
    assert kept.get("two") == kept.get("four") == bytes(100)
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {f"two{cache.SUFFIX}", f"four{cache.SUFFIX}"}


def test_a_key_names_every_file_its_state_and_the_question(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    other.write_text("1")
    os.utime(other, ns=(one.stat().st_atime_ns, one.stat().st_mtime_ns))
    keys = {cache.key(asked, files) for asked in (["a", "b"], ["ab"], ["b", "a"]) for files in ([one], [other], [])}
    assert len(keys) == 9
    before = cache.key(["a"], [one])
    assert before == cache.key(["a"], [one])
    one.write_text("22")
    assert before != cache.key(["a"], [one])


def test_a_key_names_every_source_file_whatever_folders_come(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "profiling", tmp_path / "profiling", ignore=shutil.ignore_patterns("__pycache__"))

    def key() -> str:
        code = "from profiling.tb_plugin import cache; print(cache.__file__, cache.key([], []))"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        file, key = done.stdout.split()
        assert file.startswith(str(tmp_path))
        return key

    keys = [key(), key()]
    for name in ("advice/rule.py", "analysis/deeper/roofs.py"):
        (tmp_path / "profiling" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "profiling" / name).touch()
        keys.append(key())
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
