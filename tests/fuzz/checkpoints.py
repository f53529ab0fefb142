"""Checkpoints: files that this program wrote, changed in bytes, in their archive and in their fields, then read."""

import contextlib
import copy
import csv
import dataclasses
import io
import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from profiling.errors import UserError
from tests.conftest import TINY_DATA, composed
from tests.fuzz.case import expect
from tests.fuzz.mutations import changed_bytes, odd_value
from train import checkpoint, session
from train.config import compose
from train.inference import infer
from train.run import checkpoint_of

MODELS = (("mlp", "model.width=8", "model.depth=1"), ("cnn", "model.width=2"), ("vit", "model.depth=1"))
GIVEN: tuple[dict[str, Any], ...] = (
    {"model._target_": "models.mlp.MLP"}, {"model.width": 9}, {"data._target_": "train.data.digits"},
    {"data.classes": 3}, {"switches.conv_bias": "present"}, {"data.test_samples": 3},
    {"model.width": 8, "data.image_size": 28},
)  # fmt: skip
RAN = "code of the checkpoint ran"
TARGETS = ("os.system", "builtins.exec", "models.cnn.CNN", "models.mlp.MLP", "torch.nn.Linear", "train.data.mnist", "x")


class Code:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, (RAN,)


class Inputs:
    """See `tests.fuzz.case.Kind`. `steps`: the path that is given, and other given keys with their values."""

    def __init__(self, folder: Path) -> None:
        self.config = compose.to_config(composed("task=infer", "checkpoint=x", "threads=1"))
        self.valid: list[bytes] = []
        for number, (model, *fields) in enumerate(MODELS):
            config = compose.to_config(composed(f"model={model}", *fields, *TINY_DATA))
            (folder / str(number)).mkdir()
            path = checkpoint.save(checkpoint_of(session.prepare(config)), folder / str(number))
            self.valid.append(path.read_bytes())

    def make(self, source: random.Random) -> tuple[Any, dict[str, bytes]]:
        """A checkpoint that is damaged, or that has other fields, and sometimes keys that may not fit it."""
        content = source.choice(self.valid)
        kind = source.random()
        if kind < 0.3:
            content = changed_bytes(source, content)
        elif kind < 0.5:
            content = _changed_archive(source, content)
        else:
            content = _saved(_changed(source, torch.load(io.BytesIO(content), weights_only=True)))
        name = source.choice(("c.pt", "runs/baseline/2026-11-27_00-00-00-000000/checkpoint.pt"))
        given = source.choice(GIVEN) if source.random() < 0.2 else {}
        return [name if name == "c.pt" else source.choice(("runs", "runs/base", name)), given], {name: content}

    def run(self, steps: Any, folder: Path) -> None:
        """Infer: predictions of every image, or one line; never code of the file."""
        path, given = steps
        (folder / "out").mkdir()
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                infer(dataclasses.replace(self.config, checkpoint=path), given, folder / "out")
        except UserError as error:
            expect(str(error).strip() and "\n" not in str(error), f"not one line: {error}")
            expect(not any((folder / "out").iterdir()), f"left behind: {[*folder.rglob('*')]}")
        else:
            with (folder / "out" / "predictions.csv").open(newline="") as file:
                rows = list(csv.DictReader(file))
            expect(
                rows and all(0 <= float(row["probability"]) <= 1 for row in rows), "predictions are no probabilities"
            )
        expect(not (folder / RAN).exists(), RAN)


def _saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _changed(source: random.Random, content: dict[str, Any]) -> Any:
    """Content with one or a few fields missing, of another type, length or name, also inside the weights."""
    for _ in range(source.choice((1, 1, 2))):
        key = source.choice(list(content))
        kind = source.randrange(9)
        value = content[key]
        if kind == 0:
            del content[key]
        elif kind == 1:
            content[source.choice(("extra", "", "format ", "\x1b[31m"))] = odd_value(source)
        elif kind == 2:
            content[key] = odd_value(source)
        elif kind == 3 and isinstance(value, list | tuple):
            items = list(value) * source.choice((0, 1, 2))
            content[key] = type(value)([*items, odd_value(source)])
        elif kind == 4 and isinstance(value, dict) and value:
            name = source.choice(list(value))
            value = content[key] = copy.copy(value)
            value[source.choice((name, name, "new"))] = odd_value(source)
            if source.random() < 0.3:
                del value[name]
        elif kind == 5 and isinstance(content.get("model"), dict):
            content[source.choice(("model", "data"))] = {**content["model"], "_target_": source.choice(TARGETS)}
        elif kind == 6:
            content[key] = source.choice((Code(), torch.zeros(2), {1: 2}, b"x", {"x"}, 1j, -1, 0, 2**40, [[]] * 3))
        elif isinstance(content.get("weights"), dict) and content["weights"]:
            weights = content["weights"] = dict(content["weights"])
            name = source.choice(list(weights))
            weights[name] = _changed_tensor(source, weights[name]) if kind == 7 else odd_value(source)
        if not content:
            break
    return source.choice((content, content, content, content, content, list(content), [content]))


def _changed_tensor(source: random.Random, tensor: Any) -> Any:
    """Another tensor: of another type, shape, layout, or with other values."""
    if not isinstance(tensor, Tensor):
        return tensor
    changes = (
        tensor.double,
        tensor.half,
        tensor.long,
        lambda: tensor.unsqueeze(0),
        lambda: tensor.flatten()[:1],
        lambda: tensor.flatten()[:0],
        lambda: torch.full_like(tensor, float("nan") if tensor.is_floating_point() else -1),
        lambda: torch.full_like(tensor, 1e38 if tensor.is_floating_point() else 1),
        lambda: tensor.to_sparse() if tensor.dim() else tensor,
        lambda: tensor.to("meta"),
        lambda: torch.zeros(1).expand(2**35),
        lambda: tensor.T if tensor.dim() == 2 else tensor,
        lambda: tensor.to(torch.complex64),
        lambda: torch.nn.Parameter(tensor.float()),
        lambda: tensor.to(torch.float8_e4m3fn) if tensor.dim() else tensor,
    )
    return source.choice(changes)()


def _changed_archive(source: random.Random, content: bytes) -> bytes:
    """A checkpoint with one of its entries changed, missing, repeated, renamed or packed; the checksums are right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    number = source.randrange(len(entries))
    name, data = entries[number]
    kind = source.randrange(6)
    if kind == 0:
        entries[number] = name, changed_bytes(source, data)
    elif kind == 1:
        del entries[number]
    elif kind == 2:
        entries[number] = name.replace("data", source.choice(("x", "../x", "data/data"))), data
    elif kind == 3:
        at = next(i for i, (entry, _) in enumerate(entries) if entry.endswith("data.pkl"))
        pickled = source.choice(
            (pickle.dumps(Code()), b"", b".", b"\x80\x02]q\x00.", changed_bytes(source, entries[at][1]))
        )
        entries[at] = entries[at][0], pickled
    elif kind == 4:
        entries[number] = name, bytes(source.choice((0, 1, 50_000_000)))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if kind in (4, 5) else zipfile.ZIP_STORED) as archive:
        for entry, data in entries:
            archive.writestr(entry, data)
    return file.getvalue()
