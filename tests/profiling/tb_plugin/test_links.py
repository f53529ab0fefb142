"""Links in a logdir: followed inside it, each run once; what leads out is named and never read."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from werkzeug.test import Client

from profiling import run_record
from profiling.__main__ import main
from profiling.storage import WITHIN_VARIABLE
from profiling.tb_plugin.logdir import Listing, Logdir
from tests.odd_files import ODD_FILES
from tests.profiling.tb_plugin.conftest import column, files_of, make_record, parts_of, runs_of, trace
from tests.profiling.tb_plugin.test_plugin import BASE, get, refused

OPENED: list[str] | None = None


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """The files and folders that this process opens."""
    global OPENED  # noqa: PLW0603  # audit hooks cannot be removed
    if OPENED is None:
        sys.addaudithook(_note)
    OPENED = []
    yield OPENED
    OPENED = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("open", "os.scandir", "os.listdir") and OPENED is not None:
        OPENED.append(str(arguments[0]))


def listing(logdir: Path) -> Listing:
    return Logdir(str(logdir)).listing()


def names(logdir: Path) -> list[tuple[str, list[str]]]:
    return [(run.run, run.links) for run in listing(logdir).runs]


def test_a_run_is_listed_once_with_the_names_that_links_give_it(client: Client, logdir: Path) -> None:
    trace(logdir / "baseline" / "1")
    trace(logdir / "baseline" / "2")
    (logdir / "latest").symlink_to(logdir / "baseline" / "2")
    (logdir / "baseline" / "best").symlink_to("1")
    (logdir / "all").symlink_to("baseline", target_is_directory=True)
    assert names(logdir) == [("baseline/1", ["all/1", "baseline/best"]), ("baseline/2", ["all/2", "latest"])]
    assert get(client, "runs")["links_out"] == []
    for name in ("latest", "all/2", "latest/w.1.pt.trace.json"):
        answer = get(client, f"figures?run={name}&against=baseline/best")
        assert runs_of(answer) == ["baseline/1", "baseline/2"]


def test_a_run_that_only_a_link_leads_to_has_the_name_of_the_link(client: Client, logdir: Path) -> None:
    trace(logdir / ".store" / "group" / "one")
    run_record.write(make_record(), logdir / ".store" / "group" / "one")
    (logdir / ".store" / "group" / "again").symlink_to("one")
    (logdir / "linked").symlink_to(logdir / ".store" / "group")
    assert names(logdir) == [("linked/one", ["linked/again"])]
    answer = get(client, "figures?run=linked/one")
    assert column(answer["overview"], "config", "key")
    assert column(answer["operators"], "operators", "name")
    assert Logdir(str(logdir)).holds_traces(wait_s=5)


def test_links_in_circles_end(logdir: Path) -> None:
    trace(logdir / "a")
    trace(logdir / "b")
    (logdir / "a" / "up").symlink_to(logdir)
    (logdir / "a" / "self").symlink_to(logdir / "a")
    (logdir / "itself").symlink_to(logdir / "itself")
    (logdir / "a" / "to_b").symlink_to(logdir / "b")
    (logdir / "b" / "to_a").symlink_to(logdir / "a")
    assert names(logdir) == [("a", ["b/to_a"]), ("b", ["a/to_b"])]
    assert listing(logdir).links_out == []


def test_a_trace_beside_a_link_to_it_counts_once(client: Client, logdir: Path) -> None:
    trace(logdir / "a", "w.1.pt.trace.json")
    trace(logdir / "a", "w.2.pt.trace.json")
    (logdir / "a" / "latest.pt.trace.json").symlink_to("w.2.pt.trace.json")
    (run,) = listing(logdir).runs
    assert [window.file for window in run.windows] == ["w.1.pt.trace.json", "w.2.pt.trace.json"]
    assert column(get(client, "figures?run=a")["operators"], "operators", "calls") == [2, 2]


def test_what_leads_out_is_named_and_not_read(client: Client, logdir: Path, opened: list[str]) -> None:
    outside = logdir.parent / "outside"
    secret = trace(outside, "plain.json")
    trace(outside, "w.1.pt.trace.json")
    run_record.write(make_record(), outside)
    trace(logdir / "a")
    (logdir / "b").mkdir()
    (logdir / "b" / "plain.json").symlink_to(secret)
    (logdir / "a" / "w.2.pt.trace.json").symlink_to(outside / "w.1.pt.trace.json")
    (logdir / "a" / "record.json").symlink_to(outside / "record.json")
    (logdir / "folder").symlink_to(outside)
    (logdir / "up").symlink_to("..")
    (logdir / "gone").symlink_to(outside / "none")
    opened.clear()
    found = get(client, "runs")
    assert found["links_out"] == ["a/w.2.pt.trace.json", "b/plain.json", "folder", "up"]
    assert [run["run"] for run in found["runs"]] == ["a"]
    assert found["runs"][0]["record_error"] == "record.json is a link that leads out of the logdir"
    for route in ("figures?run=a", "figures?run=b", "figures?run=folder", "trace?run=b/plain.json"):
        refused(client.get(f"{BASE}/{route}"), 404)
    assert str(logdir.resolve()) in opened
    assert not [path for path in opened if path.startswith(str(outside))]


def test_a_record_that_leads_out_is_not_read_by_analyses_either(client: Client, logdir: Path) -> None:
    outside = logdir.parent / "outside"
    outside.mkdir()
    run_record.write(make_record(), outside)
    trace(logdir / "a")
    (logdir / "a" / "record.json").symlink_to(outside / "record.json")
    trace(logdir / "inside")
    run_record.write(make_record(), logdir / "inside")
    trace(logdir / "b")
    (logdir / "b" / "record.json").symlink_to(logdir / "inside" / "record.json")
    cards = {run: [card["name"] for card in parts_of(get(client, f"figures?run={run}"), "card")] for run in "ab"}
    assert (cards["a"][0], cards["b"][0]) == ("Step time", "Step time, train")
    said = [part["text"] for part in parts_of(get(client, "figures?run=a"), "message")]
    assert any("record.json: a link that leads out of the logdir" in text for text in said)
    titles = {run: parts_of(get(client, f"figures?run={run}&against={run}"), "panel")[0]["blocks"] for run in "ab"}
    assert "per step" in str(titles["a"])
    assert "per sample" in str(titles["b"])


def test_a_logdir_of_links_that_lead_out_is_not_silent(
    serve: Callable[[Path | str | None], Client], logdir: Path
) -> None:
    trace(logdir.parent / "outside")
    (logdir / "run").symlink_to(logdir.parent / "outside")
    client = serve(logdir)
    assert client.get("/data/plugins_listing").get_json()["abtrace"]["enabled"]
    assert (get(client, "runs")["runs"], get(client, "runs")["links_out"]) == ([], ["run"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("command", ["summary a", "diff a a", "effects a/comparison.json", "figures a"])
def test_a_pipe_in_place_of_a_record_does_not_block_the_command_line(command: str, logdir: Path) -> None:
    trace(logdir / "a")
    for name in ("record.json", "comparison.json"):
        os.mkfifo(logdir / "a" / name)
    done = subprocess.run(
        [sys.executable, "-m", "profiling", *command.split(), *(["--json"] if "figures" not in command else [])],
        cwd=logdir,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        timeout=20,
        check=True,
    )
    found = json.loads(done.stdout)
    assert "operators" in found or "difference_us" in found or "not a file" in found["notes"][0]


@pytest.mark.parametrize("kind", ODD_FILES)
def test_what_is_no_file_stops_no_route(kind: str, client: Client, logdir: Path) -> None:
    trace(logdir / "a")
    for name in ("record.json", "comparison.json", "x.pt.trace.json"):
        ODD_FILES[kind](logdir / "a" / name)
    (run,) = get(client, "runs")["runs"]
    assert [window["file"] for window in run["windows"]] == ["w.1.pt.trace.json"]
    window = "a/w.1.pt.trace.json"
    assert files_of(get(client, f"figures?run={window}")) == ["w.1.pt.trace.json"]
    assert runs_of(get(client, f"figures?run={window}&against={window}")) == ["a", "a"]
    assert get(client, "effects")["measured"] == {}
    refused(client.get(f"{BASE}/trace?run=a/x.pt.trace.json"), 404)


def test_without_the_tab_a_record_may_lie_anywhere(
    logdir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(WITHIN_VARIABLE, raising=False)
    trace(logdir / "a")
    (logdir / "a" / "record.json").symlink_to(run_record.write(make_record(), logdir.parent))
    assert main(["summary", str(logdir / "a"), "--json"]) == 0
    assert msgspec.json.decode(capsys.readouterr().out)["timings"]
