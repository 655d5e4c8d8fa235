"""`isthmus ipam begin`: what a cluster of Kubernetes needs once, as a Job of its manifest does it.

    authority    Secret and ConfigMap isthmus-ca, by which ipamd, nodes and operators are known
    generation   made by ipamd, and recorded in ConfigMap isthmus-cluster
    pools        those that are asked for and not there; first, blocks that nodes of another network
                 have already are pinned to these

Pools that overlap the cluster's nodes or Services are refused, before anything begins.
Done again it changes nothing.  Where a generation is recorded and ipamd's etcd has none, it is
refused: that etcd was emptied or is another one, and would give away addresses that are in use.
"""

import asyncio
import base64
import os
import tempfile
import threading
from collections.abc import Sequence
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.answers import Problem, Unreachable
from cli.cluster import Cluster
from cli.manifest_access import CA, RECORD
from cli.manifest_site import IPAMD_PORT, NAMESPACE
from ipam.cluster import Pool
from net.settings import endpoints

if TYPE_CHECKING:
    from cli.pins import InUse
    from ipam.signing import Issued
    from kube.client import Client

_TRIES, _PAUSE_S = 480, 0.25
_LIFE = timedelta(hours=1)
_NAME = "isthmus:admin:begin"


class PoolOption(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """One NAME=CIDR:LENGTH."""

    name = "name=cidr:length"

    def convert(self, value: Any, param: Any, ctx: Any) -> Pool:
        name, _, rest = str(value).partition("=")
        cidr, _, length = rest.rpartition(":")
        try:
            return Pool(name=name, cidr=ip_network(cidr), block_length=int(length))
        except ValueError:
            self.fail(f"{value!r}: give NAME=CIDR:LENGTH, as ipv4=10.244.0.0/16:24", param, ctx)


@click.command()
@click.option("--pool", "pools", type=PoolOption(), multiple=True, help="Made where not there.")
@click.option("--api-server", default="", help="The API server's URL; without it:")
@click.option(
    "--api-server-from",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A kubeconfig file, of which the address alone is read.",
)
@click.option("--namespace", default=NAMESPACE, show_default=True)
@click.option("--ipamd", default=f"127.0.0.1:{IPAMD_PORT}", show_default=True)
def begin(
    pools: Sequence[Pool],
    api_server: str,
    api_server_from: Path | None,
    namespace: str,
    ipamd: str,
) -> None:
    """Begin the addresses of a Kubernetes cluster: authority, generation, pools.

    To be run in a pod, as a service account that may create Secrets and ConfigMaps in the
    namespace.  Done again it changes nothing.
    """
    # Before gRPC is loaded: its C core would write beside our messages.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from kube.client import Client
    from kube.config import ServerConfig
    from kube.errors import KubeError

    async def run() -> None:
        server = ServerConfig(address=api_server, address_from=api_server_from)
        record = Record(Client(server.access()), namespace)
        try:
            authority = await record.authority()
            known = await record.generation()
            if not known:
                await record.check(pools)
            used = await record.in_use()
            with tempfile.TemporaryDirectory() as directory:
                identify(Path(directory), authority)
                cluster = Cluster(endpoints([ipamd]), Path(directory))
                begun = await asyncio.to_thread(begin_cluster, cluster, known, pools, used)
            if not known:
                await record.keep(begun)
        finally:
            record.close()

    try:
        asyncio.run(run())
    except KubeError as exc:
        raise Problem(str(exc)) from exc


class Record:
    """What the API server keeps of the cluster, in *namespace*.  Methods raise KubeError."""

    def __init__(self, client: "Client", namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    def close(self) -> None:
        self._client.close()

    async def authority(self) -> "Issued":
        """The authority that is recorded; made, and told to all, where there is none."""
        from ipam.signing import Issued, make_authority, now

        made = make_authority(now())
        wanted = {"ca.pem": _encoded(made.certificate), "ca.key": _encoded(made.key)}
        found = await self._ensure("secrets", CA, wanted)
        issued = Issued(*(base64.b64decode(found[key]) for key in ("ca.pem", "ca.key")))
        await self._ensure("configmaps", CA, {"ca.pem": issued.certificate.decode()})
        return issued

    async def generation(self) -> str:
        """The one recorded, or ""."""
        from kube.errors import NotFound

        try:
            return str((await self._data("configmaps", RECORD)).get("generation", ""))
        except NotFound:
            return ""

    async def check(self, pools: Sequence[Pool]) -> None:
        """Raise Problem where *pools* have addresses that nodes or Services have."""
        from cli.overlap import overlaps, used

        if wrong := overlaps(pools, await used(self._client)):
            raise Problem("\n".join(wrong))

    async def in_use(self) -> "Sequence[InUse]":
        """What nodes of another network have already."""
        from cli.pins import in_use

        return await in_use(self._client)

    async def keep(self, generation: str) -> None:
        await self._ensure("configmaps", RECORD, {"generation": generation})

    async def _ensure(self, what: str, name: str, data: dict[str, str]) -> dict[str, str]:
        """The object's data, which are *data* where it was not there."""
        from kube.errors import Conflict

        kind = {"secrets": "Secret", "configmaps": "ConfigMap"}[what]
        body = {
            "apiVersion": "v1",
            "kind": kind,
            "metadata": {"name": name, "namespace": self._namespace},
            "data": data,
        }
        try:
            await self._client.create(self._path(what), body, dict[str, Any])
        except Conflict:
            return await self._data(what, name)
        click.echo(f"{kind} {name}: made")
        return data

    async def _data(self, what: str, name: str) -> dict[str, str]:
        found = await self._client.get(f"{self._path(what)}/{name}", dict[str, Any])
        return dict(found.get("data") or {})

    def _path(self, what: str) -> str:
        return f"/api/v1/namespaces/{self._namespace}/{what}"


def identify(directory: Path, authority: "Issued") -> None:
    """Write an administrator's identity for the next hour."""
    from ipam.signing import Signer, now
    from ipam.tls import write_private

    certificate, key = directory / "ca.pem", directory / "ca.key"
    write_private(certificate, authority.certificate)
    write_private(key, authority.key)
    own = Signer.load(certificate, key).client(_NAME, now=now(), life=_LIFE)
    key.unlink()
    write_private(directory / "admin.pem", own.certificate)
    write_private(directory / "admin.key", own.key)


def begin_cluster(
    cluster: Cluster, known: str, pools: Sequence[Pool], used: "Sequence[InUse]" = ()
) -> str:
    """Make generation and pools once ipamd answers; returns the generation.

    *known* is the generation that is recorded, or "".  What is *used* of a pool is pinned before
    there is the pool, so that no other node is ever given it.  Raises Problem, Unreachable.
    """
    from cli.pins import pins
    from ipam.rpc import ipamd_pb2 as pb
    from ipam.wire import render

    present = _answered(cluster)
    if known and not present:
        raise Problem(
            f"generation {known} is recorded (ConfigMap {RECORD}), and etcd has none: it was "
            "emptied, or is another one. Restore it from a snapshot; or, if no pod has an address "
            f"any more, delete ConfigMap {RECORD}"
        )
    answer = cluster.ask("Init", pb.InitRequest(if_new=True))
    click.echo(f"generation {answer.generation}: {'begun' if answer.made else 'there already'}")
    names = {row["name"] for row in cluster.show("pools")}
    for pool in pools:
        if pool.name in names:
            click.echo(f"pool {pool.name}: there already")
            continue
        for block, node in pins(pool, used).items():
            cluster.ask("Pin", pb.PinRequest(node=node, cidr=str(block), pool=pool.name))
            click.echo(f"block {block}: node {node} has it already")
        cluster.ask("PutPool", pb.PutPoolRequest(pool=render(pb.PoolSpec, pool), create=True))
        click.echo(f"pool {pool.name}: {pool.cidr} in blocks of /{pool.block_length}")
    return str(answer.generation)


def _answered(cluster: Cluster) -> str:
    """The generation that ipamd shows, once it answers.  Raises Unreachable."""
    for tries_left in range(_TRIES, 0, -1):
        try:
            return str(cluster.show("generation"))
        except Unreachable:
            if tries_left == 1:
                raise
            threading.Event().wait(_PAUSE_S)
    raise AssertionError("unreachable")


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
