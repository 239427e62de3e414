#!/usr/bin/env python3
"""Sessions of a Django and a Flask site in three nodes; the leader is killed while people use both.

    scripts/examples/sessions.py [--users 20] [--visits 10]

Everybody logs in, and visits both sites again and again while the leader is killed. Nobody may be logged out or see an error, a
killed node may cost a pause and no more; and who has logged out stays out. Exit code 1 when that is not so, and when no site
could be used. docs/usecases/sessions.md is about it. Needs the extras django, and cachelib with flask-session: a site whose
framework is not installed is left out.
"""

from __future__ import annotations

import argparse
import importlib
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cacheflow import CacheClient
from cacheflow.cli.launcher import LocalCluster, terminable

# The leader is killed when this part of the visits is done.
KILLED_AFTER = 0.3
# Seconds until every node has heard of the last login, which another one may have answered: milliseconds as a rule.
HEARD_WITHIN_S = 5.0


class Browser(Protocol):
    """What a person uses: it keeps its cookies."""

    def login(self, name: str) -> None: ...

    def visit(self) -> str:
        """Return the name with which the site greets; "" for nobody."""

    def logout(self) -> None: ...


@dataclass
class Seen:
    """What people have seen of one site."""

    visits: int = 0
    longest_s: float = 0.0
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, took_s: float, wrong: str) -> None:
        """Count a visit. wrong: what was wrong with it, or ""."""
        with self.lock:
            self.visits += 1
            self.longest_s = max(self.longest_s, took_s)
            if wrong:
                self.wrong.append(wrong)


def main() -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--visits", type=int, default=10, help="of every user, on each site")
    options = parser.parse_args()
    with (
        terminable(),
        tempfile.TemporaryDirectory(prefix="cacheflow-sessions-") as folder,
        LocalCluster(3, Path(folder), say=lambda _: None) as cluster,
    ):
        cluster.start()
        cluster.wait_ready()
        print(f"three nodes: {', '.join(cluster.urls)}", flush=True)
        sites = {name: site(cluster.urls) for name, site in SITES.items() if _installed(name)}
        kept = list(_used(cluster, sites, options.users, options.visits)) if sites else []
        return int(not kept or not all(kept))


def _used(cluster: LocalCluster, sites: dict[str, Callable[[], Browser]], users: int, visits: int) -> Iterator[bool]:
    """Have everybody use the sites; yield whether each promise was kept."""
    names = [f"user-{number}" for number in range(users)]
    browsers = {site: {name: browser() for name in names} for site, browser in sites.items()}
    for site, by_name in browsers.items():
        for name, browser in by_name.items():
            browser.login(name)
        print(f"{site}: {users} users have logged in", flush=True)
    kept = _kept_everywhere(cluster.urls, users * len(sites))
    print(f"{kept} sessions are in the nodes", flush=True)
    yield kept == users * len(sites)
    seen = {site: Seen() for site in sites}
    with ThreadPoolExecutor(8) as pool:
        done = [
            pool.submit(_visits, browser, name, visits, seen[site])
            for name in names
            for site, browser in ((site, by_name[name]) for site, by_name in browsers.items())
        ]
        while sum(each.visits for each in seen.values()) < KILLED_AFTER * users * visits * len(sites):
            time.sleep(0.01)
        while (leader := cluster.leader()) is None:
            time.sleep(0.05)
        cluster.kill(leader)
        print(f"{leader.node_id}, the leader, is killed", flush=True)
        for each in done:
            each.result()
    for site, found in seen.items():
        print(f"{site}: {found.visits} visits, {len(found.wrong)} wrong, the longest took {found.longest_s:.2f} s")
        for wrong in found.wrong[:5]:
            print(f"    {wrong}")
        yield found.visits == users * visits and not found.wrong
    for site, by_name in browsers.items():
        for browser in by_name.values():
            browser.logout()
        still = [name for name, browser in by_name.items() if browser.visit()]
        print(f"{site}: {users} users have logged out, {len(still)} of them are still known")
        yield not still


def _kept_everywhere(urls: list[str], sessions: int) -> int:
    """Wait until each node has so many sessions; return how many the one with the fewest has."""
    with ExitStack() as stack:
        clients = [stack.enter_context(CacheClient([url])) for url in urls]
        until = time.monotonic() + HEARD_WITHIN_S
        while (kept := min(len(client) for client in clients)) < sessions and time.monotonic() < until:
            time.sleep(0.05)
    return kept


def _visits(browser: Browser, name: str, visits: int, seen: Seen) -> None:
    for _ in range(visits):
        began = time.monotonic()
        try:
            greeted = browser.visit()
            wrong = "" if greeted == name else f"{name} was greeted as {greeted or 'nobody'}"
        except Exception as error:  # what the site would show as an error, whatever it is
            wrong = f"{name}: {type(error).__name__}: {error}"
        seen.note(time.monotonic() - began, wrong)


def _installed(site: str) -> bool:
    try:
        for module in NEEDS[site]:
            importlib.import_module(module)
    except ImportError as error:
        print(f"{site}: left out: {error}", flush=True)
        return False
    return True


# Django


def django_site(urls: list[str]) -> Callable[[], Browser]:
    """Set Django up with its sessions in the cluster; return what makes a browser of the site."""
    import django
    from django.conf import settings
    from django.http import HttpRequest, HttpResponse
    from django.test import Client
    from django.urls import path

    def login(request: HttpRequest, name: str) -> HttpResponse:
        request.session["name"] = name
        return HttpResponse()

    def visit(request: HttpRequest) -> HttpResponse:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return HttpResponse(request.session.get("name", ""))

    def logout(request: HttpRequest) -> HttpResponse:
        request.session.flush()
        return HttpResponse()

    urls_of_site = ModuleType("urls_of_site")
    urls_of_site.urlpatterns = [path("login/<name>", login), path("", visit), path("logout", logout)]  # type: ignore[attr-defined]
    settings.configure(
        SECRET_KEY=secrets.token_hex(),
        ALLOWED_HOSTS=["testserver"],
        ROOT_URLCONF=urls_of_site,
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
        CACHES={
            "default": {
                "BACKEND": "cacheflow.integrations.django.CacheFlowCache",
                "LOCATION": urls,
                "KEY_PREFIX": "shop",
            }
        },
    )
    django.setup()

    class DjangoBrowser:
        def __init__(self) -> None:
            self._client = Client()

        def login(self, name: str) -> None:
            self._client.get(f"/login/{name}")

        def visit(self) -> str:
            return str(self._client.get("/").content.decode())

        def logout(self) -> None:
            self._client.get("/logout")

    return DjangoBrowser


# Flask


def flask_site(urls: list[str]) -> Callable[[], Browser]:
    """Make a Flask application with its sessions in the cluster; return what makes a browser of the site."""
    from flask import Flask, session
    from flask_session import Session

    from cacheflow.integrations.cachelib import CacheFlowCache

    app = Flask(__name__)
    app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=CacheFlowCache(urls, key_prefix="blog:"))
    Session(app)

    @app.get("/login/<name>")
    def login(name: str) -> str:
        session["name"] = name
        return ""

    @app.get("/")
    def visit() -> str:
        session["visits"] = session.get("visits", 0) + 1
        return str(session.get("name", ""))

    @app.get("/logout")
    def logout() -> str:
        session.clear()
        return ""

    class FlaskBrowser:
        def __init__(self) -> None:
            self._client = app.test_client()

        def _got(self, target: str) -> str:
            answer = self._client.get(target)
            if answer.status_code != 200:
                raise RuntimeError(answer.status)
            return str(answer.get_data(as_text=True))

        def login(self, name: str) -> None:
            self._got(f"/login/{name}")

        def visit(self) -> str:
            return self._got("/")

        def logout(self) -> None:
            self._got("/logout")

    return FlaskBrowser


SITES: dict[str, Callable[[list[str]], Callable[[], Browser]]] = {"django": django_site, "flask": flask_site}
NEEDS = {"django": ["django"], "flask": ["flask_session", "cachelib"]}


if __name__ == "__main__":
    sys.exit(main())
