"""Checkpoints: what inference needs. Writing is atomic; reading executes no code from the file."""

import io
import pickle
import re
import reprlib
import warnings
import zipfile
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, nn

from profiling.errors import UserError, nearest_or_all
from profiling.storage import atomic_write

FILE_NAME = "checkpoint.pt"
FORMAT = 3  # 1 and 2 are read, too: they lack `data` and `switches`
RENAMED_IN_FORMAT_2 = {".attend.": ".attn.", ".think.": ".mlp."}  # parts of parameter names of models.vit
WEIGHT_SWITCHES = ("conv_bias",)
"""Fields of `switches` that decide which weights a model has."""

CONVERSION_ERRORS = (msgspec.ValidationError, AttributeError, UnicodeError)
"""What `msgspec.convert` raises; the second for tensors in place of a dict, the third for surrogates in an enum."""

_TIME = re.compile(r"\d{4}-\d\d-\d\d_")  # how the folder of a run begins


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A trained model.

    Attributes:
        model: configuration that the model was built from: `_target_` and its fields.
        weights: state dict of the model.
        classes, channels, image_size, mean, std: fields of the train.data.DataSet that the model was trained on.
        data: configuration of that data set; None if the file does not say.
        switches: the WEIGHT_SWITCHES of the run; empty if the file does not say.
    """

    model: dict[str, Any]
    weights: dict[str, Tensor]
    classes: Annotated[tuple[str, ...], Meta(min_length=1)]
    channels: Annotated[int, Meta(ge=1)]
    image_size: Annotated[int, Meta(ge=1)]
    mean: tuple[Annotated[float, Meta(ge=0, le=1)], ...]
    std: tuple[Annotated[float, Meta(gt=0, le=1)], ...]
    data: dict[str, Any] | None = None
    switches: dict[str, str] = {}


def save(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write `checkpoint.pt` into `folder` and return its path."""
    path = folder / FILE_NAME
    content = io.BytesIO()  # not to the file: torch.save reports a full disk as an internal error
    torch.save({"format": FORMAT, **msgspec.structs.asdict(checkpoint)}, content)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.getbuffer())
    return path


def find(path: Path, output: Path) -> Path:
    """The checkpoint that `path` names: its file, the folder of its run, a folder of runs, or how their names begin.

    Of several runs of one name, it is that of the newest; `output` is where runs are looked for if there is none.

    Raises:
        UserError: there is no checkpoint, or those that there are belong to runs of several names.
    """
    file = path / FILE_NAME if path.is_dir() else path
    if file.exists():
        return file
    beside = path.parent.iterdir() if path.parent.is_dir() and not path.is_dir() else ()
    groups = _groups([path] if path.is_dir() else [other for other in beside if other.name.startswith(path.name)])
    if not groups:
        choices = sorted(map(str, _groups([output])))
        hint = nearest_or_all(str(path), choices) if choices else ""
        raise UserError(
            f"checkpoint={path}: no such file; a finished run leaves {FILE_NAME} in its folder under {output}/{hint}"
        )
    if len(groups) > 1:
        raise UserError(f"checkpoint={path}: there are several, give one: {', '.join(sorted(map(str, groups)))}")
    ((_, found),) = groups.items()
    return max(found)  # of one name, the folders differ in their times alone


def _groups(folders: list[Path]) -> dict[Path, list[Path]]:
    """Checkpoints in `folders` and at most two levels below, by the folder of a run's name, or else of the run."""
    groups: dict[Path, list[Path]] = {}
    for folder in folders:
        for pattern in (FILE_NAME, f"*/{FILE_NAME}", f"*/*/{FILE_NAME}"):
            for file in filter(Path.is_file, folder.glob(pattern)):
                run = file.parent
                groups.setdefault(run.parent if _TIME.match(run.name) else run, []).append(file)
    return groups


def load(path: Path) -> Checkpoint:
    """Read the checkpoint file `path`; its tensors are on the CPU.

    Raises:
        UserError: the file is missing, damaged, or not a checkpoint of this program.
    """
    if not path.is_file():  # opening a pipe would wait for its writer
        raise UserError(f"checkpoint={path}: {'not a file' if path.exists() else 'no such file'}")
    content = unpickled(path, f"checkpoint={path}", "checkpoint", f"; give the {FILE_NAME} of a finished run")
    version = content.pop("format", None) if isinstance(content, dict) else None
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise UserError(
            f"checkpoint={path}: not a checkpoint of this program, or of a newer one (its format is "
            f"{reprlib.repr(version)}, this program reads 1 to {FORMAT}); give the {FILE_NAME} that a run left"
        )
    try:
        checkpoint = msgspec.convert(content, Checkpoint)
    except CONVERSION_ERRORS as error:
        raise refused(path, str(error)) from error
    if any(tensor.is_meta for tensor in checkpoint.weights.values()):
        raise refused(path, "a tensor of its weights has no values")
    for name in ("model", "data", "switches"):
        if not is_plain(getattr(checkpoint, name)):
            raise refused(path, f"{name} holds more than numbers, text, lists and mappings")
    if not len(checkpoint.mean) == len(checkpoint.std) == checkpoint.channels:
        raise refused(path, f"mean and std must have {checkpoint.channels} values each, one for each channel")
    return checkpoint if version > 1 else _from_format_1(checkpoint)


def is_plain(tree: Any) -> bool:
    """Whether `tree` is of JSON's types alone; shared and cyclic parts are looked at once."""
    pending, seen = [tree], set()
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            pending += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            pending += value
        elif not isinstance(value, str | int | float | None):
            return False
    return True


def refused(path: Path, reason: str) -> UserError:
    """The error for a checkpoint that is intact, but whose content is not what this program writes."""
    return UserError(
        f"checkpoint={path}: not as this program writes it: {reason}; give the {FILE_NAME} that a run left"
    )


def unpickled(path: Path, shown: str, kind: str, advice: str) -> Any:
    """The object in a file of torch.save, of tensors and plain values alone.

    `shown`, `kind` and `advice` are of messages: where the file is, what it should be, and what to do if it is not.

    Raises:
        UserError: it holds something else, or one of its checksums does not match.
    """
    checked = io.BytesIO()  # torch's own zip reader would believe a damaged directory: it gets a new one
    with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
        try:
            with zipfile.ZipFile(file) as archive, zipfile.ZipFile(checked, "w") as copy:
                if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                    raise zipfile.BadZipFile("its entries unpack to more than the file's size")
                if damaged := archive.testzip():  # torch.save writes checksums, torch.load does not compare them
                    raise UserError(f"{shown}: damaged: the checksum of {damaged!r} does not match{advice}")
                for entry in archive.infolist():
                    copy.writestr(entry.filename, archive.read(entry))
            checked.seek(0)
            return torch.load(checked, map_location="cpu", weights_only=True)
        except UserError:
            raise
        except pickle.UnpicklingError as error:
            raise UserError(
                f"{shown}: not a {kind}: it holds more than tensors and plain values, and reading the rest could "
                f"execute code{advice}"
            ) from error
        except Exception as error:  # damaged archives and pickles make their readers raise almost anything
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0][:200]
            raise UserError(f"{shown}: cut short, or not a {kind}: {reason}{advice}") from error


def _from_format_1(checkpoint: Checkpoint) -> Checkpoint:
    def renamed(name: str) -> str:
        for old, new in RENAMED_IN_FORMAT_2.items():
            name = name.replace(old, new)
        return name

    weights = {renamed(name): tensor for name, tensor in checkpoint.weights.items()}
    return msgspec.structs.replace(checkpoint, weights=weights)


def restore(module: nn.Module, checkpoint: Checkpoint, path: Path) -> None:
    """Make the weights of `checkpoint` those of `module`, also where it was built on torch's meta device.

    Raises:
        UserError: they are not the weights of such a model, or not finite.
    """
    expected, weights = module.state_dict(), checkpoint.weights
    for name in {**expected, **weights}:
        here, there = _form(expected.get(name)), _form(weights.get(name))
        if here != there:
            raise UserError(
                f"checkpoint={path}: of a model of another shape: {name} is {there} in the file and {here} in "
                f"{checkpoint.model['_target_']} with the fields of the file"
            )
    parameters = dict(module.named_parameters())
    for name, tensor in weights.items():
        if tensor.isnan().any() or (name in parameters and tensor.isinf().any()):  # buffers may: masks have -inf
            raise UserError(f"checkpoint={path}: {name} is not finite, so the model cannot predict; train it again")
    module.load_state_dict(weights, assign=True)


def _form(tensor: Tensor | None) -> str:
    """Type and shape of a tensor, for comparison and for messages; of forms that `save` does not write, the layout."""
    if tensor is None:
        return "absent"
    if tensor.device.type not in ("cpu", "meta") or tensor.layout is not torch.strided:
        return f"{tensor.layout} on {tensor.device}"
    dense = "" if tensor.is_contiguous() else "scattered "  # strides of 0 make a large tensor of few bytes
    return f"{dense}{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
