"""Checkpoints: those that earlier releases wrote, those that are damaged, and what inference takes from them."""

import copy
import io
import random
import re
import warnings
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from profiling.errors import UserError
from tests.conftest import composed
from tests.fuzz.mutations import CASES, changed_bytes
from tests.odd_files import ODD_FILES
from train import checkpoint, session
from train.as_trained import as_trained
from train.config.compose import flat, plain, to_config
from train.config.schema import Config
from train.inference import infer
from train.run import checkpoint_of

SMALL = ("data=synthetic", "data.train_samples=8", "data.test_samples=4", "data.channels=1", "data.image_size=8")
MODELS = {
    "vit": ("model=vit", "model.patch=4", "model.dim=4", "model.heads=2", "model.depth=1"),
    "cnn": ("model.width=2", "switches.conv_bias=present"),
    "mlp": ("model=mlp", "model.width=3"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    """The content of a checkpoint of each model."""
    folder = tmp_path_factory.mktemp("checkpoints")
    contents = {}
    for name, overrides in MODELS.items():
        parts = session.prepare(to_config(composed(*SMALL, *overrides)))
        contents[name] = checkpoint.save(checkpoint_of(parts), folder).read_bytes()
    return contents


def outcome(path: Path, *overrides: str, given: dict[str, Any] | None = None) -> str:
    """What inference with the checkpoint `path` ends in: "predictions", or the one line of the error."""
    try:
        infer(inference_of(path, *overrides), given or {}, path.parent)
        return "predictions"
    except UserError as error:
        message = str(error)
    assert str(path) in message
    assert "\n" not in message
    return message


@lru_cache
def inference_of(path: Path, *overrides: str) -> Config:
    """The configuration of inference with a checkpoint; composing it takes longer than inference."""
    return to_config(composed("task=infer", f"checkpoint={path}", f"output={path.parent}", *overrides))


def unpacked(content: bytes) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
    return loaded


def packed(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def test_format_1_has_other_names_for_the_parts_of_a_transformer_block(configure, tmp_path):
    parts = session.prepare(configure("model=vit", "data.image_size=28"))
    path = checkpoint.save(checkpoint_of(parts), tmp_path)
    content = torch.load(path, weights_only=True)
    renamed = {
        name.replace(".attn.", ".attend.").replace(".mlp.", ".think."): tensor
        for name, tensor in content["weights"].items()
    }
    assert renamed.keys() != content["weights"].keys()
    del content["data"], content["switches"]
    torch.save({**content, "format": 1, "weights": renamed}, path)
    saved = checkpoint.load(path)
    checkpoint.restore(parts.module, saved, path)
    assert saved.weights.keys() == parts.module.state_dict().keys()


def test_formats_without_the_data_set_take_the_one_that_is_configured(files, tmp_path):
    content = unpacked(files["mlp"])
    del content["data"], content["switches"]
    path = packed({**content, "format": 2}, tmp_path / "checkpoint.pt")
    assert outcome(path) == "predictions"  # of the digits, resized to the 8 pixels that the model was trained on
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 1 + 359


# --- damaged files ----------------------------------------------------------------------------------------------------


def test_every_flipped_byte_is_found_or_changes_nothing(files, tmp_path):
    path = tmp_path / "checkpoint.pt"
    whole = files["mlp"]
    path.write_bytes(whole)
    expected = checkpoint.load(path)
    chance = random.Random(0)
    directory = zipfile.ZipFile(path).start_dir  # torch's reader and Python's differ in what they make of its fields
    positions = [
        *chance.choices(range(directory), k=2 * CASES),
        *chance.choices(range(directory, len(whole)), k=2 * CASES),
    ]
    attributes = [match.start() + 38 for match in re.finditer(rb"PK\x01\x02", whole)]
    for position in [*positions, *attributes]:
        flips = 0x10 if position in attributes else chance.randrange(1, 256)  # 0x10: "is a folder"
        path.write_bytes(whole[:position] + bytes([whole[position] ^ flips]) + whole[position + 1 :])
        try:
            found = checkpoint.load(path)
        except UserError:
            continue
        assert repr(found) == repr(expected)
        assert all(torch.equal(found.weights[name], tensor) for name, tensor in expected.weights.items())


def test_a_flipped_byte_of_a_weight_is_named(files, tmp_path):
    path = tmp_path / "checkpoint.pt"
    weight = unpacked(files["mlp"])["weights"]["head.weight"].numpy().tobytes()
    position = files["mlp"].index(weight) + 5
    path.write_bytes(files["mlp"][:position] + b"\xff" + files["mlp"][position + 1 :])
    assert "damaged: the checksum of 'archive/data/4' does not match" in outcome(path)


def test_files_of_other_kinds_are_one_line_each(files, tmp_path):
    path = tmp_path / "file.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photo.jpg", b"x")
    assert "not a checkpoint" in outcome(path)
    for content in (b"", b"hello", files["mlp"][:-1], b"x" * 100_000):
        path.write_bytes(content)
        assert "cut short, or not a checkpoint" in outcome(path)
    for content in (unpacked(files["mlp"])["weights"], [1], torch.ones(2), {"format": torch.ones(2)}, {"format": 4}):
        assert "not a checkpoint of this program" in outcome(packed(content, path))


@pytest.mark.parametrize("kind", ODD_FILES)
def test_what_is_no_file_is_not_waited_for(kind, tmp_path):
    path = tmp_path / "checkpoint.pt"
    ODD_FILES[kind](path)
    said = outcome(path)
    assert ("no such file" if kind == "folder" or kind.startswith("link") else "not a file") in said
    assert "did you mean" not in said


def test_an_archive_that_unpacks_to_more_than_its_size_is_refused(files, tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50_000_000))
    assert "unpack to more than the file's size" in outcome(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": "1"}, "Expected `int`, got `str` - at `$.channels`"),
        ({"extra": 1}, "unknown field `extra`"),
        ({"classes": ()}, "length >= 1 - at `$.classes`"),
        ({"mean": (0.1, 0.2)}, "mean and std must have 1 values each"),
        ({"std": (float("nan"),)}, "not as this program writes it"),
        ({"weights": torch.ones(1)}, "not as this program writes it"),
        ({"model": {"_target_": "models.mlp.MLP", "width": "3", "depth": 2, "dropout": 0.1}}, "model: Expected `int`"),
        ({"model": {"_target_": "models.mlp.MLP", "width": 3, "depth": 2}}, "missing required field `dropout`"),
        ({"model": {"_target_": "models.mlp.MLP", "width": 0, "depth": 2, "dropout": 0.1}}, "model.width=0: out of"),
        ({"model": {"_target_": "os.system"}}, "a checkpoint may not choose which code runs"),
        ({"data": {"_target_": "train.run.train", "root": "x"}}, "a checkpoint may not choose which code runs"),
        ({"model": {"_target_": torch.eye(2).to_sparse()}}, "model holds more than numbers, text, lists and mappings"),
        ({"data": {"_target_": [torch.ones(2)]}}, "data holds more than numbers, text, lists and mappings"),
        ({"switches": {"conv_bias": "perhaps"}}, "Invalid enum value 'perhaps'"),
        ({"switches": {"conv_bias": "\udc80"}}, "not as this program writes it: switches: "),
        ({"image_size": 9}, "of a model of another shape: blocks.0.0.weight is float32 [3, 64] in the file"),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_field_is_named(files, tmp_path, change, message):
    content = {**unpacked(files["mlp"]), **change}
    if "image_size" in change:
        content["data"]["image_size"] = 9
    assert message in outcome(packed(content, tmp_path / "checkpoint.pt"))


def test_a_model_that_cannot_be_built_is_a_fault_of_the_file(files, tmp_path):
    content = unpacked(files["vit"])
    content["model"]["patch"] = 3
    message = outcome(packed(content, tmp_path / "checkpoint.pt"))
    assert "not as this program writes it: model: " in message
    assert "patch=3 does not divide the image's side of 8 pixels" in message


def test_a_missing_field_is_named(files, tmp_path):
    for name in ("model", "weights", "classes", "channels", "image_size", "mean", "std"):
        content = unpacked(files["mlp"])
        del content[name]
        assert f"missing required field `{name}`" in outcome(packed(content, tmp_path / "checkpoint.pt"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weight: weight.double(), "head.weight is float64 [10, 3] in the file and float32 [10, 3] in models."),
        (lambda weight: weight[:9], "head.weight is float32 [9, 3] in the file"),
        (lambda weight: torch.ones(1).expand(10, 3), "head.weight is scattered float32 [10, 3] in the file"),
        (lambda weight: torch.ones(1).expand(10**6, 10**6), "head.weight is scattered float32 [1000000, 1000000]"),
        (lambda weight: weight.to_sparse(), "head.weight is torch.sparse_coo on cpu in the file"),
        (lambda weight: weight * float("nan"), "head.weight is not finite"),
        (lambda weight: weight / 0, "head.weight is not finite"),
    ],
)
def test_a_wrong_weight_is_named(files, tmp_path, change, message):
    content = unpacked(files["mlp"])
    content["weights"]["head.weight"] = change(content["weights"]["head.weight"])
    assert message in outcome(packed(content, tmp_path / "checkpoint.pt"))


def test_nested_values_that_share_their_parts_are_not_written_out(files, tmp_path):
    content, bomb = unpacked(files["mlp"]), []
    for _ in range(60):
        bomb = [bomb, bomb]  # 2^60 elements
    content["model"]["width"] = bomb
    path = packed(content, tmp_path / "checkpoint.pt")
    assert len(outcome(path, "model=mlp", "model.width=3", given={"model.width": 3})) < 1000


VALUES = (
    None, True, -1, 0, 2**31, 2**70, 0.5, float("nan"), "", "x", "${oc.env:HOME}", b"x", [], [1], {}, {"a": 1}, ("a",),
    torch.zeros(2), torch.tensor(1), torch.float32, torch.device("cpu"), 1j, {1}, "os.system", "models.vit.ViT",
    "train.data.image_folder", "\udc80", "a\nb\x1b[31m", torch.eye(3).to_sparse(), torch.empty(3, device="meta"),
)  # fmt: skip


def mutated(content: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """`content` with a value anywhere in it replaced, removed, renamed or added."""
    parent: dict[Any, Any] = content
    key = chance.choice(list(parent))
    while isinstance(parent[key], dict) and parent[key] and chance.random() < 0.8:
        parent = parent[key]
        key = chance.choice(list(parent))
    way, old = chance.randrange(5), parent[key]
    if way == 0:
        del parent[key]
    elif way == 1:
        parent[f"{key}x"] = parent.pop(key)
    elif way == 2:
        parent[chance.choice(["extra", "weights", "_target_", 1, None])] = copy.deepcopy(old)
    elif way == 3 and isinstance(old, tuple):
        parent[key] = chance.choice([old[:-1], old + old, (*old, 1), list(old), old[::-1]])
    elif way == 3 and isinstance(old, torch.Tensor):
        parent[key] = chance.choice([old.half(), old.flatten(), old[None], old * float("nan"), old.bool()])
    elif way == 3 and isinstance(old, int | float):
        parent[key] = chance.choice([old + 1, -old, old * 1000, old * 2**40, str(old), old / 2])
    else:
        parent[key] = chance.choice(VALUES)
    return content


@pytest.mark.parametrize("seed", range(3))
def test_no_damage_is_more_than_one_line(files, tmp_path, seed):
    chance = random.Random(seed)
    path = tmp_path / "checkpoint.pt"
    for _ in range(CASES // 3):
        whole = files[chance.choice(list(files))]
        way = chance.randrange(3)
        if way == 0:
            packed(mutated(unpacked(whole), chance), path)
        elif way == 1:
            path.write_bytes(changed_bytes(chance, whole))
        else:  # intact archives of damaged records
            with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "w") as archive:
                source = zipfile.ZipFile(io.BytesIO(whole))
                chosen = chance.choice(["archive/data.pkl", chance.choice(source.namelist())])
                for name in source.namelist():
                    record = source.read(name)
                    archive.writestr(name, changed_bytes(chance, record) if name == chosen else record)
        outcome(path)


# --- what inference takes from a checkpoint ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_model_data_and_the_switches_of_weights_need_not_be_given_again(files, tmp_path, name):
    (tmp_path / "checkpoint.pt").write_bytes(files[name])
    assert outcome(tmp_path / "checkpoint.pt") == "predictions"
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 1 + 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=mlp"], "it holds models.cnn.CNN, and model._target_=models.mlp.MLP is given"),
        (["model=cnn"], "predictions"),
        (["model.width=2"], "predictions"),
        (["model.width=16"], "trained with model.width=2, and model.width=16 is given"),
        (["model.dropout=0.5"], "trained with model.dropout=0.0, and model.dropout=0.5 is given"),
        (["switches.conv_bias=absent"], "trained with switches.conv_bias=present, and switches.conv_bias=absent is"),
        (["switches.conv_bias=present"], "predictions"),
        (["data=synthetic"], "predictions"),
        (["data=synthetic", "data.image_size=9"], "trained with image_size=8, and data.image_size=9"),
        (["data=synthetic", "data.classes=5"], "trained with classes=10, and data.classes=5"),
        (["data=digits"], "predictions"),
        (["data=mnist", "data.root=nowhere", "data.download=false"], "data=mnist: no intact files in"),
    ],
    ids=str,
)
def test_what_is_given_agrees_or_is_refused_by_name(files, tmp_path, overrides, message):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(files["cnn"])
    values = flat(plain(to_config(composed("task=infer", f"checkpoint={path}", *overrides))))
    keys = [override.partition("=")[0] for override in overrides]
    given = {key if "." in key else f"{key}._target_" for key in keys}
    config = to_config(composed("task=infer", f"checkpoint={path}", f"output={tmp_path}", *overrides))
    try:
        infer(config, {key: values[key] for key in given}, tmp_path)
        ended = "predictions"
    except UserError as error:
        ended = str(error)
    assert message in ended


def test_fields_of_the_data_that_are_given_take_precedence(files, tmp_path, configure):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(files["mlp"])
    config = configure("task=infer", f"checkpoint={path}", "data=synthetic", "data.test_samples=7")
    trained = as_trained(config, {"data.test_samples": 7}, checkpoint.load(path), path)
    assert (trained.data.test_samples, trained.data.train_samples, trained.data.image_size) == (7, 8, 8)


def test_images_and_data_are_not_both_given(files, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(files["mlp"])
    with pytest.raises(UserError, match=r"^images=.*: data\._target_=train\.data\.digits is given, too; leave one out"):
        config = to_config(composed("task=infer", f"checkpoint={tmp_path}", f"images={tmp_path}"))
        infer(config, {"data._target_": "train.data.digits"}, tmp_path)


# --- which checkpoint -------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path) -> Path:
    for run in ("baseline/2026-01-02_10-00-00-0", "baseline/2026-01-10_09-00-00-0", "baseline+model-vit/2026-02-01_1"):
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / checkpoint.FILE_NAME).touch()
    (tmp_path / "runs" / "baseline" / "2026-03-01_10-00-00-0").mkdir()  # failed: it has none
    (tmp_path / "runs" / "mine").mkdir()
    (tmp_path / "runs" / "mine" / checkpoint.FILE_NAME).touch()
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("baseline", "baseline/2026-01-10_09-00-00-0"),
        ("baseline/2026-01-02_10-00-00-0", "baseline/2026-01-02_10-00-00-0"),
        ("baseline/2026-01-02_10-00-00-0/checkpoint.pt", "baseline/2026-01-02_10-00-00-0"),
        ("baseline/2026-01-0", "baseline/2026-01-02_10-00-00-0"),
        ("baseline+", "baseline+model-vit/2026-02-01_1"),
        ("mine", "mine"),
        ("mi", "mine"),
    ],
)
def test_a_folder_of_runs_or_how_their_names_begin_finds_the_newest(runs, name, found):
    assert checkpoint.find(runs / name, runs) == runs / found / checkpoint.FILE_NAME


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", r": there are several, give one: {runs}/baseline, {runs}/baseline\+model-vit, {runs}/mine$"),
        ("base", r": there are several, give one: {runs}/baseline, {runs}/baseline\+model-vit$"),
        ("baseline/2026-03-01_10-00-00-0", r": no such file; .*did you mean '{runs}/baseline'\?$"),
        ("basline", r": no such file; .*did you mean '{runs}/baseline'\?$"),
        ("absent/deeper", r": no such file; a finished run leaves checkpoint\.pt in its folder under {runs}/"),
    ],
)
def test_a_name_of_several_or_of_none_says_which_there_are(runs, name, message):
    with pytest.raises(UserError, match=message.format(runs=runs)):
        checkpoint.find(runs / name, runs)
