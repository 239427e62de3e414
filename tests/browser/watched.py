"""Pages in a real browser, and what no page may do however a test uses it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright, Route

# Debian's; a browser of Playwright's own would have to be downloaded.
CHROMIUM = "chromium"
# Milliseconds for anything to happen: far more than it takes on an idle machine, because tests also run beside others.
DEADLINE_MS = 30_000
POLL_MS = 20
# Chromium says this by itself of an answer of 4xx and 5xx, which may be what a test asks for, and of a node that is away.
NETWORK = "Failed to load resource"
# What the browser traces of scripts, with the processor's time that each took: a loaded machine makes none look long.
CATEGORIES = ("devtools.timeline", "v8.execute")
SCRIPTS = frozenset(
    (
        "FunctionCall",
        "EvaluateScript",
        "v8.evaluateModule",
        "RunMicrotasks",
        "FireAnimationFrame",
        "TimerFire",
        "EventDispatch",
    )
)


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
        elsewhere = [
            url for url in self.asked if urlsplit(url).netloc not in self._hosts and urlsplit(url).scheme != "blob"
        ]
        assert elsewhere == []

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(NETWORK):
            self.said.append(f"{message.type}: {message.text}")

    def _dialog(self, dialog: Any) -> None:
        # The page never opens one: a foreign script has.
        self.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()


def hide(page: Page, is_hidden: bool) -> None:
    """Tell the page that it is not seen any more, or that it is seen again."""
    page.evaluate(
        """(hidden) => {
          Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        is_hidden,
    )


class Held:
    """The requests of a page to ``url``, of the methods given, that are kept back until a test answers them."""

    def __init__(self, page: Page, url: str | re.Pattern[str], *methods: str) -> None:
        self._page = page
        self._methods = methods
        self._routes: list[Route] = []
        page.route(url, self._take)

    def next(self) -> Route:
        """Wait for the next request that is kept back and return its route, to be answered."""
        for _ in range(DEADLINE_MS // POLL_MS):
            if self._routes:
                return self._routes.pop(0)
            self._page.wait_for_timeout(POLL_MS)
        raise AssertionError(f"no request came within {DEADLINE_MS} ms")

    def _take(self, route: Route) -> None:
        if route.request.method in self._methods:
            self._routes.append(route)
        else:
            route.continue_()


@contextlib.contextmanager
def traced(browser: Browser, page: Page, scripts: list[tuple[float, str]]) -> Iterator[None]:
    """Add to ``scripts`` each run of a script of ``page`` inside: the milliseconds of processor that it took, and what it was."""
    browser.start_tracing(page=page, categories=list(CATEGORIES))
    try:
        yield
    finally:
        events = json.loads(browser.stop_tracing())["traceEvents"]
    # The browser's own pages have scripts, too, in processes of their own.
    origin = page.evaluate("location.origin")
    ours = {event["pid"] for event in events if f'"{origin}/' in json.dumps(event.get("args", {}))}
    for event in events:
        if event["pid"] in ours and event["name"] in SCRIPTS and "tdur" in event:
            scripts.append((event["tdur"] / 1000, f"{event['name']} {json.dumps(event.get('args', {}))[:200]}"))


@contextlib.contextmanager
def watched(browser: Browser, **options: Any) -> Iterator[Watched]:
    """Yield a new reader's browser; check in the end that its pages have behaved. options: those of a browser context."""
    reader = Watched(browser, **options)
    try:
        yield reader
        reader.check()
    finally:
        reader.context.close()
