"""`isthmus ipam pools`: where the cluster's blocks come from."""

from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_network
from operator import itemgetter
from pathlib import Path
from typing import Any

import click

from cli.answers import Columns, json_option, print_rows
from cli.cluster import WHOLE, cluster_options, need_cluster
from cli.install import Subnet
from ipam.cluster import Pool, PoolState, Purpose
from ipam.pools import DEFAULT_LENGTH, ONE_ADDRESS
from net.address import IPNetwork

_COLUMNS: Columns = {
    "POOL": itemgetter("name"),
    "CIDR": itemgetter("cidr"),
    "FOR": itemgetter("purpose"),
    "BLOCKS OF": lambda row: f"/{row['block_length']}",
    "STATE": itemgetter("state"),
    "ORDER": itemgetter("order"),
    "MASQUERADED": lambda row: "yes" if row["masquerade"] else "no",
    "WITH LABELS": lambda row: (
        ",".join(f"{key}={value}" for key, value in sorted(row["selector"].items())) or "any"
    ),
    "RESERVED": lambda row: " ".join(row["reservations"]),
    "BLOCKS": itemgetter("blocks"),
    "FREE": itemgetter("free"),
}


class Labels(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """One KEY=VALUE."""

    name = "key=value"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, str]:
        key, equals, text = str(value).partition("=")
        if not key or not equals:
            self.fail(f"{value!r}: give KEY=VALUE, as zone=east", param, ctx)
        return key, text


def _once(_ctx: click.Context, _param: Any, given: Sequence[tuple[str, str]]) -> dict[str, str]:
    if len(labels := dict(given)) != len(given):
        raise click.BadParameter("one label is given twice; all that are given must be there")
    return labels


def _labels(words: str) -> Callable[..., Any]:
    return click.option(
        "--label", "labels", type=Labels(), multiple=True, callback=_once, help=words
    )


def _masquerade(*, default: bool | None) -> Callable[..., Any]:
    return click.option(
        "--masquerade/--no-masquerade",
        default=default,
        help="Whether what its pods send out of the cluster gets the address of their node.",
    )


class _Pools(click.Group):
    """Without the name of a command they are listed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        is_option = bool(args) and args[0].startswith("-") and args[0] not in ctx.help_option_names
        return super().parse_args(ctx, ["list", *args] if not args or is_option else args)


@click.group(cls=_Pools)
def pools() -> None:
    """The cluster's pools: list (also without a command), create, change and delete them."""


@pools.command("list")
@cluster_options
@json_option
def list_(ipamd: str | None, identity: Path, as_json: bool) -> None:
    """Show the pools, and how many blocks are free."""
    rows = need_cluster(ipamd, identity).show("pools")
    empty = "No pool: isthmus ipam pools create NAME CIDR"
    print_rows(rows, _COLUMNS, as_json=as_json, empty=empty)


@pools.command()
@click.argument("name")
@click.argument("cidr", type=Subnet())
@click.option(
    "--for",
    "purpose",
    type=click.Choice([purpose.value for purpose in Purpose]),
    default=Purpose.PODS.value,
    show_default=True,
    help="Who gets addresses of it: pods, or Services of type LoadBalancer.",
)
@click.option("--block-length", type=WHOLE, help="Of one block; without it 26, or 122 for IPv6.")
@_labels("Only for nodes, or Services, with this label.")
@click.option(
    "--reserve", "reservations", type=Subnet(), multiple=True, help="Never given: once for each."
)
@click.option("--order", type=WHOLE, default=0, help="Pools of a lower one are asked first.")
@_masquerade(default=True)
@cluster_options
def create(  # noqa: PLR0913, PLR0917 - click passes each by its name
    name: str,
    cidr: IPNetwork,
    purpose: str,
    block_length: int | None,
    labels: Mapping[str, str],
    reservations: Sequence[IPNetwork],
    order: int,
    masquerade: bool,
    ipamd: str | None,
    identity: Path,
) -> None:
    """Make a pool: CIDR, cut into blocks; for Services each address is one."""
    usual = DEFAULT_LENGTH if purpose == Purpose.PODS else ONE_ADDRESS
    pool = Pool(
        name=name,
        cidr=cidr,
        purpose=Purpose(purpose),
        block_length=usual[cidr.version] if block_length is None else block_length,
        selector=labels,
        reservations=tuple(reservations),
        order=order,
        masquerade=masquerade,
    )
    from ipam.rpc import ipamd_pb2 as pb
    from ipam.wire import render

    request = pb.PutPoolRequest(pool=render(pb.PoolSpec, pool), create=True)
    need_cluster(ipamd, identity).ask("PutPool", request)
    parts = (
        "for load balancers" if purpose != Purpose.PODS else f"in blocks of /{pool.block_length}"
    )
    click.echo(f"pool {name}: {cidr} {parts}")


@pools.command("set")
@click.argument("name")
@click.option("--cidr", type=Subnet(), help="A wider network around the former: the pool grows.")
@click.option("--block-length", type=WHOLE, help="Of one block, while none is in use.")
@click.option("--state", type=click.Choice([state.value for state in PoolState]))
@click.option("--order", type=WHOLE)
@_labels("In place of all there were.")
@click.option("--no-labels", is_flag=True, help="For any node.")
@click.option("--reserve", "reservations", type=Subnet(), multiple=True, help="Likewise.")
@click.option("--no-reservations", is_flag=True)
@_masquerade(default=None)
@cluster_options
def set_(  # noqa: PLR0913, PLR0917 - click passes each by its name
    name: str,
    cidr: IPNetwork | None,
    block_length: int | None,
    state: str | None,
    order: int | None,
    labels: Mapping[str, str],
    no_labels: bool,
    reservations: Sequence[IPNetwork],
    no_reservations: bool,
    masquerade: bool | None,
    ipamd: str | None,
    identity: Path,
) -> None:
    """Change a pool; what is not said stays as it is, whoever else changes it meanwhile.

    A disabled pool gives no blocks, a draining one also wants those back that it gave.
    """
    if (labels and no_labels) or (reservations and no_reservations):
        raise click.UsageError("give new ones or none, not both")
    said: dict[str, Any] = {
        "cidr": cidr,
        "block_length": block_length,
        "state": PoolState(state) if state else None,
        "order": order,
        "selector": labels if labels or no_labels else None,
        "reservations": tuple(reservations) if reservations or no_reservations else None,
        "masquerade": masquerade,
    }
    changes = {field: value for field, value in said.items() if value is not None}
    if not changes:
        raise click.UsageError(
            "say what to change: --cidr, --block-length, --state, --order, --label, --reserve or "
            "--masquerade"
        )
    from ipam.rpc import ipamd_pb2 as pb

    request = pb.ChangePoolRequest(pool=_spec(name, changes), fields=list(changes))
    need_cluster(ipamd, identity).ask("ChangePool", request)
    click.echo(f"pool {name}: changed")


def _spec(name: str, changes: Mapping[str, Any]) -> Any:
    """A message that says *changes*; of its other fields nothing is read."""
    from ipam.rpc import ipamd_pb2 as pb
    from ipam.wire import render

    cidr = changes.get("cidr", ip_network("0.0.0.0/0"))
    usual = {"name": name, "cidr": cidr, "block_length": 0}
    return render(pb.PoolSpec, Pool(**(usual | dict(changes))))


@pools.command()
@click.argument("name")
@cluster_options
def delete(name: str, ipamd: str | None, identity: Path) -> None:
    """Delete a pool of which no node has a block."""
    from ipam.rpc import ipamd_pb2 as pb

    need_cluster(ipamd, identity).ask("DeletePool", pb.DeletePoolRequest(name=name))
    click.echo(f"pool {name}: deleted")
