"""Pages in a real browser, and what no page may do however a test uses it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright

# Debian's; a browser of Playwright's own would have to be downloaded.
CHROMIUM = "chromium"
# Milliseconds for anything to happen: far more than it takes on an idle machine, because tests also run beside others.
DEADLINE_MS = 30_000
# Chromium says this by itself of an answer of 4xx and 5xx, which may be what a test asks for, and of a node that is away.
NETWORK = "Failed to load resource"
# Tells scripts of this page that ran for long, by the browser's own measure: [address, milliseconds].
LONG_SCRIPTS = """
window.longScripts = [];
new PerformanceObserver((list) => {
  for (const frame of list.getEntries()) {
    for (const script of frame.scripts) window.longScripts.push([script.sourceURL, Math.round(script.duration)]);
  }
}).observe({ type: "long-animation-frame", buffered: true });
"""


def missing() -> str:
    """Return why no browser can be used here, as text for people; "" if one can."""
    if shutil.which(CHROMIUM) is None:
        return "chromium is not installed (apt-get install chromium)"
    return ""


def launch(playwright: Playwright) -> Browser:
    """Return Debian's Chromium, started without a window."""
    # Root has no sandbox; containers have little shared memory.
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    return playwright.chromium.launch(executable_path=shutil.which(CHROMIUM), args=arguments)


class Watched:
    """One reader's browser: opens pages of nodes and notes what they do.

    asked: every URL that a page has asked for.  said: what no page should say: errors, and breaches of the policy.
    """

    def __init__(self, browser: Browser, **options: Any) -> None:
        self.asked: list[str] = []
        self.said: list[str] = []
        self._hosts: set[str] = set()
        self.context: BrowserContext = browser.new_context(**options)
        self.context.set_default_timeout(DEADLINE_MS)
        self.context.add_init_script(LONG_SCRIPTS)
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.context.on("console", self._console)
        self.context.on("weberror", lambda error: self.said.append(f"uncaught: {error.error}"))
        self.context.on("dialog", self._dialog)

    def open(self, url: str, view: str = "cluster") -> Page:
        """Return a new page of the node at ``url`` that shows ``view``, as the address has it behind its ``#``."""
        self._hosts.add(urlsplit(url).netloc)
        page = self.context.new_page()
        page.goto(f"{url}/#{view}")
        return page

    def check(self) -> None:
        """Raise AssertionError if a page has said something, or has asked anybody but its own node."""
        assert self.said == []
        elsewhere = [url for url in self.asked if urlsplit(url).netloc not in self._hosts and urlsplit(url).scheme != "blob"]
        assert elsewhere == []

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(NETWORK):
            self.said.append(f"{message.type}: {message.text}")

    def _dialog(self, dialog: Any) -> None:
        # The page never opens one: a foreign script has.
        self.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@contextlib.contextmanager
def watched(browser: Browser, **options: Any) -> Iterator[Watched]:
    """Yield a new reader's browser; check in the end that its pages have behaved. options: those of a browser context."""
    reader = Watched(browser, **options)
    try:
        yield reader
        reader.check()
    finally:
        reader.context.close()
