"""TensorBoard in a browser: a real server, Debian's Chromium, and the tab as its user meets it."""

import csv
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # what were asked for elsewhere would also fail
]
VIEWS = ("effects", "overview", "operators", "compare", "memory", "modules", "kernels", "communication", "timeline")
WIDE, NARROW = {"width": 1600, "height": 1000}, {"width": 1280, "height": 800}


@contextmanager
def tensorboard(logdir: Path, cache: Path) -> Iterator[str]:
    """Run the installed `tensorboard` on a free port; give its address. `cache` stands in for the user's."""
    process = subprocess.Popen(
        [Path(sys.executable).with_name("tensorboard"), "--logdir", logdir, "--port", "0", "--reload_interval", "1"],
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = []
    try:
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"http://\S+?:(\d+)/", line):
                yield f"http://127.0.0.1:{found[1]}/"
                break
        else:
            raise RuntimeError("".join(said))
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the system's Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield opened
        opened.close()


class Tab:
    """The A/B Trace tab in a page of its own; `hosts` are those that it asks, `said` is what goes wrong on it."""

    def __init__(self, browser: Any, url: str, viewport: dict[str, int] = WIDE, **options: Any) -> None:
        self.url = url
        self.said: list[str] = []
        self.hosts: set[str] = set()
        context = browser.new_context(viewport=viewport, **options)
        context.on("request", lambda request: self._asked(request.url))
        self.page = context.new_page()
        self.page.on("websocket", lambda socket: self._asked(socket.url))
        self.page.on("console", lambda message: self.said.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", self._dialog)
        self.page.set_default_timeout(10_000)
        self.frame = self.page.frame_locator("iframe")
        self.main = self.frame.locator("main")

    def _asked(self, url: str) -> None:
        if host := urlsplit(url).netloc:  # blob: and data: have none
            self.hosts.add(host)

    def _dialog(self, dialog: Any) -> None:
        self.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def address(self, view: str = "", **keys: str) -> str:
        """The address of a view, as a user would share it."""
        pairs = {"view": view, **keys}
        return f"{self.url}#abtrace" + "".join(
            f"&p.abtrace.{key}={quote(value)}" for key, value in pairs.items() if value
        )

    def open(self, view: str = "", **keys: str) -> Any:
        """Go to an address and wait until the view is there; give its root."""
        address = self.address(view, **keys)
        if self.page.url.startswith(self.url):
            self.page.evaluate(_GO, address.partition("#")[2])
        else:
            self.page.goto(address)
        return self.settled(view)

    def settled(self, view: str = "") -> Any:
        """Wait until the view is there and its charts are drawn; give its root."""
        self.frame.locator("main[aria-busy=false]").wait_for(state="attached")
        root = self.main.locator(f".view.{view}" if view else ".view")
        root.wait_for(state="attached")
        for plot in root.locator(".plot:visible").all():
            plot.locator(".main-svg").first.wait_for(state="attached")
        return root

    def choice(self, name: str) -> Any:
        """Find one of the choices above the views: Run, Window, Compare with."""
        return self.frame.get_by_role("combobox", name=name, exact=True)

    def cells(self, table: Any) -> list[list[str]]:
        """The texts of a table's body."""
        found: list[list[str]] = table.locator("tbody").evaluate(_CELLS)
        return found

    def csv(self, root: Any, name: str) -> list[dict[str, str]]:
        """Save a table as CSV and read it back."""
        button = root.locator(f"button[title$='{name}.csv']")
        with self.page.expect_download() as saved:
            button.click()
        assert saved.value.suggested_filename == f"{name}.csv"
        with Path(saved.value.path()).open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def picture(self, path: Path, **options: Any) -> None:
        """Take a picture of what is in sight, as small as a palette makes it."""
        from PIL import Image

        self.page.screenshot(path=path, animations="disabled", **options)
        with Image.open(path) as image:
            small = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        small.save(path, optimize=True)

    def close(self) -> None:
        """Close the page and all that belongs to it."""
        self.page.context.close()


# The tab listens for the same event, and did so first: when this one is told, the tab has begun to show the new view.
_GO = """hash => new Promise(resolve => {
    if (location.hash.slice(1) === hash) return resolve();
    addEventListener("hashchange", resolve, {once: true});
    location.hash = hash;
})"""
_CELLS = "body => [...body.rows].map(row => [...row.cells].map(cell => cell.textContent))"
