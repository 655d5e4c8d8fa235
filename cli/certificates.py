"""`isthmus ipam certificates`: an authority of one's own, for small sites and demonstrations.

By openssl, which every host has.  A site with an authority signs the same names with it.
"""

import re
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import click

from cli.answers import Problem
from dataplane.programs import run

_DAYS = 365
_CA_DAYS = 3650
_NODE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


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
    for node in nodes:
        if not _NODE.fullmatch(node):
            raise click.BadParameter(f"{node!r} is no name of a node", param_hint="--node")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (directory / "ca.key").exists():
        _make_authority(directory)
    if hosts:
        names = ",".join(f"{_kind(host)}:{host}" for host in hosts)
        _sign(directory, "ipamd", names, "serverAuth", days)
    for node in nodes:
        _sign(directory, f"node-{node}", f"URI:isthmus:node:{node}", "clientAuth", days)
    if admin or not (directory / "admin.pem").exists():
        name = f"isthmus:admin:{admin}" if admin else "isthmus:admin"
        _sign(directory, "admin", f"URI:{name}", "clientAuth", days)


def _make_authority(directory: Path) -> None:
    _openssl(
        ["req", "-x509", *_KEY, "-days", str(_CA_DAYS), "-subj", "/CN=isthmus authority"],
        ["-addext", "basicConstraints=critical,CA:TRUE,pathlen:0"],
        ["-addext", "keyUsage=critical,keyCertSign,cRLSign"],
        ["-keyout", str(directory / "ca.key"), "-out", str(directory / "ca.pem")],
    )
    _tell(directory / "ca.pem")


def _sign(directory: Path, file: str, names: str, use: str, days: int) -> None:
    """Make key and certificate *file*, good for *names* (as openssl's subjectAltName)."""
    key, certificate, request, extensions = (
        directory / f"{file}.{suffix}" for suffix in ("key", "pem", "csr", "ext")
    )
    new_key = directory / f"{file}.key.new"
    try:
        _openssl(["req", *_KEY, "-subj", "/", "-keyout", str(new_key), "-out", str(request)])
        extensions.write_text(
            f"basicConstraints=critical,CA:FALSE\nextendedKeyUsage={use}\n"
            f"subjectAltName=critical,{names}\n"
        )
        _openssl(
            ["x509", "-req", "-days", str(days), "-in", str(request), "-extfile", str(extensions)],
            ["-CA", str(directory / "ca.pem"), "-CAkey", str(directory / "ca.key")],
            ["-CAcreateserial", "-out", str(certificate)],
        )
        new_key.rename(key)
    finally:
        for leftover in (request, extensions, new_key):
            leftover.unlink(missing_ok=True)
    _tell(certificate)


def _openssl(*words: Sequence[str]) -> None:
    """Run openssl with *words*.  Raises Problem with what it complained of."""
    done = run(["openssl", *(word for group in words for word in group)])
    if done.status:
        raise Problem(f"openssl {words[0][0]}: {done.complaint}")


def _kind(host: str) -> str:
    try:
        ip_address(host)
    except ValueError:
        if not _NODE.fullmatch(host):
            raise click.BadParameter(
                f"{host!r} is neither address nor host name", param_hint="--host"
            ) from None
        return "DNS"
    return "IP"


def _tell(path: Path) -> None:
    click.echo(f"made {path}")
