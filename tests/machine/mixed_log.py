"""A log of everything that can happen, from a seed: the same for every process."""

from __future__ import annotations

from random import Random
from typing import Any

from cacheflow.machine.language import commands as c


def mixed_log(seed: int, length: int, *, removals: float = 0.0, many: int = 1500) -> list[bytes]:
    """``length`` entries after those that open two sessions, all of them payloads.

    removals: the share of commands that remove much at once, beside the usual.  many: keys of a large batch.
    """
    random = Random(seed)
    now_ms = 10**6
    opening = [
        c.members("cluster", [["a", "1", "h:1", "h:2", True, False], ["b", "1", "h:3", "h:4", True, False]]),
        *(c.open_session("a", "1", 1, "x"), c.open_session("b", "1", 1, "y")),
        c.configure({"policy": "lfu", "max_items": 900}),
    ]
    log = [c.encode_entry(now_ms, [c.encode_block(0, 0, 0, opening)])]
    numbers = {1: 1, 2: 1}
    for _ in range(length - 1):
        now_ms += random.choice([0, 1, 20, 300])
        if random.random() < 0.05:
            log.append(b"")
            continue
        if removals and random.random() < 0.05:
            log.append(random.choice([b"\xc1", b"damaged", b"\x93\x01\x02"]))
            continue
        blocks = [b"\xc1"] if random.random() < 0.05 else []
        for session in random.sample([0, 1, 2, 7], random.randrange(1, 4)):
            commands = [
                # Nothing is drawn for a share of nothing: the usual logs stay as they are.
                _removal(random, many) if removals and random.random() < removals else _command(random, many)
                for _ in range(random.randrange(1, 12))
            ]
            first = numbers.get(session, 1)
            # Now and then some are sent again, or some got lost before.
            start = max(1, first + (random.randrange(-3, 2) if random.random() < 0.2 else 0))
            blocks.append(c.encode_block(session, start, max(1, first - 3), commands))
            if session in numbers and start <= first:
                numbers[session] = max(first, start + len(commands))
        log.append(c.encode_entry(now_ms, blocks))
    return log


def _removal(random: Random, many: int) -> Any:
    chance = random.random()
    if chance < 0.4:
        return _many(random, many)
    if chance < 0.5:
        return c.batch(
            [_set(random, f"\x01{random.randrange(1, 3)}k{random.randrange(2 * many)}") for _ in range(many)]
        )
    if chance < 0.7:
        return _delete_prefix(random)
    if chance < 0.78:
        return random.choice([c.clear_all(), c.clear_database(0), c.clear_database(1), c.delete_prefix("\x011k")])
    return _configure(random)


def _many(random: Random, many: int) -> Any:
    """Enough for the bounds on removals to matter."""
    return c.batch([_set(random, f"m{random.randrange(2 * many)}") for _ in range(many)])


def _delete_prefix(random: Random) -> Any:
    return c.delete_prefix(random.choice(["", "k1", "m", "m2", "zz"]))


def _configure(random: Random) -> Any:
    limits = {"max_items": random.choice([None, None, 30, 900]), "max_bytes": random.choice([None, 4096, 200_000])}
    return c.configure({"policy": random.choice(["lru", "lfu"]), **limits})


def _command(random: Random, many: int) -> Any:
    chance = random.random()
    if chance < 0.015:
        return _many(random, many)
    if chance < 0.03:
        return _delete_prefix(random)
    if chance < 0.05:
        return _configure(random)
    if chance < 0.07:
        return c.idempotent(f"i{random.randrange(8)}", random.choice([c.incr("n", 1, 0), _set(random, "k1")]))
    if chance < 0.074:
        return c.open_scope("x")
    if chance < 0.085:
        number = random.randrange(1, 12)
        inner = random.choice([c.incr("n", 1, 0), _set(random, "k1"), c.batch([c.get("k1"), c.get("k2")])])
        return c.scoped(random.randrange(1, 4), "x", number, random.randrange(1, number + 1), inner)
    if chance < 0.09:
        return c.members(
            "cluster", [["a", "1", "h:1", "h:2", True, False], ["b", "1", "h:3", "h:4", random.random() < 0.5, False]]
        )
    if chance < 0.12:
        return c.recency([(f"k{random.randrange(60)}", random.randrange(1, 5)) for _ in range(20)])
    if chance < 0.16:
        return c.batch([_single(random) for _ in range(random.randrange(6))], atomic=random.random() < 0.7)
    if chance < 0.2:
        conditions = [(f"k{random.randrange(60)}", 0, 0) for _ in range(random.randrange(2))]
        guarded_ones = [_single(random) for _ in range(random.randrange(6))]
        guarded = c.guarded(conditions, guarded_ones, atomic=random.random() < 0.5)
        return guarded if random.random() < 0.8 else c.idempotent(f"g{random.randrange(8)}", guarded)
    if chance < 0.22:
        return random.choice([["nonsense"], None, [c.SET, "k"], (c.NOOP,)])
    return _single(random)


def _single(random: Random) -> c.Command:
    key = f"k{random.randrange(60)}"
    chance = random.random()
    if chance < 0.4:
        return _set(random, key)
    if chance < 0.44:
        data = random.choice([b"5", "ü".encode(), b"\xff", b"x" * 90])
        return c.append(key, data, front=random.random() < 0.5, create=random.random() < 0.5)
    if chance < 0.47:
        return c.count(random.choice(["n", key]), random.choice([1, 2**64 - 1, -4, 1 - 2**64]), 8, 200)
    if chance < 0.5:
        return c.expire(key, random.choice([0, 1, 90, 800]), random.choice([0, 1, 2, 4, 8, 6, 10]))
    if chance < 0.6:
        return c.incr("n" if random.random() < 0.7 else key, random.randrange(-9, 9), random.choice([None, 5]), 300)
    if chance < 0.7:
        return c.touch(key, random.choice([-1, 0, 1, 90, 800]))
    if chance < 0.8:
        return c.delete(key, random.choice([0, 0, 7]))
    # Nothing is drawn for these either.
    return _on_fields(Random(chance)) if chance < 0.87 else c.get(key)


def _on_fields(random: Random) -> c.Command:
    key = f"h{random.randrange(6)}"
    names = [random.choice([b"a", b"b", b"\xfe\x01", b""]) for _ in range(random.choice([1, 1, 2, 3]))]
    chance = random.random()
    if chance < 0.3:
        return c.count_field(key, names[0], random.randrange(-9, 9), 2000)
    kind = random.choice([3, 3, 3, 4])
    if chance < 0.6:
        return c.remove_fields(key, kind, names)
    data = random.choice([b"5", b"\xfe", b"x" * 90]) if kind == 3 else b""
    only_absent = kind == 3 and len(names) == 1 and random.random() < 0.3
    return c.set_fields(key, kind, [part for name in names for part in (name, data)], 2000, only_absent=only_absent)


def _set(random: Random, key: str) -> c.Command:
    when = random.choice([c.ALWAYS, c.ALWAYS, c.ALWAYS, c.IF_ABSENT, c.IF_PRESENT, c.IF_VERSION])
    meta = random.choice([None, None, 7, "text/plain"])
    data = random.choice([b"1", b"x" * random.randrange(300)])
    return c.set_(key, data, random.randrange(3), meta, random.choice([-1, 0, 5, 90, 2000]), when, random.randrange(99))
