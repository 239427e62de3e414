#!/usr/bin/env python3
"""Database queries cached in a cluster: SQLAlchemy with a region of dogpile.cache, as in SQLAlchemy's own example.

Three nodes, a database, and threads that all want the result of one slow query at the same moment, through all three nodes.
Shown is: the database is asked once; while a node is killed it is not asked again, and nobody gets an error; after an
invalidation it is asked once more. Exit code 1 if anything was otherwise.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dogpile.cache import CacheRegion, make_region, register_backend
from sqlalchemy import create_engine, event, select
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    ORMExecuteState,
    Session,
    UserDefinedOption,
    mapped_column,
    sessionmaker,
)

from cacheflow.cli.launcher import LocalCluster

# As the entry point of an installed CacheFlow does.
register_backend("cacheflow", "cacheflow.integrations.dogpile", "CacheFlowBackend")  # type: ignore[no-untyped-call]


class Base(DeclarativeBase):
    """The tables of this example."""


class Book(Base):
    """One book of a shop."""

    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    price: Mapped[int]


class FromCache(UserDefinedOption):
    """An option of a statement: its result comes from the region, and is fetched when it is not there."""

    propagate_to_loaders = False

    def key_of(self, statement: Any) -> str:
        """Return the cache key of a statement with its parameters."""
        return f"query:{statement.compile(compile_kwargs={'literal_binds': True})}"


def sessions(engine: Any, region: CacheRegion) -> sessionmaker[Session]:
    """Return a maker of sessions that cache in ``region`` what has the option FromCache."""
    maker = sessionmaker(engine)

    def execute(state: ORMExecuteState) -> Any:
        option = next((each for each in state.user_defined_options if isinstance(each, FromCache)), None)
        if option is None:
            return None
        frozen = region.get_or_create(option.key_of(state.statement), lambda: state.invoke_statement().freeze())
        return frozen()

    event.listen(maker, "do_orm_execute", execute)
    return maker


CHEAP = select(Book).where(Book.price < 5).order_by(Book.title)


class Shop:
    """A database that counts its queries and takes a while for each."""

    def __init__(self, folder: Path, query_s: float) -> None:
        self.engine = create_engine(f"sqlite:///{folder / 'shop.db'}")
        Base.metadata.create_all(self.engine)
        with Session(self.engine) as session:
            session.add_all(Book(title=f"Book {number:03}", price=number % 50) for number in range(500))
            session.commit()
        self.queries = 0

        @event.listens_for(self.engine, "before_cursor_execute")
        def count(*_: Any) -> None:
            self.queries += 1
            time.sleep(query_s)

    def asked(self) -> int:
        """Return how many queries there were since the last call."""
        queries, self.queries = self.queries, 0
        return queries


def together(threads: int, work: Callable[[int], None]) -> list[BaseException]:
    """Run ``work`` in that many threads, from one moment on; return what they have raised."""
    raised: list[BaseException] = []
    gate = threading.Barrier(threads)

    def run(number: int) -> None:
        gate.wait()
        try:
            work(number)
        except BaseException as error:
            raised.append(error)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return raised


@contextmanager
def cluster(folder: Path) -> Iterator[LocalCluster]:
    """Three nodes on this machine, ready."""
    with LocalCluster(3, folder, say=lambda _: None) as nodes:
        nodes.start()
        nodes.wait_ready()
        yield nodes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=100, help="that want the result at the same moment")
    parser.add_argument("--query-seconds", type=float, default=0.5, help="that the database takes for a query")
    parser.add_argument("--seconds", type=float, default=5.0, help="of reading while a node is killed")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder)) as nodes:
        shop = Shop(Path(folder), given.query_seconds)
        # A region for each node, as three processes have them.
        regions = [
            make_region().configure(
                "cacheflow",
                expiration_time=3600,
                arguments={"urls": [url, *nodes.urls], "distributed_lock": True, "lock_timeout": 30},
            )
            for url in nodes.urls
        ]
        makers = [sessions(shop.engine, region) for region in regions]
        lengths: set[int] = set()

        def read(number: int) -> None:
            with makers[number % 3]() as session:
                lengths.add(len(session.scalars(CHEAP.options(FromCache())).all()))

        began = time.monotonic()
        shop.asked()
        raised = together(given.threads, read)
        first = shop.asked()
        print(f"{given.threads} threads through 3 nodes: {first} query, in {time.monotonic() - began:.1f} s")

        reads = [0] * given.threads
        ends = time.monotonic() + given.seconds

        def read_on(number: int) -> None:
            while time.monotonic() < ends:
                read(number)
                reads[number] += 1
                time.sleep(0.05)

        killer = threading.Timer(given.seconds / 4, lambda: nodes.kill(nodes.leader() or nodes.children[0]))
        killer.start()
        raised += together(given.threads, read_on)
        killer.join()
        meanwhile = shop.asked()
        print(
            f"the leader killed: {sum(reads)} results in {given.seconds:g} s, {meanwhile} queries, {len(raised)} errors"
        )

        living = next(region for region, child in zip(regions, nodes.children, strict=True) if child.alive)
        living.delete(FromCache().key_of(CHEAP))
        raised += together(given.threads, read)
        again = shop.asked()
        print(f"invalidated: {again} query, {len(raised)} errors")
        for error in raised[:3]:
            print(f"    {type(error).__name__}: {error}")
    good = (first, meanwhile, again) == (1, 0, 1) and not raised and lengths == {50} and sum(reads) > given.threads
    print("as promised" if good else "NOT as promised")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
