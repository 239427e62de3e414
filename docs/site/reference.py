"""Pages of the site that are made from the program itself: its command line, its Python names, its HTTP operations.

mkdocs calls the functions by their names. Sections of the menu that are one folder list what stands in that folder.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import cacheflow
from cacheflow.cli.main import commands
from cacheflow.rest.openapi import specification
from cacheflow.rest.request.context import RestConfig

ROOT = Path(__file__).resolve().parents[2]
_MODULE_OR_QUOTE = re.compile(r"cacheflow[.][a-z_.]+[.]|'")
# The sections of the menu that list a folder.
FOLDERS = {"Use cases": "usecases", "How-to": "howto", "PySyncObj's faults": "upstream"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the menu's sections that list a folder."""
    assert config.nav is not None
    for section in config.nav:
        (name,) = section
        if name in FOLDERS:
            folder = ROOT / "docs" / FOLDERS[name]
            section[name] = [f"{FOLDERS[name]}/{page.name}" for page in sorted(folder.glob("*.md"))]
        elif name == "Reference":
            section[name] = [
                {"Python": "reference/python.md"},
                {"Command line": "reference/command-line.md"},
                {"HTTP": "reference/http.md"},
                {"Redis' protocol": "resp.md"},
                {"memcached's protocol": "memcached.md"},
                {"Changelog": "changelog.md"},
                {"Reporting a hole": "reporting.md"},
                {"README": "readme.md"},
            ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    made = {
        "reference/python.md": python_page(),
        "reference/command-line.md": command_line_page(),
        "reference/http.md": http_page(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text().replace("](docs/", "]("),
        "reporting.md": (ROOT / "SECURITY.md").read_text().replace("](docs/", "]("),
        "readme.md": (ROOT / "README.md").read_text().replace("](docs/", "]("),
    }
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead links to files beside docs to the pages that show these, and take the tests' marks from blocks of commands."""
    markdown = re.sub(r"^( *```sh) (?:long|drill|drill root)$", r"\1", markdown, flags=re.MULTILINE)
    if "/" in page.file.src_uri:
        return markdown
    for name, shown in (("README", "readme"), ("CHANGELOG", "changelog"), ("SECURITY", "reporting")):
        markdown = re.sub(rf"\]\((\.\./)?{name}\.md(?=[)#])", f"]({shown}.md", markdown)
    return markdown.replace("](upstream/)", "](upstream/README.md)")


def python_page() -> str:
    """The public names of the package with their signatures and docstrings."""
    parts = ["# Python", "The names of `cacheflow`, from their docstrings."]
    for name in cacheflow.__all__:
        thing = getattr(cacheflow, name)
        parts.append(f"## {name}")
        if inspect.isclass(thing):
            parts += [_signature(name, thing), _prose(thing)]
            for method, function in _methods(thing):
                parts += [f"### {name}.{method}", _signature(method, function), _prose(function)]
        else:
            parts += [_signature(name, thing), _prose(thing)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _methods(thing: type) -> list[tuple[str, Any]]:
    if issubclass(thing, BaseException):
        return []
    found = {}
    for name, member in inspect.getmembers(thing):
        if name.startswith("_") or not getattr(member, "__doc__", None) or not callable(member):
            continue
        if (getattr(member, "__module__", None) or "").startswith("cacheflow"):
            found[name] = member
    return sorted(found.items())


def _signature(name: str, thing: Any) -> str:
    try:
        given = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    kept = [parameter for parameter in given.parameters.values() if parameter.name != "self"]
    shown = re.sub(_MODULE_OR_QUOTE, "", str(given.replace(parameters=kept)))
    return f"```text\n{name}{shown}\n```"


def _prose(thing: Any) -> str:
    return "\n".join(f"> {line}".rstrip() for line in (inspect.getdoc(thing) or "").replace("<", "&lt;").splitlines())


def command_line_page() -> str:
    """What each command says of itself."""
    parts = ["# Command line", "What `cacheflow COMMAND --help` prints."]
    for name, command in sorted(commands.commands.items()):
        with click.Context(command, info_name=f"cacheflow {name}", max_content_width=110) as context:
            parts += [f"## {name}", f"```text\n{command.get_help(context)}\n```"]
    return "\n\n".join(parts) + "\n"


def http_page() -> str:
    """The operations of the HTTP API, from its specification."""
    parts = ["# HTTP", "From the specification, which each node serves at `/openapi.json`."]
    for path, operations in specification(RestConfig())["paths"].items():
        for method, operation in operations.items():
            if method == "parameters":
                continue
            parts.append(f"## {method.upper()} {path}")
            parts.append(operation.get("summary") or operation.get("description") or "")
            rows = [
                f"| {code} | {answer.get('description', '')} |"
                for code, answer in sorted(operation["responses"].items())
            ]
            parts.append("\n".join(["| status | |", "|---|---|", *rows]))
    return "\n\n".join(filter(None, parts)) + "\n"
