"""Requests to the tab's server, on a logdir with damaged, foreign and hostile files; without a socket.

Analyses run in this process, since one of their own costs a second each.
"""

import contextlib
import gzip
import io
import json
import logging
import os
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlencode

from tensorboard.backend.application import TensorBoardWSGI
from tensorboard.plugins.base_plugin import TBContext
from werkzeug.test import Client

from profiling.__main__ import main
from profiling.storage import WITHIN_VARIABLE, write_json
from profiling.tb_plugin import cache
from profiling.tb_plugin.analyses import Analyses, _failure
from profiling.tb_plugin.plugin import ABTracePlugin
from tests.fuzz.case import command, expect
from tests.fuzz.mutations import TEXTS, changed_bytes, odd_value
from tests.profiling.make_trace import event, write
from tests.profiling.tb_plugin.conftest import STEP, make_record

SECRET = "the content of a file outside"
ROUTES = (
    "runs", "figures", "effects", "trace", "plotly.min.js", "static/index.js",
    "static/", "perfetto/index.html", "perfetto/", "x", "", "static/../plugin.py", "static/%2e%2e/plugin.py",
    "static//etc/passwd", "static/%00", "perfetto/../../x", "runs/", "runs/x", "static/index.js%0a", "static/views",
)  # fmt: skip
RUNS = (".", "a/b", "linked", "hidden", "outside", "loop", "up", "a", "compared/baseline", "compared/variant", "bad")
WINDOWS = ("w.pt.trace.json", "record.json", "out.pt.trace.json", "x", "w.pt.trace.json/", "../a", "comparison.json")
FILES = ("a/w.pt.trace.json", "a/record.json", "compared/comparison.json", "bad/w.pt.trace.json", "bad/record.json")
NAMES = ("run", "against", "by", "x")
METHODS = ("HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "X")
HEADERS = {
    "Accept-Encoding": ("gzip", "identity", "gzip;q=0", "br", "*", "gzip;q=x", "\x7f"),
    "If-None-Match": ("*", '"x"', "x", 'W/"x"', '"' * 3),
    "If-Modified-Since": ("Thu, 01 Jan 1970 00:00:00 GMT", "x"),
    "Range": ("bytes=0-1", "bytes=5-1", "bytes=-1", "x", "bytes=99999999999999999999-"),
    "Content-Length": ("-1", "x", "5"),
    "Host": ("x", "", "[::1", "a:b"),
}


class Inputs:
    """See `tests.fuzz.case.Kind`. `steps`: links to make in the logdir, and requests."""

    def __init__(self, folder: Path) -> None:
        self.trace = write(folder / "trace.json", STEP).read_bytes()
        self.record = write_json(make_record("w.pt.trace.json"), folder / "record.json").read_bytes()
        self.secret = write(folder / "secret.json", [event(SECRET, 0, 10)]).read_bytes()
        logging.getLogger("tensorboard").setLevel(logging.CRITICAL)  # it logs every unknown path
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")

    def make(self, source: random.Random) -> tuple[Any, dict[str, bytes]]:
        """A logdir, damaged in a few places, and requests about it."""
        files = {
            **{f"logdir/{run}/w.pt.trace.json": self.trace for run in ("a", "a/b", "bad", ".hid/den")},
            **{f"logdir/compared/{arm}/w.pt.trace.json": self.trace for arm in ("baseline", "variant")},
            **{f"logdir/{run}/record.json": self.record for run in ("a", "compared/baseline")},
            "logdir/compared/comparison.json": b"{}",
            "outside/w.pt.trace.json": self.secret,
            "outside/record.json": self.record.replace(b'"baseline"', json.dumps(SECRET).encode(), 1),
        }
        for _ in range(source.choice((0, 1, 3))):
            name = f"logdir/{source.choice(FILES)}"
            content = self.trace if name.endswith("trace.json") else self.record
            files[name] = changed_bytes(source, content) if source.random() < 0.6 else _changed_json(source, content)
        links = {
            "linked": "a",
            "hidden": ".hid/den",
            "outside": "../outside",
            "loop": "loop",
            "up": "..",
            "bad/out.pt.trace.json": "../../outside/w.pt.trace.json",
            source.choice(("a/b", "compared/variant", "bad")) + "/record.json": source.choice(
                ("../../outside/record.json", "../../../outside/record.json", "record.json", "/etc/passwd", "|")
            ),
        }
        requests = [_request(source) for _ in range(6)]
        return [{name: to for name, to in links.items() if source.random() < 0.7}, requests], files

    def run(self, steps: Any, folder: Path) -> None:
        """Answer every request: no error of the server, and nothing from outside the logdir."""
        links, requests = steps
        for name, target in links.items():
            path = folder / "logdir" / name
            path.unlink(missing_ok=True)
            if target == "|":
                os.mkfifo(path)
            else:
                path.symlink_to(target)
        before = _listing(folder)
        with mock.patch.object(Analyses, "_run", _run_here):
            client = Client(TensorBoardWSGI([ABTracePlugin(TBContext(logdir=str(folder / "logdir")))]))
            for method, path, query, headers in requests:
                response = client.open(
                    f"/data/plugin/abtrace/{path}", method=method, query_string=query, headers=headers, buffered=True
                )
                shown = f"{method} {path} {query} {headers}: {response.status}: {response.get_data()[:300]!r}"
                expect(response.status_code < 500, shown)
                text = _unpacked(response)
                expect(SECRET.encode() not in text and b"root:x:" not in text, f"from outside: {shown}")
                if response.status_code >= 400 and response.mimetype == "application/json" and method != "HEAD":
                    message = json.loads(text)["error"]
                    expect(message and message.isprintable(), f"not one line: {shown}")
                response.close()
        expect(_listing(folder) == before, "the logdir was changed")


def _unpacked(response: Any) -> bytes:
    """The content of a response, unpacked."""
    content: bytes = response.get_data()
    return gzip.decompress(content) if response.headers.get("Content-Encoding") == "gzip" else content


def _run_here(self: Analyses, folder: Path, arguments: Sequence[str]) -> bytes:
    """As `Analyses._run`, in this process."""
    with mock.patch.dict(os.environ, {WITHIN_VARIABLE: str(folder)}), contextlib.chdir(folder):
        status, written, said = command(partial(main, arguments))
    if status:
        raise _failure(arguments, status, io.BytesIO(said.encode()))
    return cache.packed(io.BytesIO(written.encode()))


def _request(source: random.Random) -> Any:
    query = {}
    for name in NAMES:
        if source.random() < 0.7:
            run = source.choice(RUNS[source.choice((0, 0, 7)) :])
            window = f"/{source.choice((WINDOWS[0], *WINDOWS))}" if source.random() < 0.4 else ""
            query[name] = (
                f"{run}{window}" if source.random() < 0.9 else source.choice((*TEXTS, "/etc", "a\x00", "a/" * 3000))
            )
    if source.random() < 0.6:
        query["by"] = source.choice(("shape", "stack", "operator", "", "--json"))
    elif source.random() < 0.9:
        query.pop("by", None)
    headers = {name: source.choice(values) for name, values in HEADERS.items() if source.random() < 0.15}
    path = source.choice(ROUTES[:6]) if source.random() < 0.7 else source.choice(ROUTES)
    method = source.choice(METHODS) if source.random() < 0.1 else "GET"
    return [method, path, urlencode(query, errors="surrogatepass"), headers]


def _changed_json(source: random.Random, content: bytes) -> bytes:
    """JSON with another value at a random place."""
    value = json.loads(content)
    place = value
    while isinstance(place, dict | list) and place:
        key = source.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], dict | list) or not place[key] or source.random() < 0.3:
            place[key] = odd_value(source)
            break
        place = place[key]
    return json.dumps(value).encode()


def _listing(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))
