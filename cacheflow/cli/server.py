"""The server process: it builds a node with its HTTP front from a NodeConfig, runs it, and ends it cleanly.

SIGHUP has it read renewed files again (``reloading.py``). systemd is told how the node is (``notifying.py``).
SIGTERM and SIGINT end it in order (``ending.py``): readiness goes first, a leader hands leadership over, the ports are closed
when running requests have ended, then the files. A disk that hangs does not keep the process.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import queue
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from cacheflow.access.roles import Role
from cacheflow.access.users import Access
from cacheflow.cli.ending import end
from cacheflow.cli.logs.server_log import ServerLog
from cacheflow.cli.notifying import Notifier
from cacheflow.cli.reloading import Reload, reload_all
from cacheflow.config import NodeConfig, build_version, join_address, join_token, read_secret
from cacheflow.errors import BadBackup, ConfigError
from cacheflow.files.backup import verified
from cacheflow.rest import (
    TLS_ONLY,
    Doors,
    HttpServer,
    RestConfig,
    Uploads,
    Watches,
    at_once,
    body_bytes_max,
    create_app,
    may,
    turn_away,
)
from cacheflow.rest.watches import WATCHES_MAX
from cacheflow.store import ReplicatedStore
from cacheflow.wire.memcached.connection import memcached_port
from cacheflow.wire.port import WirePort, connections_allowed
from cacheflow.wire.resp.service import resp_port

logger = logging.getLogger(__name__)

# The exit code of a start that is refused; the command line has the same for wrong usage.
REFUSED = 2
# The garbage collector's passes over its middle generation before a full pass, instead of ten: then one comes every few
# minutes under full load.
FULL_PASS_AFTER = 1000


def run(config: NodeConfig) -> int:
    """Serve a node until SIGTERM or SIGINT; return the process's exit code.

    Raises ConfigError before anything is served, or logs it, where everything on stderr is to be JSON.
    """
    with ServerLog(config) as log:
        try:
            return _serve(config, log)
        except ConfigError as error:
            if config.log_format != "json":
                raise
            logger.critical("%s", error)
            return REFUSED


def _serve(config: NodeConfig, log: ServerLog) -> int:
    # The signals that came, in order. (A queue of this kind may be filled from a signal handler.)
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, lambda number, _: signals.put(number))
    # Nothing else runs in this process.
    store = ReplicatedStore(replace(config, collect_garbage=True))
    log.follow(store.position)
    notifier = Notifier.of(store, os.environ)
    if config.restore is not None:
        _check_backup(config.restore)
    access = Access.of(config)
    secret = read_secret(config.cluster_secret_file, "cluster-secret-file")
    rest = RestConfig(
        access=access,
        join_token=None if secret is None else join_token(secret),
        threads=config.http_threads,
    )
    handshakes = store.handshakes
    reloads: list[Reload] = []
    if handshakes is not None:
        reloads.append(handshakes.certificates.reload)
    if config.leaves_plain:
        logger.warning("what leaves this machine is not all encrypted: %s", _how_to_encrypt(config))
    # The port is taken before the node tells anybody that it lives there.
    app = create_app(store, rest)
    http = HttpServer(
        app,
        config.host,
        config.port,
        threads=rest.threads,
        taken_over_max=WATCHES_MAX,
        body_bytes_max=body_bytes_max(store.value_bytes_max),
        refusal_headers=app.services.raft_headers,
        turn_away=functools.partial(turn_away, app.services),
        at_once=at_once,
        unsent=store.unsent,
        unfinished=store.unfinished,
        doors=Doors(
            None if access is not None else [config.host, config.advertise or config.host, *config.allow_host],
            config.allow_origin,
        ),
        uploads=Uploads(lambda shown: may(access, shown, Role.ADMIN), store.backups.new_file, store.backups.room),
        secure=None if handshakes is None else handshakes.secure("http", TLS_ONLY),
        note=app.services.times.note,
    )
    store.on_value_limit(lambda value_bytes_max: http.limit_bodies(body_bytes_max(value_bytes_max)))
    address = join_address(config.advertise or config.host, http.port)
    if handshakes is not None:
        address = f"https://{address}"
    try:
        logger.info("CacheFlow %s begins, with its data in %s", build_version(), config.data_dir)
        store.start(address)
        if config.restore is not None:
            # Before anybody is served: so nobody sees a cache that is not complete.
            store.backups.begin_with(config.restore)
        ports = _serve_wires(store, config, access)
        http.start()
        _freeze_what_stays(store)
        if access is not None:
            reloads.append(functools.partial(_read_users_again, store, access, [*ports, app.watches]))
        logger.info("listening on %s", address if "//" in address else f"http://{address}")

        def each_second() -> None:
            notifier.look()
            app.history.look()
            log.look()

        while _next_signal(signals, each_second) == signal.SIGHUP:
            reload_all(reloads)
        notifier.stopping()
        end(store, http, config, signals)
    finally:
        _close(store, log)
    logger.info("ended in order")
    return 0


def _check_backup(path: Path) -> None:
    """Raise ConfigError unless the file ``path`` is a whole backup, with which a new cluster is to begin."""
    try:
        with path.open("rb") as file:
            verified(file)
    except (OSError, BadBackup) as error:
        raise ConfigError(f"restore = {str(path)!r}: {error}") from None


def _next_signal(signals: queue.SimpleQueue[int], each_second: Callable[[], None]) -> int:
    """Wait for the next signal to this process, and return its number; call ``each_second`` once a second meanwhile."""
    while True:
        each_second()
        # Another thread may be the one that a signal interrupts: then the handler runs when this one looks again.
        with contextlib.suppress(queue.Empty):
            return signals.get(timeout=1.0)


def _how_to_encrypt(config: NodeConfig) -> str:
    if config.tls_ca is not None:
        return "give every node --tls-cert, --tls-key and --tls-ca, and then --peer-tls require"
    return "give --tls-cert, --tls-key and --tls-ca (see cacheflow cert), or put a VPN under it"


def _close(store: ReplicatedStore, log: ServerLog) -> None:
    """Close ``store``, which ends its node; if the disk hangs, end the process without waiting for the disk.

    Nothing that was promised to clients is lost by that.
    """

    # Whether it leaves was decided before its ports were closed.
    if not store.close(leave=False):
        logger.error("the disk does not answer: this process ends without its last flush")
        log.flush()
        os._exit(1)


def _freeze_what_stays(store: ReplicatedStore) -> None:
    """Let the garbage collector never look at the objects that exist now, and seldom make full passes.

    A full pass goes through all objects, also the dictionary of a million cache entries, and stops the node for up to 0.2 s.
    Objects that exist now and the items are never looked at again, later ones seldom. So objects that are large, or that often
    come and go, must not be in a reference cycle: state machines and connections are not, and tests check that. The collector
    belongs to the process, so an embedded store leaves it alone.
    """
    store.freeze_what_is_there()
    gc.set_threshold(*gc.get_threshold()[:2], FULL_PASS_AFTER)


def _read_users_again(store: ReplicatedStore, access: Access, ports: Sequence[WirePort | Watches]) -> None:
    """Read the users and their roles from the files again; close the connections of users who were removed or changed."""
    if access.reload():
        for port in ports:
            store.on_loop(port.recheck)


def _serve_wires(store: ReplicatedStore, config: NodeConfig, access: Access | None) -> list[WirePort]:
    """Serve the wire protocols that the configuration names, on the node's own event loop, until ``store`` is closed.

    Returns the served ports, one object for each wire protocol."""
    serve_resp = functools.partial(resp_port, notify=config.notify_keyspace_events or "")
    wires: dict[Callable[..., WirePort], int | None] = {
        memcached_port: config.memcached_port,
        serve_resp: config.resp_port,
    }
    told = {make: port for make, port in wires.items() if port is not None}
    ports: list[WirePort] = []
    for make, port in told.items():
        service = make(
            store,
            value_bytes_max=store.value_bytes_max,
            access=access,
            connections_max=connections_allowed(len(told)),
            slices=store.slices,
        )
        bound = store.serve(service, config.host, port)
        ports.append(service)
        logger.info("%s protocol on %s", service.name, join_address(config.host, bound))
    return ports
