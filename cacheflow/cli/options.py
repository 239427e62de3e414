"""Options of the commands that talk to a node: which node, whose token, which CA."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click

from cacheflow.cli import settings, texts
from cacheflow.client.client import TIMEOUT_S_DEFAULT, CacheClient
from cacheflow.config import read_secret

DEFAULT_URL: Final = "http://127.0.0.1:8080"
CA_OPTION: Final = click.option(
    "--ca", type=texts.path, metavar="FILE", help="CA of https nodes; the system's unless told."
)


def client_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click command the options that name nodes; its function gets a client of these nodes as first argument."""

    @functools.wraps(command)
    def connected(
        urls: tuple[str, ...], timeout: float, api_token_file: Path | None, ca: Path | None, **rest: Any
    ) -> Any:
        with client_of(urls, timeout, api_token_file, ca) as client:
            return command(client, **rest)

    return connection_options(connected)


def client_of(urls: tuple[str, ...], timeout: float, api_token_file: Path | None, ca: Path | None) -> CacheClient:
    """Return a client of the nodes that a command's options name; it asks no other members of the cluster."""
    return CacheClient(urls_of(urls) or [DEFAULT_URL], timeout, token_of(api_token_file), ca_of(ca), discover=False)


def connection_options(
    command: Callable[..., Any], timeout_s: float = TIMEOUT_S_DEFAULT, timeout_help: str = "Seconds for the whole call."
) -> Callable[..., Any]:
    """Give a click command the options that name nodes; its function gets them as keyword arguments.

    They are urls (of the nodes), timeout, api_token_file, ca (the file with the CA of their certificates) and as_json.
    timeout_s: the timeout where none is given.  timeout_help: what it is for.
    """
    options: list[Callable[..., Any]] = [
        click.option("--json", "as_json", is_flag=True, help="JSON for programs instead of text for people."),
        click.option("--timeout", default=timeout_s, show_default=True, help=timeout_help),
        click.option("--api-token-file", type=texts.path, help="Token for the HTTP API."),
        CA_OPTION,
        click.option(
            "--url",
            "urls",
            multiple=True,
            type=texts.text,
            metavar="URL",
            help=f"A node; repeatable. {DEFAULT_URL} unless told.",
        ),
    ]
    for option in options:
        command = option(command)
    return command


def urls_of(given: Sequence[str]) -> list[str]:
    """Return the nodes' URLs given by flags, else those in CACHEFLOW_URL, separated by commas or blanks.

    Raises click.UsageError for a flag without a URL: the command must not go to another node than the user means.
    """
    lists = list(given) or [os.environ.get("CACHEFLOW_URL", "")]
    urls = [url for several in lists for url in several.replace(",", " ").split()]
    if given and not urls:
        raise click.UsageError("--url is empty")
    return urls


def ca_of(file: Path | None) -> Path | None:
    """Return the path of the file with the CA of the nodes' certificates: that of --ca, else of CACHEFLOW_CA.

    Returns None if neither is given: then the CAs count that the system trusts.
    """
    told = os.environ.get("CACHEFLOW_CA", "").strip()
    return file or (settings.named_path(told, "CACHEFLOW_CA") if told else None)


def token_of(file: Path | None) -> str | None:
    """Return the token in the file of --api-token-file, else of CACHEFLOW_API_TOKEN_FILE; None if neither is given."""
    if file is None and (told := os.environ.get("CACHEFLOW_API_TOKEN_FILE", "").strip()):
        file = settings.named_path(told, "CACHEFLOW_API_TOKEN_FILE")
    secret = read_secret(file, "--api-token-file")
    return None if secret is None else secret.decode("latin-1")
