"""What a file is that is no trace, in words; from its first bytes, as it may be huge or cut short."""

import re

_EXAMINED_BYTES = 1 << 20
_TOKEN = re.compile(rb'"((?:[^"\\]|\\.)*)"(\s*:)?|[{}\[\]]')
_KEYS = (
    ({"schema", "nodes"}, "an execution trace (torch's ExecutionTraceObserver)"),
    ({"segments", "device_traces"}, "a memory snapshot (torch.cuda.memory)"),
    ({"stages", "environment"}, "a run record of abtrace"),
    ({"comparison", "arms"}, "a comparison of abtrace"),
    ({"cells", "nbformat"}, "a Jupyter notebook"),
)
"""Keys that together tell what an object is; any of them does where the rest of the text is unknown."""
_LISTS = (
    (re.compile(rb"\[\s*\[\s*[-\d\]]"), "a memory timeline (torch's export_memory_timeline) or other lists of numbers"),
    (re.compile(rb"\[\s*[-\d]"), "a list of numbers"),
    (re.compile(rb'\[\s*"'), "a list of strings"),
    (re.compile(rb"\[\s*\["), "a list of lists"),
)
_MAGIC = (
    (b"\x80", "a Python pickle, such as a memory snapshot of torch.cuda.memory"),
    (b"\xfd7zXZ", "packed with xz: unpack it first"),
    (b"BZh", "packed with bzip2: unpack it first"),
    (b"7z\xbc\xaf", "packed with 7-Zip: unpack it first"),
    (b"PK\5\6", "an empty zip file"),
    (b"SQLite format 3", "an SQLite database, such as a report of Nsight Systems"),
    (b"version https://git-lfs", "a pointer of Git LFS: git lfs pull fetches the file itself"),
    (b"<", "HTML or XML"),
)
_TAR_MAGIC_AT = 257


def describe_list(text: bytes) -> str | None:
    """Say what a JSON list is, from its first element; None if that may be an event."""
    return next((kind for pattern, kind in _LISTS if pattern.match(text)), None)


def describe_object(text: bytes, *, whole: bool) -> str | None:
    """Say what a JSON object without events is: its kind if that is known, else its first keys; None if cut short."""
    keys = _top_level_keys(text)
    for needed, kind in _KEYS:
        if needed <= keys.keys() or (not whole and needed & keys.keys()):
            return kind
    if not whole:
        return None
    if "traceEvents" in keys:
        return "its traceEvents are no list"
    names = ", ".join(" ".join(key.split())[:40] for key in list(keys)[:8])
    return f"no traceEvents, only {names}" if keys else "an empty object"


def describe_bytes(head: bytes) -> str | None:
    """Say what a file is that is not JSON, where its first bytes tell."""
    if head[_TAR_MAGIC_AT:].startswith(b"ustar"):
        return "a tar archive: unpack it first"
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


def _top_level_keys(text: bytes) -> dict[str, None]:
    """List the keys of the outermost object, in order, as far as `_EXAMINED_BYTES` show them."""
    keys: dict[str, None] = {}
    depth = 0
    for token in _TOKEN.finditer(text, 0, _EXAMINED_BYTES):
        mark = text[token.start() : token.start() + 1]
        if mark in (b"{", b"["):
            depth += 1
        elif mark in (b"}", b"]"):
            depth -= 1
        elif depth == 1 and token[2]:
            keys[token[1].decode("utf-8", "replace")] = None
    return keys
