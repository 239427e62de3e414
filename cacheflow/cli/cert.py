"""The command ``cacheflow cert``: a CA of one's own, and certificates of nodes that it signs.

Keys are P-256, which costs a handshake the least. A node's certificate is for servers and for clients, as nodes are both to one
another. Whoever has ``ca.key`` can make what members take for a member's certificate: that key belongs on none of the nodes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cacheflow.cli import texts
from cacheflow.errors import ConfigError

if TYPE_CHECKING:
    from types import ModuleType

CA_DAYS: Final = 3650
NODE_DAYS: Final = 365


@click.group()
def cert() -> None:
    """Make a CA and certificates of nodes. Needs the extra tls: pip install 'cacheflow[tls]'."""


@cert.command()
@click.option("--ca-dir", default=Path("ca"), show_default=True, type=texts.path, help="For ca.*.")
@click.option("--name", default="CacheFlow CA", show_default=True, help="What the CA is called.")
@click.option("--days", default=CA_DAYS, show_default=True, type=click.IntRange(1, 36500), help="How long it counts.")
def ca(ca_dir: Path, name: str, days: int) -> int:
    """Make a CA: ca.crt, which every node and client gets, and ca.key, which signs and stays here."""
    _signing().make_ca(ca_dir, name, days)
    click.echo(f"{ca_dir / 'ca.crt'}: for every node (--tls-ca) and client (--ca)")
    click.echo(f"{ca_dir / 'ca.key'}: signs certificates; keep it off the nodes")
    return 0


@cert.command()
@click.option("--ca-dir", default=Path("ca"), show_default=True, type=texts.path, help="The CA's.")
@click.option("--host", "hosts", multiple=True, required=True, metavar="HOST", help="Name or address; repeatable.")
@click.option("--out", type=texts.path, metavar="DIR", help="Where the files go; the CA's unless told.")
@click.option("--name", help="What the files are called; the first host unless told.")
@click.option("--days", default=NODE_DAYS, show_default=True, type=click.IntRange(1, 36500), help="How long it counts.")
def node(ca_dir: Path, hosts: tuple[str, ...], out: Path | None, name: str | None, days: int) -> int:
    """Make a certificate and key for the node that others reach under each --host.

    As --host give the host of the node's own flag --advertise (or --host), and each name that clients use for the node. A
    running node takes over a new certificate, written in the place of the old one, on SIGHUP.
    """
    certificate, key = _signing().make_node(ca_dir, hosts, out or ca_dir, name or hosts[0], days)
    click.echo(f"--tls-cert {certificate} --tls-key {key} --tls-ca {ca_dir / 'ca.crt'}")
    return 0


def _signing() -> ModuleType:
    """Return the module that makes certificates. Raises ConfigError that says what to install if a package is missing."""
    try:
        from cacheflow.cli import signing
    except ImportError:
        raise ConfigError(
            "certificates are made by the package cryptography, which is not installed: pip install 'cacheflow[tls]' "
            "(only here: nodes and clients work without it)"
        ) from None
    return signing
