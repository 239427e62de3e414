"""Golden transcripts: a line of a text file is a command and what it answers.

@100                          the time of the entries from here on
set a 1 ttl=50 @100           data, then ttl=, when=absent|present, version=, meta=
... -> created v1             what it answers
append k data at=front create=1 ; count n -1 initial=5 ttl=50 ; expire k 50 when=unset|set|later|earlier
if a=1/50 b=0 : set c 1 & get c  -> guarded: (what each of them answers), or unless 1: the condition at that place.
                                    A condition is the key, its version and, behind a slash, its expiry if it has one
a ; b -> x ; y                two commands in one entry
... -> x | evict b v3         behind the bar: what the entry did to other keys, in order
items -> b a c                all keys in eviction order
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from machine.driver import Driver, assert_invariants

from cacheflow.machine.effects import CONDEMNED, DELETED, EVICTED, EXPIRED
from cacheflow.machine.language import commands as c

FILES = sorted((Path(__file__).parent / "golden").glob("*.txt"))
OTHERS = {EXPIRED: "expire", EVICTED: "evict", DELETED: "remove", CONDEMNED: "condemn"}
WHEN = {"absent": c.IF_ABSENT, "present": c.IF_PRESENT}


def transcript(path: Path) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.partition("#")[0].strip()
        if text:
            command, _, answer = text.partition("->")
            yield number, command.strip(), answer.strip()


EXPIRE_WHEN = {"unset": c.IF_UNSET, "set": c.IF_SET, "later": c.IF_LATER, "earlier": c.IF_EARLIER}


def parsed(text: str) -> Any:
    verb, *words = text.split()
    if verb == "if":
        conditions, _, commands = text.partition(":")
        parts = [word.replace("=", "/").split("/") for word in conditions.split()[1:]]
        wanted = [(key, int(version), int(ends[0]) if ends else 0) for key, version, *ends in parts]
        return c.guarded(wanted, [parsed(one) for one in commands.split("&")])
    options = dict(word.split("=") for word in words if "=" in word)
    plain = [word for word in words if "=" not in word]
    ttl_ms = int(options.get("ttl", 0))
    version = int(options.get("version", 0))
    if verb == "set":
        when = WHEN.get(options.get("when", ""), c.IF_VERSION if version else c.ALWAYS)
        return c.set_(plain[0], plain[1].encode(), 1, options.get("meta"), ttl_ms, when, version)
    if verb == "incr":
        initial = int(options["initial"]) if "initial" in options else None
        return c.incr(plain[0], int(plain[1]), initial, ttl_ms)
    if verb == "count":
        initial = int(options["initial"]) if "initial" in options else None
        return c.count(plain[0], int(plain[1]), initial, ttl_ms)
    if verb == "append":
        return c.append(plain[0], plain[1].encode(), front="at" in options, create="create" in options)
    if verb == "expire":
        return c.expire(plain[0], int(plain[1]), EXPIRE_WHEN.get(options.get("when", ""), c.ALWAYS))
    if verb == "use":
        return c.recency([(key, int(uses)) for key, uses in (word.split("*") for word in words)])
    if verb == "configure":
        return c.configure({name: int(value) if value.isdigit() else value for name, value in options.items()})
    simple: dict[str, Any] = {
        "delete": lambda: c.delete(plain[0], version),
        "get": lambda: c.get(plain[0]),
        "touch": lambda: c.touch(plain[0], ttl_ms),
        "clear": lambda: c.delete_prefix(plain[0] if plain else ""),
        "tick": c.noop,
    }
    return simple[verb]()


def told(command: Any, result: c.Result) -> str:
    status, *rest = result
    verb = command[0]
    if status == c.OK:
        if verb == c.SET:
            return ("created" if rest[1] else "replaced") + f" v{rest[0]}"
        if verb == c.GET:
            return f"{rest[0].decode()} v{rest[3]}" + (f" until {rest[4]}" if rest[4] else "")
        if verb == c.GUARDED:
            return "(" + " & ".join(told(*pair) for pair in zip(command[2], rest[0], strict=True)) + ")"
        if verb == c.APPEND:
            return f"{rest[1]} bytes v{rest[0]}" + (f" until {rest[2]}" if rest[2] else "")
        if verb in (c.INCR, c.COUNT):
            return f"{rest[1]} v{rest[0]}"
        if verb in (c.TOUCH, c.EXPIRE):
            return f"until {rest[1]}"
        if verb == c.DELETE_PREFIX:
            return "ok"
        if verb == c.CONFIGURE:
            return f"settings v{rest[5]}"
        return " ".join(["ok", *(str(one) for one in rest)])
    if status == c.SWEEPING:
        return f"sweeping v{rest[0]}"
    names = {c.MISSING: "missing", c.PRECONDITION: "precondition", c.NOT_AN_INTEGER: "not an integer"}
    names |= {c.TOO_LARGE: "too large", c.MALFORMED: "malformed"}
    if verb == c.GUARDED and status == c.PRECONDITION:
        return f"unless {rest[0]}"
    return names[status] + (f" v{rest[0]}" if status == c.PRECONDITION else "")


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_the_machine_answers_as_the_transcript_says(path: Path) -> None:
    driver = Driver()
    for number, line, wanted in transcript(path):
        text, _, stamp = line.partition("@")
        if stamp:
            driver.at_ms = int(stamp)
        if not text:
            continue
        if text.strip() == "items":
            answer = " ".join(driver.order())
        else:
            commands = [parsed(part) for part in text.split(";")]
            results = driver.run(*commands)
            answer = " ; ".join(told(*pair) for pair in zip(commands, results, strict=True))
            deleted = {command[1] for command in commands if command[0] == c.DELETE}
            others = [
                f"{OTHERS[effect[0]]} {effect[1] or '*'} v{effect[2]}"
                for effect in driver.machine.contents.effects
                if effect[0] in OTHERS and not (effect[0] == DELETED and effect[1] in deleted)
            ]
            if others:
                answer += " | " + ", ".join(others)
        assert answer == wanted, f"{path.name}:{number}: {line}"
        assert_invariants(driver.machine)
