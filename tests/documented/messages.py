"""The messages that the program can give, as its source has them: ``…`` stands for what differs."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from documented.reading import ROOT

from cacheflow import errors
from cacheflow.errors import CacheFlowError, NoLeader, NotCommitted, NotReady, OutcomeUnknown
from cacheflow.rest.problems import urn_of
from cacheflow.wire.resp.replies import failure

PACKAGE: Final = ROOT / "cacheflow"
ANY: Final = "…"
# The base of what ends a start, and those whose own constructor has the message.
REFUSAL: Final = "ConfigError"


def problems() -> dict[str, int]:
    """Return each kind of answer over HTTP, without ``urn:cacheflow:``, with its status."""
    kinds = {
        urn_of(each): each.http_status
        for _, each in inspect.getmembers(errors, inspect.isclass)
        if issubclass(each, CacheFlowError) and each.http_status != 500
    }
    for tree in _modules(PACKAGE / "rest").values():
        for call in _calls(tree):
            told = {keyword.arg: keyword.value for keyword in call.keywords}
            kind, status = told.get("kind"), told.get("status")
            if isinstance(kind, ast.Constant) and isinstance(status, ast.Constant):
                kinds[str(kind.value)] = int(str(status.value))
    kinds |= {errors.HTTPS_ONLY: 400, "urn:cacheflow:internal-error": 500}
    return {kind.removeprefix("urn:cacheflow:"): status for kind, status in kinds.items()}


@cache
def refusals() -> dict[str, str]:
    """Return the message of every ConfigError, with the file that raises it. Those handed on from elsewhere are left out."""
    found: dict[str, str] = {}
    for file, tree in _modules(PACKAGE).items():
        functions = {each.name: each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)}
        for call in _calls(tree):
            if _name(call.func) == REFUSAL and call.args:
                for text in _texts(call.args[0], functions):
                    found[text] = file
        for each in ast.walk(tree):
            if isinstance(each, ast.ClassDef) and {_name(base) for base in each.bases} == {REFUSAL}:
                for call in _calls(each):
                    if _name(call.func) in ("__init__", "cls"):
                        found[_text(call.args[0])] = file
    return {text: file for text, file in found.items() if text != ANY}


@cache
def complaints() -> dict[str, str]:
    """Return every line of the log at the level ERROR or above, with the file that logs it."""
    found: dict[str, str] = {}
    for file, tree in _modules(PACKAGE).items():
        for call in _calls(tree):
            if isinstance(call.func, ast.Attribute) and call.func.attr in ("error", "critical", "exception"):
                if _name(call.func.value) == "logger":
                    found[re.sub(r"%[sdgr]|%\.\d+r", ANY, _text(call.args[0]))] = file
    return found


def wire_replies() -> set[str]:
    """Return the code of every error reply of the RESP port, and every SERVER_ERROR of memcached's."""
    found: set[str] = set()
    for text in _constants(PACKAGE / "wire/resp"):
        # A text with brackets is help.
        if (code := re.match(r"-?([A-Z]{2,}) [\w']", text)) and "[" not in text:
            found.add(f"-{code[1]}")
    for error in (NotReady, NoLeader, NotCommitted, OutcomeUnknown):
        found.add(failure(error("why")).decode().split()[0])
    for text in _constants(PACKAGE / "wire/memcached"):
        found |= {each.strip() for each in re.findall(r"SERVER_ERROR [a-z][\w ]+", text)}
    for tree in _modules(PACKAGE / "wire/memcached").values():
        for call in _calls(tree):
            if _name(call.func) == "server_error":
                said = {_text(each).strip(": ") for each in ast.walk(call) if isinstance(each, ast.Constant)}
                found |= {f"SERVER_ERROR {words}" for words in said - {"", ANY}}
    return found


def _constants(folder: Path) -> Iterator[str]:
    """Yield every text of the modules in a folder, but for docstrings."""
    for tree in _modules(folder).values():
        prose = {id(each.value) for each in ast.walk(tree) if isinstance(each, ast.Expr)}
        for each in ast.walk(tree):
            if isinstance(each, ast.Constant) and isinstance(each.value, str | bytes) and id(each) not in prose:
                yield each.value if isinstance(each.value, str) else each.value.decode("latin-1")


def _modules(folder: Path) -> dict[str, ast.Module]:
    return {path.relative_to(PACKAGE).as_posix(): _parsed(path) for path in sorted(folder.rglob("*.py"))}


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (each for each in ast.walk(tree) if isinstance(each, ast.Call))


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _texts(node: ast.expr, functions: dict[str, ast.FunctionDef]) -> list[str]:
    """Return the texts that an argument may be: its own, or those that a function of the same module returns."""
    if isinstance(node, ast.Call) and _name(node.func) in functions:
        returned = [each.value for each in ast.walk(functions[_name(node.func)]) if isinstance(each, ast.Return)]
        return [_text(value) for value in returned if value is not None]
    return [_text(node)]


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return ANY
