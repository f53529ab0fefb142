"""What the pages say can be followed: links, paths, command lines, and the lists of experiments, options and keys."""

import re
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from profiling.__main__ import main as profiling_main
from profiling.terminal.arguments import USAGE
from tests.conftest import ROOT, composed
from tests.docs import json_reference
from train.variants import TABLES

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}
EXAMPLES = (".hydra/", "states/", ".wheels/", "accelerator-out/", "conf/", "path/", "package/", "ci/", "runs/")
"""Where paths begin that are a reader's own, or that runs make."""
COMMANDS = {
    (name, line.strip())
    for name, text in TEXTS.items()
    for line in re.findall(r"(?:^    (?:\$ )?|`)(python -m (?:train|profiling)[^`\n#]*)", text, re.MULTILINE)
    if not re.search(r"[…<]|\[-|profiling( ab)?$", line)  # patterns and names of commands
}
EXPERIMENTS = sorted(path.stem for path in (ROOT / "configs" / "experiment").glob("*.yaml"))


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", TEXTS)
def test_a_link_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        page = (ROOT / name).parent / path if path else ROOT / name
        assert page.exists(), target
        assert not anchor or anchor in anchors(page.read_text()), target


@pytest.mark.parametrize("name", sorted({*TEXTS} - {"docs/json.md"}))
def test_a_path_exists(name: str) -> None:
    for word in re.findall(r"`([\w./*-]+/[\w./*-]*|\w+\.(?:py|md|yaml))`", TEXTS[name]):
        if "*" in word or word.startswith(EXAMPLES) or Path(word).name.startswith("<"):
            continue
        places = (ROOT, ROOT / "profiling", ROOT / "profiling" / "tb_plugin", ROOT / "docs", *ROOT.glob("*/"))
        assert any((place / word).exists() for place in places) or list(ROOT.rglob(word)), word


@pytest.mark.parametrize(("name", "line"), sorted(command for command in COMMANDS if "-m train" in command[1]))
def test_a_training_command_composes(name: str, line: str) -> None:
    module, *words = shlex.split(line)[2:]
    assert module in ("train", "train.ab")
    overrides = [word for word in words if "=" in word and not word.startswith(("-", "hydra"))]
    for override in OverridesParser.create().parse_overrides(overrides):
        if override.is_sweep_override():
            key = override.input_line.partition("=")[0]
            value = "baseline" if key == "+experiment" else next(override.sweep_string_iterator())
            overrides[overrides.index(override.input_line)] = f"{key}={value}"
    composed(*overrides)


@pytest.mark.parametrize(("name", "line"), sorted(command for command in COMMANDS if "-m profiling" in command[1]))
def test_a_command_of_the_traces_parses(name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    try:
        status = profiling_main(shlex.split(line)[3:])
    except SystemExit as stop:
        status = int(str(stop.code))
    assert status != USAGE


def test_the_readme_lists_every_experiment_and_is_short() -> None:
    text = TEXTS["README.md"]
    assert [name for name in EXPERIMENTS if f"`{name}`" not in text] == []
    listed = re.search(r"^\| topic \| experiments \|\n(?:\|.*\n)*", text, re.MULTILINE)
    assert listed
    assert sorted(re.findall(r"`(\w+)`", listed[0])) == EXPERIMENTS, "once each, and none that is gone"
    assert len(text.splitlines()) <= 150


def test_the_configuration_names_every_option_of_every_switch() -> None:
    text = (ROOT / "configs" / "config.yaml").read_text()
    for switch, table in TABLES.items():
        lines = re.search(rf"^  {switch}: .*(?:\n {{20,}}#.*)*", text, re.MULTILINE)
        assert lines, switch
        assert [str(option) for option in table.options if str(option) not in lines[0]] == [], switch


@pytest.mark.parametrize("group", ["data", "model", "optimizer", "profiler"])
def test_the_configuration_names_every_option_of_every_group_and_none_that_is_gone(group: str) -> None:
    text = (ROOT / "configs" / "config.yaml").read_text()
    comment = re.search(rf"^  - {group}: .*?# (.*)$", text, re.MULTILINE)
    assert comment
    named = [words.split()[0] for words in re.sub(r"\(.*?\)", "", comment[1]).split("|")]
    assert sorted(named) == sorted(path.stem for path in (ROOT / "configs" / group).glob("*.yaml"))


def test_the_page_of_json_is_that_of_the_code() -> None:
    assert json_reference.PAGE.read_text() == json_reference.page(), "run: python -m tests.docs.json_reference"
