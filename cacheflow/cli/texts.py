"""Texts on their way into and out of a command: arguments as UTF-8, paths with ``~``, output that every terminal can show."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click

from cacheflow.cli import settings


def as_utf8(arguments: Iterable[str]) -> list[str]:
    """Return command-line arguments with those that Python could not decode read as UTF-8, whatever the locale is.

    In the locale C a shell still hands over what its user has typed in UTF-8. Bytes that are no UTF-8 stay as they are (lone
    surrogates): a path, or a value of ``set --type bytes``, may have them.
    """
    return [_as_utf8(each) for each in arguments]


def _as_utf8(argument: str) -> str:
    if _is_text(argument):
        return argument
    try:
        return os.fsencode(argument).decode()
    except UnicodeError:
        return argument


def _is_text(argument: str) -> bool:
    return argument.isascii() or not any("\ud800" <= char <= "\udfff" for char in argument)


def escape_output() -> None:
    """Let stdout and stderr show a character that their encoding lacks as an escape, such as ``\\u2603``, not fail on it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def json_text(value: Any) -> str:
    """Return ``value`` as JSON in characters that stdout's encoding has; JSON has an escape of its own for all others."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeError:
        return json.dumps(value)
    return text


def text(given: str) -> str:
    """Return a command-line argument that must be text (the ``type`` of a click parameter).

    Raises click.BadParameter for bytes that are not UTF-8.
    """
    if not _is_text(given):
        raise click.BadParameter(f"{os.fsencode(given)!r} is not UTF-8")
    return given


def path(given: str | Path) -> Path:
    """Return the path that a command-line argument names, with a leading ``~`` for the user's home (the ``type`` of a parameter).

    Raises click.BadParameter that says what is allowed.
    """
    try:
        return settings.path(os.fspath(given))
    except ValueError as error:
        raise click.BadParameter(f"{os.fspath(given)!r}: {error}") from None
