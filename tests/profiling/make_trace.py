"""Traces that tests write by hand, event by event."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Event = dict[str, Any]


def event(name: str, ts: float, dur: float, cat: str = "cpu_op", tid: int | str = 1, **args: Any) -> Event:
    """A complete event; keyword arguments become its `args`, with `_` for a space."""
    named = {key.replace("_", " "): value for key, value in args.items()}
    return {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": tid, "ts": ts, "dur": dur, "args": named}


def write(path: Path, events: Sequence[Event], **header: Any) -> Path:
    """Write a trace as Kineto does, gzipped if the name says so."""
    text = json.dumps({"schemaVersion": 1, **header, "traceEvents": list(events)}, indent=2)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path
