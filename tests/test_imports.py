"""Imports point downwards only, and the machine stays pure. The tables below are the drawing of the house."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

import cacheflow

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cacheflow"

BASE = ("errors", "values", "results", "config")
# Who may use the ports: for the fronts alone.
USERS = ("access",)
# What a store answers, and the commands that it is asked for.
CONTRACT = ("contract", "machine.language")
# The verbs, and what makes methods of them: for store and client alike.
VERBS = ("arguments", "forms", "verbs", "operations", "aio.threads", "watching.watch", "faces")
FRONT = (*BASE, *USERS, *CONTRACT, "measuring", "arguments", "verbs", "operations", "store", "client")

# Module or folder -> what of ours it may import; a name covers everything below it.
LAYERS: dict[str, tuple[str, ...]] = {
    "errors": (),
    # The bytes of hashes and sets are the machine's; what they are in Python is not.
    "values": ("errors", "machine.language.fields"),
    "results": ("errors", "values"),
    "config": ("errors",),
    "access": ("errors", "config", "measuring", "access"),
    "net": ("errors", "measuring", "net"),
    # Durations and counts, noted in hot paths: for everybody who has something to tell.
    "measuring": ("measuring",),
    # What the store answers and the fronts ask for: above the machine, below all of them.
    "contract": (*BASE, "files.backup", "measuring", "machine.effects", "machine.language", "machine.state.entries"),
    "machine": ("errors", "values", "machine"),
    # What is in the files that hold contents; raft writes and loads them.
    "files": ("errors", "values", "machine.language", "machine.state.entries", "files"),
    "raft": (*BASE, "files", "measuring", "net", "machine", "raft"),
    "node": (*BASE, "contract", "arguments", "files", "measuring", "net", "machine", "raft", "node"),
    "watching": (),
    # A watch of a node in this process, which both know.
    "watching.local": (*BASE, "contract", *VERBS, "node"),
    "store": (
        *(*BASE, *CONTRACT, *VERBS, "machine.state.entries", "machine.listing", "net.ports", "net.tls.handshakes"),
        *("net.slices", "net.unfinished", "net.unsent", "raft.membership.changes", "node", "watching.local"),
    ),
    **dict.fromkeys(VERBS, (*BASE, "machine.language", "machine.state.settings", *VERBS)),
    "client": (*BASE, "machine.language", *VERBS, "net.tls.trust", "client"),
    # What opens a cache by its URL, whichever kind that is.
    "opening": (*BASE, "machine.language", *VERBS, "client", "store", "aio.store", "opening"),
    "aio.store": (*BASE, *CONTRACT, *VERBS, "store"),
    "aio": ("client", "opening", "aio"),
    # Frameworks' caches: users of what an application opens, which nothing of ours imports.
    "integrations": (*BASE, "arguments", "opening", "integrations"),
    "rest": (*FRONT, "machine.state.settings", "net.slices", "net.unfinished", "net.unsent", "rest"),
    # A transaction with steps foresees what its commands will do, by the machine's own pure rules; Redis' names of changes follow
    # from the effects.
    "wire": (
        *(*FRONT, "machine.deciding.decisions", "machine.deciding.field_decisions", "machine.effects"),
        *("net.slices", "wire"),
    ),
    "cli": (
        *BASE,
        *USERS,
        "files.backup",
        "machine.language.databases",
        "measuring",
        "net.tls.trust",
        "client",
        "store",
        "rest",
        "wire",
        "cli",
    ),
    # It works on the files of a node that does not run.
    "cli.recover": (*BASE, "machine.state.settings", "raft", "cli"),
    "__main__": ("cli",),
    # The face: what a user imports.
    "__init__": (*BASE, "store", "client", "aio", "opening"),
}

# Foreign package -> the only place that may import it.
ONLY_IN = {
    "pysyncobj": "raft",
    "cachetools": "machine.eviction",
    "flask": "rest",
    "waitress": "rest",
    "prometheus_client": "rest.routes.metrics",
    "click": "cli",
    "hiredis": "wire",
    "cryptography": "cli.signing",
    "rich": "cli.monitor",
    "lupa": "wire",
    "django": "integrations.django",
    "celery": "integrations.celery",
    "kombu": "integrations.celery",
    "aiocache": "integrations.aiocache",
    "fastapi_cache": "integrations.fastapi_cache2",
}

IMPURE_MODULES = {
    *("time", "random", "os", "socket", "threading", "logging", "datetime", "asyncio"),
    *("secrets", "uuid", "subprocess", "multiprocessing", "concurrent", "pathlib", "io", "tempfile", "platform"),
}
IMPURE_CALLS = {"hash", "id", "open", "print", "input"}
# These go through what they are given in its own order, which a set does not have.
ORDERED_USERS = {"list", "tuple", "iter", "enumerate", "next", "zip", "map", "filter", "dict"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        yield name, ast.parse(path.read_text(), str(path))


MODULES = dict(modules())


def imported(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import, wherever it stands: inside functions and TYPE_CHECKING too."""
    is_folder = name == "__init__" or any(other.startswith(f"{name}.") for other in MODULES)
    folder = ["cacheflow", *(part for part in name.split(".") if part != "__init__")]
    if not is_folder:
        folder.pop()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


def covers(allowed: str, target: str) -> bool:
    return target == allowed or target.startswith(f"{allowed}.")


def wrong_imports(name: str, tree: ast.Module) -> list[str]:
    # The nearest of the folders above it counts.
    parts = name.split(".")
    layer = next((known for end in range(len(parts), 0, -1) if (known := ".".join(parts[:end])) in LAYERS), None)
    if layer is None:
        return [f"{name}: say in LAYERS what it may import"]
    wrong = []
    for line, target in imported(name, tree):
        top, _, ours = target.partition(".")
        if top != "cacheflow":
            owner = ONLY_IN.get(top)
            if owner is not None and not covers(owner, name):
                wrong.append(f"{name}:{line} imports {top}, which belongs to {owner}")
        elif not ours.startswith("__") and not any(covers(allowed, ours) for allowed in LAYERS[layer]):
            wrong.append(f"{name}:{line} imports {target}")
    return wrong


def module_of(target: str) -> str:
    """Our module that ``target``, what is imported below ``cacheflow``, stands in; the face when it is in none."""
    while target and target not in MODULES:
        target = target.rpartition(".")[0]
    return target or "__init__"


def graph() -> dict[str, set[str]]:
    """Every module of ours, and which others it imports anywhere in it."""
    return {
        name: {module_of(target.partition(".")[2]) for _, target in imported(name, tree) if covers("cacheflow", target)}
        for name, tree in MODULES.items()
    }


def circles(edges: Mapping[str, Collection[str]]) -> list[list[str]]:
    """The groups of more than one node in which each reaches all others, sorted."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        ahead = [start]
        while ahead:
            new = set(edges.get(ahead.pop(), ())) - found
            found |= new
            ahead.extend(new)
        return found

    reach = {name: reached(name) for name in edges}
    groups = {frozenset({name, *(other for other in reach[name] if name in reach.get(other, ()))}) for name in edges}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def is_set(node: ast.expr) -> bool:
    if isinstance(node, (ast.Set, ast.SetComp)):
        return True
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("set", "frozenset")


def impurities(name: str, tree: ast.Module) -> list[str]:
    found = [
        f"{name}:{line} imports {target}"
        for line, target in imported(name, tree)
        if target.partition(".")[0] in IMPURE_MODULES
    ]
    for node in ast.walk(tree):
        iterated: list[ast.expr] = []
        if isinstance(node, (ast.For, ast.comprehension)):
            iterated = [node.iter]
        elif isinstance(node, ast.Starred):
            iterated = [node.value]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in IMPURE_CALLS:
                found.append(f"{name}:{node.lineno} calls {node.func.id}()")
            if node.func.id in ORDERED_USERS:
                iterated = node.args
        found += [f"{name}:{each.lineno} goes through a set" for each in iterated if is_set(each)]
    return found


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_downwards_only(name: str) -> None:
    assert wrong_imports(name, MODULES[name]) == []


def test_no_modules_import_one_another() -> None:
    assert circles(graph()) == []


def test_a_circle_is_found() -> None:
    edges = {"a": "bx", "b": "cd", "c": "a", "d": "e", "e": "", "x": "x", "p": "q", "q": "pa"}
    assert circles(edges) == [["a", "b", "c"], ["p", "q"]]


@pytest.mark.parametrize(
    "source",
    [
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from cacheflow.raft.node import RaftNode",
        "def late():\n    from cacheflow.raft import node",
        "from ..raft.node import RaftNode",
        "import cacheflow.raft.node",
    ],
)
def test_an_import_counts_wherever_it_stands(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setitem(MODULES, "machine.machine", ast.parse(source))
    assert graph()["machine.machine"] == {"raft.node"}


@pytest.mark.parametrize("name", [name for name in MODULES if covers("machine", name)])
def test_the_machine_is_pure(name: str) -> None:
    assert impurities(name, MODULES[name]) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("errors", "from cacheflow import values"),
        ("machine.machine", "from cacheflow.raft import node"),
        ("machine.machine", "from cacheflow.config import NodeConfig"),
        ("machine.machine", "import cachetools"),
        ("machine", "from ..raft import node"),
        ("raft.node", "def late():\n    from cacheflow.store import ReplicatedStore"),
        ("rest.app", "import cacheflow.raft.node"),
        ("rest.app", "from cacheflow.machine.machine import CacheMachine"),
        ("client", "from cacheflow import store"),
        ("store", "import pysyncobj.batteries"),
        ("launcher", "from cacheflow import ReplicatedStore"),
        ("novelty", "import json"),
    ],
)
def test_a_wrong_import_is_found(name: str, source: str) -> None:
    assert len(wrong_imports(name, ast.parse(source))) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("machine.eviction", "import cachetools"),
        ("machine.machine", "from . import commands\nfrom .commands import SET"),
        (
            "rest.app",
            "from cacheflow.machine.language.commands import SET\nfrom cacheflow.store import ReplicatedStore",
        ),
        ("client", "from cacheflow import __version__"),
        ("raft.node", "from pysyncobj import SyncObj"),
    ],
)
def test_a_right_import_is_let_through(name: str, source: str) -> None:
    assert wrong_imports(name, ast.parse(source)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from os import path",
        "x = hash('a')",
        "x = id(y)",
        "for x in {1, 2}: pass",
        "x = [y for y in set(z)]",
        "x = list({y for y in z})",
        "x = [*frozenset(z)]",
    ],
)
def test_an_impurity_is_found(source: str) -> None:
    assert len(impurities("machine.machine", ast.parse(source))) == 1


def test_membership_in_a_set_is_pure() -> None:
    assert impurities("machine.machine", ast.parse("x = y in {1, 2}\nz = sorted({1, 2})")) == []


def test_every_name_of_the_face_is_there() -> None:
    for name in cacheflow.__all__:
        assert getattr(cacheflow, name).__name__ == name


def test_few_modules_stand_beside_the_folders() -> None:
    alone = [path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")]
    assert len(alone) <= 10, alone


def test_the_design_names_every_file() -> None:
    design = (ROOT / "docs" / "DESIGN.md").read_text()
    # Two folders are shown as such: a file there is a group of a protocol's commands.
    files = [path for path in PACKAGE.rglob("*.py") if path.parent.name not in ("commands", "meta")]
    assert [path for path in files if not path.stem.startswith("__") and path.name not in design] == []
