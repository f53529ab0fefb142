"""One logdir and one TensorBoard for all tests of the tab."""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from profiling.__main__ import main
from tests.tab import logdir as made
from tests.tab.browser import Tab, tensorboard


@pytest.fixture(scope="package")
def logdir(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The logdir; `browser` comes first, since without one nothing needs to be made."""
    folder = tmp_path_factory.mktemp("logdir")
    made.build(folder)
    return folder


@pytest.fixture(scope="package")
def server(logdir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with tensorboard(logdir, tmp_path_factory.mktemp("cache")) as url:
        yield url


@pytest.fixture(scope="package")
def shared_tab(browser: Any, server: str) -> Iterator[Tab]:
    opened = Tab(browser, server)
    yield opened
    opened.close()


@pytest.fixture
def tab(shared_tab: Tab) -> Iterator[Tab]:
    """The one page that tests go through in turn, each by addresses of its own."""
    shared_tab.said.clear()
    yield shared_tab
    check(shared_tab)


@pytest.fixture
def new_tab(browser: Any, server: str) -> Iterator[Callable[..., Tab]]:
    """Open further pages; each must ask nobody but the server, too."""
    opened: list[Tab] = []

    def make(**options: Any) -> Tab:
        opened.append(Tab(browser, server, **options))
        return opened[-1]

    yield make
    for each in opened:
        check(each)
        each.close()


@pytest.fixture
def growing(browser: Any, tmp_path: Path) -> Iterator[tuple[Path, Tab]]:
    """An empty logdir, and a page of a TensorBoard of its own."""
    folder = tmp_path / "logdir"
    folder.mkdir()
    with tensorboard(folder, tmp_path / "cache") as url:
        tab = Tab(browser, url)
        yield folder, tab
        check(tab)
        tab.close()


def check(tab: Tab) -> None:
    """Nothing went wrong on the page, and nothing left for another host."""
    assert tab.hosts <= {urlsplit(tab.url).netloc}
    assert tab.said == []


@pytest.fixture(scope="package")
def told(logdir: Path) -> Callable[..., Any]:
    """What `python -m profiling COMMAND RUN... --json` says; runs are named as in the tab."""
    kept: dict[tuple[str, ...], Any] = {}

    def tell(command: str, *runs: str, options: Sequence[str] = ()) -> Any:
        if (command, *runs, *options) not in kept:
            with redirect_stdout(io.StringIO()) as out:
                assert main([command, *(str(logdir / run) for run in runs), *options, "--json"]) == 0
            kept[command, *runs, *options] = json.loads(out.getvalue())
        return kept[command, *runs, *options]

    return tell
