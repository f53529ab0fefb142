"""Routes: what each answers, and one line of JSON for whatever cannot be answered."""

import gzip
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from werkzeug.test import Client, TestResponse

from profiling import run_record
from profiling.__main__ import main
from tests.profiling.make_trace import event, write
from tests.profiling.tb_plugin.conftest import (
    HOSTILE,
    STEP,
    comparison_text,
    files_of,
    make_record,
    parts_of,
    runs_of,
    trace,
)

BASE = "/data/plugin/abtrace"
ROUTES = ["runs", "figures", "effects", "trace", "plotly.min.js", "static/index.js"]


def get(client: Client, path: str) -> Any:
    response = client.get(f"{BASE}/{path}")
    assert response.status_code == 200, response.text
    assert response.mimetype == "application/json"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    return json.loads(response.data)


def refused(response: TestResponse, status: int, said: str = "") -> None:
    """The status, and one line of JSON that says something and nothing of the server."""
    assert response.status_code == status, response.text
    assert response.mimetype == "application/json"
    (error,) = json.loads(response.data).values()
    assert said in error
    assert "\n" not in error
    assert "logdir/" not in error


def test_runs_says_what_there_is(client: Client, logdir: Path) -> None:
    trace(logdir / "a" / "b")
    trace(logdir / "ab" / "variant")
    run_record.write(make_record(), logdir / "a" / "b")
    (logdir / "ab" / "comparison.json").write_bytes(comparison_text())
    found = get(client, "runs")
    assert (found["schema_version"], found["comparisons"], found["links_out"]) == (1, 1, [])
    one, other = found["runs"]
    (window,) = one.pop("windows")
    assert one == {
        "run": "a/b",
        "name": "baseline",
        "status": "complete",
        "started": "2026-11-24T23:50:27+00:00",
        "record": True,
        "record_error": None,
        "comparison": None,
        "arm": None,
        "links": [],
    }
    assert (window["file"], window["stage"]) == ("w.1.pt.trace.json", "train")
    assert window["bytes"] == (logdir / "a/b/w.1.pt.trace.json").stat().st_size
    assert (other["run"], other["comparison"], other["arm"], other["record"]) == ("ab/variant", "ab", "variant", False)
    trace(logdir / "later")
    assert [run["run"] for run in get(client, "runs")["runs"]] == ["a/b", "ab/variant", "later"]


def test_analyses_say_what_the_command_line_says(
    client: Client, logdir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trace(logdir / "a")
    write(trace(logdir / "b"), [*STEP, event("aten::relu", 50, 9)])
    (logdir / "ab").mkdir()
    (logdir / "ab" / "comparison.json").write_bytes(comparison_text())
    monkeypatch.chdir(logdir)
    for asked, arguments in {
        "figures?run=a": ["a"],
        "figures?run=a&by=shape": ["a", "--by", "shape"],
        "figures?run=a/w.1.pt.trace.json&by=stack": ["a/w.1.pt.trace.json", "--by", "stack"],
        "figures?run=b&against=a": ["a", "b"],
        "effects": [".", "--effects"],
    }.items():
        assert main(["figures", *arguments]) == 0
        assert get(client, asked) == json.loads(capsys.readouterr().out)


def test_records_are_checked(client: Client, logdir: Path) -> None:
    trace(logdir / "a")
    run_record.write(make_record(), logdir / "a")
    for name in ("a", "a/w.1.pt.trace.json"):
        shown = str(get(client, f"figures?run={name}")["overview"])
        assert all(f"{library} {version}" in shown for library, version in make_record().environment.versions.items())
    file = logdir / "a" / "record.json"
    for wrong, said in {
        b"{}": "missing required field",
        b'{"config": {"a": {"b": ' + b"[" * 100_000: "recursion",
        b"\xff": "malformed",
        msgspec.json.encode(msgspec.structs.replace(make_record(), schema_version=7)): "schema version 7",
        b'{"name": 1}': "a/record.json",
    }.items():
        file.write_bytes(wrong)
        messages = parts_of(get(client, "figures?run=a")["overview"], "message")
        assert any(said in message["text"] for message in messages), messages
    assert "record.json is no run record" in get(client, "runs")["runs"][0]["record_error"]


def test_a_trace_is_handed_out_as_it_is(client: Client, logdir: Path) -> None:
    file = trace(logdir / "a", 'w "quoted"\u00e9.1.pt.trace.json.gz')
    with client.get(f"{BASE}/trace", query_string={"run": f"a/{file.name}"}) as response:
        assert response.data == file.read_bytes()
        assert response.mimetype == "application/octet-stream"
        assert response.headers["Content-Length"] == str(file.stat().st_size)
        assert response.headers["Content-Disposition"] == 'attachment; filename="w__quoted__.1.pt.trace.json.gz"'
        assert "Content-Encoding" not in response.headers
    refused(client.get(f"{BASE}/trace?run=a"), 400, "name one of its windows")


@pytest.mark.parametrize(
    ("path", "kind", "content"),
    [
        ("static/index.js", "text/javascript", b"export"),
        ("static/views/run.js", "text/javascript", b"export"),
        ("static/style.css", "text/css", b"--"),
        ("plotly.min.js", "text/javascript", b"plotly.js"),
        ("perfetto/service_worker.js", "text/javascript", b"self"),
    ],
)
def test_files_of_the_tab_and_of_packages(client: Client, path: str, kind: str, content: bytes) -> None:
    plain = client.get(f"{BASE}/{path}")
    assert (plain.status_code, plain.mimetype) == (200, kind)
    assert content in plain.data
    assert plain.headers["X-Content-Type-Options"] == "nosniff"
    assert int(plain.headers["Content-Length"]) == len(plain.data)
    packed = client.get(f"{BASE}/{path}", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    again = client.get(f"{BASE}/{path}", headers={"If-None-Match": plain.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_perfetto_has_a_policy_of_its_own(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    response = client.get(f"{BASE}/perfetto/index.html")
    assert response.mimetype == "text/html"
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    (meta,) = (line for line in response.text.splitlines() if "<meta http-equiv" in line)
    assert "'wasm-unsafe-eval'" in meta
    assert "'unsafe-eval'" not in meta
    assert response.text.index(meta) < response.text.index("<script")
    assert caplog.text == ""  # TensorBoard warns of policies that it does not like


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
def test_only_get(client: Client, route: str, method: str) -> None:
    response = client.open(f"{BASE}/{route}", method=method)
    assert (response.status_code, response.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("figures", 400, "run="),
        ("figures?run=", 400, "run="),
        ("figures?run=a&against=", 404, "''"),
        ("trace", 400, "run="),
        ("figures?run=a&by=color", 400, "shape, stack"),
        ("figures?run=b", 404, "'b'"),
        ("figures?run=a/none.json", 404, "none.json"),
        ("figures?run=empty", 404, "no run"),
        ("trace?run=a/notes.txt", 404, "no trace"),
        ("figures?run=a&against=b", 404, "'b'"),
        ("nothing", 404, "nothing"),
        ("index.js", 404, "index.js"),
        ("static/none.js", 404, "none.js"),
        ("static/", 404, ""),
        ("static/views", 404, "views"),
        ("perfetto/none", 404, "none"),
        ("figures?run=broken", 422, "broken/t.pt.trace.json: not JSON"),
    ],
)
def test_what_cannot_be_answered_gets_one_line(path: str, status: int, said: str, client: Client, logdir: Path) -> None:
    trace(logdir / "a")
    (logdir / "a" / "notes.txt").write_text("mine")
    (logdir / "empty").mkdir()
    (logdir / "broken").mkdir()
    (logdir / "broken" / "t.pt.trace.json").write_text("hello")
    refused(client.get(f"{BASE}/{path}"), status, said)


@pytest.mark.parametrize("route", ["figures", "trace", "figures_against"])
def test_nothing_outside_the_logdir(route: str, client: Client, logdir: Path) -> None:
    outside = logdir.parent / "outside"
    secret = trace(outside)
    run_record.write(make_record(), outside)
    (outside / "comparison.json").write_bytes(comparison_text())
    trace(logdir / "a")
    (logdir / "out").symlink_to(outside)
    (logdir / "loop").symlink_to(logdir / "loop")
    (logdir / "links").mkdir()
    for name in (secret.name, "record.json", "comparison.json"):
        (logdir / "links" / name).symlink_to(outside / name)
    file = f"/{secret.name}" if route == "trace" else ""
    for run in (
        "../outside",
        "a/../../outside",
        "a/..%2f..%2foutside",
        "..%2foutside",
        "%2e%2e/outside",
        "%252e%252e/outside",
        "..\\outside",
        quote(str(outside)),
        f"/{quote(str(outside))}",
        "out",
        "links",
        "loop",
        "a%00",
        "~",
        "a" * 5000,
        "a/" * 3000,
        "%ff",
        "%ed%a0%80",
        "file:///etc",
    ):
        asked = f"figures?run=a&against={run}" if route == "figures_against" else f"{route}?run={run}{file}"
        refused(client.get(f"{BASE}/{asked}"), 404)


@pytest.mark.parametrize("route", ["static", "perfetto"])
def test_no_file_outside_the_tab(route: str, client: Client) -> None:
    for path in ("../plugin.py", "%2e%2e/plugin.py", "..%2fplugin.py", "..%5cplugin.py", "/etc/passwd", "%2fetc/passwd",
                 "views/../../plugin.py", "x%00", "../" * 20 + "etc/passwd", "../index.html"):  # fmt: skip
        refused(client.get(f"{BASE}/{route}/{path}"), 404)


def test_one_link_that_leads_out_spoils_only_itself(client: Client, logdir: Path) -> None:
    kept = trace(logdir / "a", "one.1.pt.trace.json")
    secret = trace(logdir.parent / "outside", "secret.pt.trace.json")
    (logdir / "a" / secret.name).symlink_to(secret)
    (logdir / "b").mkdir()
    (logdir / "b" / kept.name).symlink_to(kept)
    (logdir / "c").mkdir()
    (logdir / "c" / "comparison.json").symlink_to(logdir.parent / "outside" / "comparison.json")
    (logdir.parent / "outside" / "comparison.json").write_bytes(comparison_text())
    runs = get(client, "runs")["runs"]
    assert [(run["run"], [window["file"] for window in run["windows"]]) for run in runs] == [
        ("a", [kept.name]),
        ("b", [kept.name]),
    ]
    refused(client.get(f"{BASE}/figures?run=a"), 404, "choose one of its windows")
    refused(client.get(f"{BASE}/trace?run=a/{secret.name}"), 404)
    assert files_of(get(client, f"figures?run=a/{kept.name}")) == [kept.name]
    assert files_of(get(client, "figures?run=b")) == [kept.name]
    answer = get(client, "effects")
    assert answer["measured"] == {}
    assert answer["notes"] == ["c/comparison.json: left out: a link that leads out of the logdir"]


@pytest.mark.parametrize(
    "name", [HOSTILE, "-h", "--json", "a b", "a&b=c", "%2e", "é", "'\"", "\x01\x1b[31m", "line\nline"]
)
def test_any_name_of_a_run_stays_text(name: str, client: Client, logdir: Path) -> None:
    name = name.replace("/", "")
    file = trace(logdir / name, f"{name}.pt.trace.json")
    assert [run["run"] for run in get(client, "runs")["runs"]] == [name]
    assert files_of(get(client, f"figures?run={quote(name)}")) == [file.name]
    answer = get(client, f"figures?run={quote(name)}&against={quote(f'{name}/{file.name}')}")
    assert runs_of(answer) == [name, name]


@pytest.mark.skipif(sys.platform != "linux", reason="only there a name may be any bytes")
def test_names_that_are_no_text_are_left_out(client: Client, logdir: Path) -> None:
    trace(logdir / "a")
    os.mkdir(os.fsencode(logdir) + b"/\xff")  # noqa: PTH102  # a path cannot say it
    assert [run["run"] for run in get(client, "runs")["runs"]] == ["a"]


def test_a_module_in_the_logdir_is_not_imported(client: Client, logdir: Path) -> None:
    """The analyses run inside the logdir, where anybody who may write a trace may write a file called numpy.py."""
    trace(logdir)
    for module in ("numpy", "msgspec", "profiling", "sitecustomize", "json"):
        (logdir / f"{module}.py").write_text("raise SystemExit('imported')")
    assert files_of(get(client, "figures?run=.")) == ["w.1.pt.trace.json"]


def test_the_tab_is_there_only_where_there_is_something_to_show(
    serve: Callable[[Path | str | None], Client], logdir: Path
) -> None:
    def active(client: Client) -> bool:
        listing = client.get("/data/plugins_listing").get_json()["abtrace"]
        assert (listing["tab_name"], listing["loading_mechanism"]["type"]) == ("A/B Trace", "IFRAME")
        return bool(listing["enabled"])

    for nothing in (None, "", logdir / "none", logdir, "gs://bucket/logs"):
        client = serve(nothing)
        assert not active(client)
        if nothing != logdir:
            refused(client.get(f"{BASE}/runs"), 404, "logdir")
    (logdir / "x.json").write_text('{"a": 1}')
    assert not active(serve(logdir))
    (logdir / "ab").mkdir()
    (logdir / "ab" / "comparison.json").write_bytes(comparison_text())
    assert active(serve(logdir))
    (logdir / "ab" / "comparison.json").unlink()
    trace(logdir / "deep" / "er")
    assert active(serve(logdir))
