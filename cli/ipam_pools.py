"""`isthmus ipam pools`: where the cluster's blocks come from."""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import click

from cli.answers import Problem, json_option, print_json, print_table
from cli.cluster import Cluster, cluster_options, need_cluster
from cli.install import Subnet
from ipam.cluster import Pool, PoolState
from net.address import IPNetwork

_BLOCK_LENGTH = {4: 26, 6: 122}
_COLUMNS = ("POOL", "CIDR", "BLOCKS OF", "STATE", "ORDER", "FOR NODES WITH", "BLOCKS", "FREE")


class Labels(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """One KEY=VALUE."""

    name = "key=value"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, str]:
        key, equals, text = str(value).partition("=")
        if not key or not equals:
            self.fail(f"{value!r}: give KEY=VALUE, as zone=east", param, ctx)
        return key, text


@click.group()
def pools() -> None:
    """The cluster's pools: list, create, change and delete them."""


@pools.command("list")
@cluster_options
@json_option
def list_(ipamd: str | None, identity: Path, as_json: bool) -> None:
    """Show the pools, and how many blocks are free."""
    rows = need_cluster(ipamd, identity).show("pools")
    if as_json:
        print_json(rows)
        return
    cells = [
        (
            row["name"],
            row["cidr"],
            f"/{row['block_length']}",
            row["state"],
            row["order"],
            ",".join(f"{key}={value}" for key, value in sorted(row["selector"].items())) or "any",
            row["blocks"],
            row["free"],
        )
        for row in rows
    ]
    print_table(_COLUMNS, cells, empty="No pool: isthmus ipam pools create NAME CIDR")


@pools.command()
@click.argument("name")
@click.argument("cidr", type=Subnet())
@click.option("--block-length", type=int, help="Of one block; without it 26, or 122 for IPv6.")
@click.option(
    "--label", "labels", type=Labels(), multiple=True, help="Only for nodes with this label."
)
@click.option(
    "--reserve", "reservations", type=Subnet(), multiple=True, help="Never given: once for each."
)
@click.option("--order", type=int, default=0, help="Pools of a lower one are asked first.")
@cluster_options
def create(  # noqa: PLR0913, PLR0917 - click passes each by its name
    name: str,
    cidr: IPNetwork,
    block_length: int | None,
    labels: Sequence[tuple[str, str]],
    reservations: Sequence[IPNetwork],
    order: int,
    ipamd: str | None,
    identity: Path,
) -> None:
    """Make a pool: CIDR, cut into blocks."""
    pool = Pool(
        name=name,
        cidr=cidr,
        block_length=_BLOCK_LENGTH[cidr.version] if block_length is None else block_length,
        selector=dict(labels),
        reservations=tuple(reservations),
        order=order,
    )
    _put(need_cluster(ipamd, identity), pool, create=True)
    click.echo(f"pool {name}: {cidr} in blocks of /{pool.block_length}")


@pools.command("set")
@click.argument("name")
@click.option("--cidr", type=Subnet(), help="A wider network around the former: the pool grows.")
@click.option("--state", type=click.Choice([state.value for state in PoolState]))
@click.option("--order", type=int)
@click.option("--label", "labels", type=Labels(), multiple=True, help="In place of all there were.")
@click.option("--no-labels", is_flag=True, help="For any node.")
@click.option("--reserve", "reservations", type=Subnet(), multiple=True, help="Likewise.")
@click.option("--no-reservations", is_flag=True)
@cluster_options
def set_(  # noqa: PLR0913, PLR0917 - click passes each by its name
    name: str,
    cidr: IPNetwork | None,
    state: str | None,
    order: int | None,
    labels: Sequence[tuple[str, str]],
    no_labels: bool,
    reservations: Sequence[IPNetwork],
    no_reservations: bool,
    ipamd: str | None,
    identity: Path,
) -> None:
    """Change a pool; what is not said stays as it is.

    A disabled pool gives no blocks, a draining one also wants those back that it gave.
    """
    if (labels and no_labels) or (reservations and no_reservations):
        raise click.UsageError("give new ones or none, not both")
    changes: dict[str, Any] = {}
    if cidr is not None:
        changes["cidr"] = cidr
    if state is not None:
        changes["state"] = PoolState(state)
    if order is not None:
        changes["order"] = order
    if labels or no_labels:
        changes["selector"] = dict(labels)
    if reservations or no_reservations:
        changes["reservations"] = tuple(reservations)
    if not changes:
        raise click.UsageError("say what to change: --cidr, --state, --order, --label, --reserve")
    cluster = need_cluster(ipamd, identity)
    _put(cluster, replace(_present(cluster, name), **changes), create=False)
    click.echo(f"pool {name}: changed")


@pools.command()
@click.argument("name")
@cluster_options
def delete(name: str, ipamd: str | None, identity: Path) -> None:
    """Delete a pool of which no node has a block."""
    from ipam.rpc import ipamd_pb2 as pb

    need_cluster(ipamd, identity).ask("DeletePool", pb.DeletePoolRequest(name=name))
    click.echo(f"pool {name}: deleted")


def _put(cluster: Cluster, pool: Pool, *, create: bool) -> None:
    from ipam.rpc import ipamd_pb2 as pb
    from ipam.wire import render

    request = pb.PutPoolRequest(pool=render(pb.PoolSpec, pool), create=create)
    cluster.ask("PutPool", request)


def _present(cluster: Cluster, name: str) -> Pool:
    rows = cluster.show("pools")
    row = next((row for row in rows if row["name"] == name), None)
    if row is None:
        known = ", ".join(row["name"] for row in rows) or "none"
        raise Problem(f"no pool {name!r}: there are {known}")
    return Pool(
        name=name,
        cidr=ip_network(row["cidr"]),
        block_length=row["block_length"],
        selector=row["selector"],
        reservations=tuple(map(ip_network, row["reservations"])),
        state=PoolState(row["state"]),
        order=row["order"],
    )
