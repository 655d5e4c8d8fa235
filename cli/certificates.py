"""`isthmus ipam certificates`: an authority of one's own, for small sites and demonstrations.

A site with an authority signs the same names with it.
"""

import re
from collections.abc import Sequence
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.answers import Problem
from ipam.tls import ADMIN, NODE, BadCredentials, write_private

if TYPE_CHECKING:
    from ipam.signing import Issued, Signer

_DAYS = 365
_NODE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")


@click.group()
def certificates() -> None:
    """Certificates for ipamd, nodes and administrators."""


@certificates.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--node", "nodes", multiple=True, help="Name of a node; once for each.")
@click.option("--host", "hosts", multiple=True, help="Where ipamd is reached; once for each.")
@click.option("--admin", help="Whose name is recorded for what an administrator does.")
@click.option("--days", type=click.IntRange(1, 36500), default=_DAYS, show_default=True)
def make(
    directory: Path, nodes: Sequence[str], hosts: Sequence[str], admin: str | None, days: int
) -> None:
    """Make an authority in DIRECTORY, and what it signs.

    ca.pem goes everywhere.  ipamd.pem and ipamd.key go to ipamd, node-NAME.pem and node-NAME.key
    to that node, admin.pem and admin.key stay with you, ca.key stays here.  What is there
    already is kept, but for certificates that are made anew when asked for again.
    """
    _check(nodes, hosts)
    from ipam.signing import now

    life = timedelta(days=days)
    try:
        signer = _signer(directory)
        if hosts:
            _put(directory, "ipamd", signer.server(hosts, now=now(), life=life))
        for node in nodes:
            _put(directory, f"node-{node}", signer.client(f"{NODE}{node}", now=now(), life=life))
        if admin or not (directory / "admin.pem").exists():
            name = f"{ADMIN}:{admin}" if admin else ADMIN
            _put(directory, "admin", signer.client(name, now=now(), life=life))
    except (BadCredentials, OSError) as exc:
        raise Problem(str(exc)) from exc


def _signer(directory: Path) -> "Signer":
    """The authority in *directory*, made where there is none.  Raises BadCredentials, OSError."""
    from ipam.signing import Signer, make_authority, now

    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (directory / "ca.key").exists():
        _put(directory, "ca", make_authority(now()))
    return Signer.load(directory / "ca.pem", directory / "ca.key")


@certificates.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--member", "members", multiple=True, required=True, help="Address of one; once for each."
)
@click.option("--days", type=click.IntRange(1, 36500), default=_DAYS, show_default=True)
def etcd(directory: Path, members: Sequence[str], days: int) -> None:
    """Make an authority in DIRECTORY for members of an etcd, and for ipamd as their client.

    member.pem and member.key go to every member, client.pem and client.key to ipamd, ca.pem to
    both.  Both are made anew when asked for again.
    """
    _check((), members)
    from ipam.signing import now

    life = timedelta(days=days)
    try:
        signer = _signer(directory)
        _put(directory, "member", signer.member(members, now=now(), life=life))
        _put(directory, "client", signer.client("isthmus:ipamd", now=now(), life=life))
    except (BadCredentials, OSError) as exc:
        raise Problem(str(exc)) from exc


@certificates.command()
def request() -> None:
    """Print a new key, and a request for a certificate of it, for whoever signs.

    The certificate has to name its holder: as URI isthmus:node:NAME, or isthmus:admin.
    """
    from ipam.signing import make_request

    made = make_request()
    click.echo(made.key + made.certificate, nl=False)


def _put(directory: Path, file: str, issued: "Issued") -> None:
    write_private(directory / f"{file}.key", issued.key)
    write_private(directory / f"{file}.pem", issued.certificate)
    (directory / f"{file}.pem").chmod(0o644)
    click.echo(f"made {directory / file}.pem")


def _check(nodes: Sequence[str], hosts: Sequence[str]) -> None:
    for node in nodes:
        if not _NODE.fullmatch(node):
            raise click.BadParameter(f"{node!r} is no name of a node", param_hint="--node")
    for host in hosts:
        if not (_NODE.fullmatch(host) or _is_address(host)):
            raise click.BadParameter(
                f"{host!r} is neither address nor host name", param_hint="--host"
            )


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
