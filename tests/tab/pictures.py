"""The README's pictures of the tab: `make pictures`, or `python -m tests.tab.pictures LOGDIR` for runs elsewhere.

Runs that the pictures need and the logdir lacks are made first, which takes some minutes of an otherwise idle machine.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.tab.browser import NARROW, Tab, chromium, tensorboard

LADDER = (
    "baseline,nograd_off,inference_mode_off,batch_size_small,inference_batch_1,broadcasting_off,broadcast_blowup,"
    "optimizer_for_loop,channels_last_off,vectorized_off,metrics_loop"
)
NEEDED = {  # where a run lies -> the command that makes it
    "baseline/*": ("train",),
    "ab/ladder/*/vectorized_off": ("train.ab", "-m", f"+experiment={LADDER}"),
}
OUT = ROOT / "docs"
DRAWING_MS = 3000  # Perfetto says nothing when it has drawn


def make(logdir: Path) -> None:
    """Make what is missing."""
    for place, (module, *arguments) in NEEDED.items():
        if not any(logdir.glob(place)):
            subprocess.run([sys.executable, "-m", module, *arguments, f"output={logdir}"], cwd=ROOT, check=True)


def newest(logdir: Path, place: str) -> str:
    """Name the latest run at a place, as the tab does."""
    return max(logdir.glob(place)).relative_to(logdir).as_posix()


def take(tab: Tab, name: str, root: Any, part: str = "") -> None:
    """Take a picture of the view, or of what begins at one of its parts."""
    if part:
        root.get_by_role("heading", name=part).evaluate("title => title.parentNode.scrollIntoView()")
    tab.picture(OUT / f"tab-{name}.png")


def main(arguments: Sequence[str]) -> None:
    """Take all pictures."""
    logdir = Path(arguments[0] if arguments else "runs").resolve()
    make(logdir)
    run, ladder = newest(logdir, "baseline/*"), newest(logdir, "ab/ladder/*/vectorized_off").rpartition("/")[0]
    with tempfile.TemporaryDirectory() as cache, tensorboard(logdir, Path(cache)) as url, chromium() as browser:
        tab = Tab(browser, url, viewport=NARROW)
        take(tab, "effects", tab.open("effects"))
        take(tab, "overview", tab.open("overview", run=run))
        take(tab, "operators", tab.open("operators", run=run))
        arms = {"run": f"{ladder}/nograd_off/variant", "against": f"{ladder}/nograd_off/baseline"}
        take(tab, "compare", tab.open("compare", **arms))
        take(tab, "memory", tab.open("memory", **arms), "Memory, evaluate, cpu")
        root = tab.open("timeline", run=run)
        root.locator(".message.loading").wait_for(state="detached")
        tab.page.wait_for_timeout(DRAWING_MS)
        root.evaluate("() => scrollTo(0, 0)")  # Perfetto takes the focus
        take(tab, "timeline", root)
        dark = Tab(browser, url, viewport=NARROW, color_scheme="dark")
        arms = {"run": f"{ladder}/vectorized_off/variant", "against": f"{ladder}/vectorized_off/baseline"}
        take(dark, "causes", dark.open("compare", **arms), "Traced time by phase, per sample")


if __name__ == "__main__":
    main(sys.argv[1:])
