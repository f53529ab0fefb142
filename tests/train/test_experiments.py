"""Every file of configs/experiment/: composes, changes what it declares and nothing else, and runs."""

import re
from pathlib import Path

import pytest
import yaml

from profiling import run_record
from profiling.errors import NotApplicableError, UserError
from profiling.heap import keep_heap
from profiling.vocabulary import ExpectedTime
from tests.conftest import ROOT, TINY, composed
from train import needs
from train.config import changes, compose
from train.config.options import Need, Topic
from train.device import choose_device
from train.run import train
from train.variants import TABLES

FILES = sorted((ROOT / "configs" / "experiment").glob("*.yaml"))
DESCRIPTION = ("name", "hypothesis")

# What makes an experiment applicable that is not so on the default model or data.
OVERRIDES = {
    Need.attention: ["model=vit", "model.dim=8", "model.depth=1", "model.heads=2"],
    Need.frozen_backbone: ["model=resnet18", "model.freeze_backbone=true", "data.train_samples=32"],
    Need.image_files: ["data=jpeg_digits", "data.root={tmp}/jpeg_digits"],
    Need.dataloader: ["loader.source=dataloader"],
}
SMALL = ["model.width=4"]


def declared(file: Path) -> dict[str, object]:
    content = compose.flat(yaml.safe_load(file.read_text()))
    return {key: value for key, value in content.items() if not key.startswith(DESCRIPTION)}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_differs_from_the_baseline_in_its_declared_keys_only(file):
    ours = compose.flat(compose.plain(composed(f"+experiment={file.stem}")))
    baseline = compose.flat(compose.plain(composed()))
    changed = {key: value for key, value in ours.items() if value != baseline[key] and not key.startswith(DESCRIPTION)}
    assert changed == declared(file)
    assert len(changed) <= 1, "an experiment changes one thing"
    assert bool(changed) == (file.stem != "baseline")
    assert ours["name"] == file.stem
    assert ours["hypothesis.topic"] in list(Topic)


COMPILES = pytest.mark.slow  # torch.compile starts a compiler


@pytest.mark.parametrize(
    "file", [pytest.param(file, id=file.stem, marks=COMPILES if file.stem == "compile_on" else ()) for file in FILES]
)
def test_runs(file, configure, command, tmp_path):
    config = configure(f"+experiment={file.stem}")
    extra = [text.format(tmp=tmp_path) for need in config.hypothesis.needs for text in OVERRIDES.get(need, [])]
    small = [] if any(text.startswith("model=") for text in extra) else SMALL
    tiny = [text for text in TINY if not text.startswith("data") or not any(e.startswith("data=") for e in extra)]
    config = configure(f"+experiment={file.stem}", *tiny, *small, *extra)
    if config.hypothesis.expect.time is ExpectedTime.fails:
        with pytest.raises(UserError, match=r"no parameter requires grad.*switches\.parameters=frozen"):
            train(config, {}, tmp_path)
        return
    if not config.keep_heap:
        keep_heap()  # as any run before it in this process does, for good
        with pytest.raises(UserError, match="keep_heap=false: an earlier run of this process keeps its heap"):
            train(config, {}, tmp_path)
        assert command("train", f"+experiment={file.stem}", *tiny, *small, f"output={tmp_path}").returncode == 0
        return
    if Need.ranks in config.hypothesis.needs:  # tests/train/ranks/test_exchange.py runs them
        with pytest.raises(NotApplicableError, match="needs several processes: start it with torchrun, or give ranks"):
            train(config, {}, tmp_path)
        return
    missing = [need for need in config.hypothesis.needs if need in (Need.accelerator, Need.cuda, Need.two_devices)]
    if missing and choose_device(config.device).type == "cpu":
        with pytest.raises(NotApplicableError, match=f"not applicable here: {file.stem} needs an? "):
            train(config, {}, tmp_path)
        return
    train(config, {}, tmp_path)
    left = run_record.read(tmp_path)
    assert left.status == "complete"
    assert set(left.stages) == {"train", "evaluate", "infer"}
    assert all((tmp_path / stage.trace.path).is_file() for stage in left.stages.values() if stage.trace)


def test_an_experiment_that_needs_what_is_missing_says_so_and_succeeds(command, tmp_path):
    result = command("train", "+experiment=attention_math", f"output={tmp_path}")
    assert result.returncode == 0
    told = [line for line in result.stdout.splitlines() if not line.startswith("warning: other processes")]
    assert told == ["not applicable here: attention_math needs a model with attention: add model=vit"]


def test_the_label_of_a_run_says_what_differs_from_the_baseline():
    assert changes.run_label("baseline", [], "train") == "baseline"
    assert changes.run_label("nograd_off", ["+experiment=nograd_off"], "train") == "nograd_off"
    assert changes.run_label("b", ["+experiment=[a,b]", "output=x", "profiler=off"], "train") == "a+b"
    assert (
        changes.run_label("baseline", ["model=vit", "data.root=/a b"], "train") == "baseline+model-vit+data.root-_a_b"
    )


SIZES = re.compile(r"\b(much|far|many|twice|times|magnitude|half|double|whole|huge|dramatically)\b")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_claim_speaks_of_a_size_if_it_can_be_held_to_it(file):
    hypothesis = yaml.safe_load(file.read_text())["hypothesis"]
    of_others = "the whole set in one batch"  # what is done, no effect
    assert bool(SIZES.search(hypothesis["claim"].replace(of_others, ""))) == ("at_least" in hypothesis["expect"])


def test_every_need_has_a_check():
    assert set(needs.NEEDS) == set(Need)


def test_every_option_of_every_switch_is_reached_by_an_experiment_or_is_the_baseline():
    """A slow twin that no file asks for would be dead code."""
    baseline = composed().switches
    reached = {(key.removeprefix("switches."), value) for file in FILES for key, value in declared(file).items()}
    options = {(switch, str(option)) for switch, table in TABLES.items() for option in table.options}
    unreached = {(switch, option) for switch, option in options - reached if baseline[switch] != option}
    assert unreached == {("optimizer", "foreach")}, "torch's own default, kept for comparison with both others"
