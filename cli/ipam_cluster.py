"""`isthmus ipam`, of a whole cluster: begin it, look at it, and take nodes out of it."""

from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import click

from cli.answers import Columns, json_option, print_json, print_rows, print_table
from cli.cluster import WHOLE, cluster_options, need_cluster
from cli.install import Subnet
from net.address import IPNetwork

_YES = {True: "yes", False: "no"}
_BLOCK: Columns = {
    "BLOCK": itemgetter("cidr"),
    "NODE": itemgetter("node"),
    "POOL": itemgetter("pool"),
    "STATE": itemgetter("state"),
    "EPOCH": itemgetter("epoch"),
}
_NODE: Columns = {
    "NODE": itemgetter("name"),
    "STATE": itemgetter("state"),
    "ALIVE": lambda row: "yes" if row["alive"] else "no",
    "EPOCH": itemgetter("epoch"),
    "ADDRESSES": lambda row: " ".join(row["addresses"]),
    "BLOCKS": lambda row: " ".join(row["blocks"]),
    "FENCED BY": itemgetter("fenced_by"),
}
_GIVEN: Columns = {
    "ADDRESS": itemgetter("address"),
    "POOL": itemgetter("pool"),
    "SERVICES": lambda row: " ".join(map(with_ports, row["services"].items())),
}
_LEASE: Columns = {
    "ADDRESSES": lambda row: " ".join(row["addresses"]),
    "POD": itemgetter("pod"),
    "NODE": itemgetter("node"),
    "NETWORK": itemgetter("network"),
    "CONTAINER": lambda row: row["container_id"][:12],
    "INTERFACE": itemgetter("ifname"),
}


@click.command()
@click.option("--if-new", is_flag=True, help="No error where it was done before.")
@click.option(
    "--recover",
    is_flag=True,
    help="After etcd was restored or lost: what the store has now is right, claims go on.",
)
@cluster_options
def init(if_new: bool, recover: bool, ipamd: str | None, identity: Path) -> None:
    """Begin a cluster: make its generation id, once.

    By it agents and ipamd notice an etcd that is not the one they knew.
    """
    from ipam.rpc import ipamd_pb2 as pb

    request = pb.InitRequest(if_new=if_new, recover=recover)
    answer = need_cluster(ipamd, identity).ask("Init", request)
    done = "recovered" if recover else "begun" if answer.made else "there already"
    click.echo(f"generation {answer.generation}: {done}")


@click.command()
@click.option("--node", help="Only of this node.")
@click.option("--pool", help="Only of this pool.")
@cluster_options
@json_option
def blocks(
    node: str | None, pool: str | None, ipamd: str | None, identity: Path, as_json: bool
) -> None:
    """Show which node has which block."""
    rows = [
        row
        for row in need_cluster(ipamd, identity).show("blocks")
        if node in (None, row["node"]) and pool in (None, row["pool"])
    ]
    print_rows(rows, _BLOCK, as_json=as_json, empty="No block is held.")


@click.command()
@cluster_options
@json_option
def nodes(ipamd: str | None, identity: Path, as_json: bool) -> None:
    """Show the nodes, and what they have."""
    rows = need_cluster(ipamd, identity).show("nodes")
    print_rows(rows, _NODE, as_json=as_json, empty="No node has registered.")


@click.command()
@cluster_options
@json_option
def services(ipamd: str | None, identity: Path, as_json: bool) -> None:
    """Show which Services of type LoadBalancer have which addresses."""
    rows = need_cluster(ipamd, identity).show("services")
    print_rows(rows, _GIVEN, as_json=as_json, empty="No Service has an address of a pool.")


@click.command()
@click.argument("pod", metavar="NAMESPACE/NAME")
@cluster_options
@json_option
def who(pod: str, ipamd: str | None, identity: Path, as_json: bool) -> None:
    """Show the addresses of a pod, and its node.

    From what nodes have told of their leases, which may lag behind by a second or an outage.
    """
    namespace, _, name = pod.partition("/")
    if not namespace or not name or "/" in name:
        raise click.BadParameter(
            f"{pod!r} names no pod: NAMESPACE/NAME is needed, as default/web-0",
            param_hint="NAMESPACE/NAME",
        )
    rows = need_cluster(ipamd, identity).show("pod", pod)
    print_leases(rows, as_json=as_json, empty=f"No node has told of a pod {pod}.")


@click.command()
@click.argument("node")
@click.option(
    "--fenced",
    is_flag=True,
    help="I assert that the machine is off, or cut off until it is shown as fenced no more.",
)
@click.option(
    "--wiped",
    is_flag=True,
    help="And that its state is gone: asked for where unconfirmed boots are allowed.",
)
@click.option("--undo", is_flag=True, help="The node stays: it gets blocks again.")
@click.option("--force", is_flag=True, help="Fence it though it is seen alive.")
@cluster_options
@json_option
def drain(  # noqa: PLR0913, PLR0917 - click passes each by its name
    node: str,
    fenced: bool,
    wiped: bool,
    undo: bool,
    force: bool,
    ipamd: str | None,
    identity: Path,
    as_json: bool,
) -> None:
    """Take a node's blocks back.

    Without --fenced the node gets no more and gives back what is empty.  With it its blocks go
    to others after a rest, and who said so is recorded: if the machine still runs and reaches
    others, addresses are held twice.
    """
    from ipam.rpc import ipamd_pb2 as pb

    if undo and (fenced or wiped or force):
        raise click.UsageError("--undo goes with none of --fenced, --wiped, --force")
    request = pb.DrainRequest(node=node, fenced=fenced, wiped=wiped, undo=undo, force=force)
    answer = need_cluster(ipamd, identity).ask("Drain", request)
    held = list(answer.blocks)
    if as_json:
        print_json({"node": node, "state": answer.state, "blocks": held})
        return
    click.echo(f"node {node}: {answer.state}, {' '.join(held) or 'no blocks'}")


@click.command()
@click.argument("node")
@click.argument("blocks", metavar="BLOCK...", type=Subnet(), nargs=-1, required=True)
@click.option("--undo", is_flag=True, help="Any node may have them, if NODE has not yet.")
@cluster_options
def pin(
    node: str, blocks: Sequence[IPNetwork], undo: bool, ipamd: str | None, identity: Path
) -> None:
    """Keep blocks for one node: it has them once it registers.

    As where its containers have addresses of them already, from another plugin.
    """
    from ipam.rpc import ipamd_pb2 as pb

    cluster = need_cluster(ipamd, identity)
    for block in blocks:
        cluster.ask("Pin", pb.PinRequest(node=node, cidr=str(block), undo=undo))
        click.echo(f"{block}: {'not pinned' if undo else f'pinned to {node}'}")


@click.command()
@click.option("--blocks-per-node", type=WHOLE, help="As many as one node may have.")
@click.option(
    "--node-deletion-fences/--no-node-deletion-fences",
    default=None,
    help="Whether a deleted Node object means that the machine is gone.",
)
@click.option(
    "--unconfirmed-boots/--no-unconfirmed-boots",
    default=None,
    help="Whether an agent may serve after a boot before ipamd confirmed its blocks.",
)
@click.option("--silence-s", type=float, help="After how long a silent node drains; 0: never.")
@click.option("--quarantine-s", type=float, help="For how long a block rests before it is freed.")
@click.option(
    "--cloud-controller/--no-cloud-controller",
    default=None,
    help="Whether another gives addresses to Services without a class.",
)
@cluster_options
@json_option
def settings(ipamd: str | None, identity: Path, as_json: bool, **given: Any) -> None:
    """Show the cluster's settings, or change those given."""
    from ipam.rpc import ipamd_pb2 as pb

    cluster = need_cluster(ipamd, identity)
    changes = {key: value for key, value in given.items() if value is not None}
    if changes:
        cluster.ask("PutSettings", pb.PutSettingsRequest(settings=pb.SettingsSpec(**changes)))
    present = cluster.show("settings")
    if as_json:
        print_json(present)
        return
    shown = {
        key: _YES[value] if isinstance(value, bool) else value for key, value in present.items()
    }
    print_table(("SETTING", "VALUE"), sorted(shown.items()), empty="")


def with_ports(given: tuple[str, list[str]]) -> str:
    """A Service, and what it answers at an address."""
    service, ports = given
    return f"{service} ({', '.join(ports)})"


def print_leases(rows: list[dict[str, Any]], *, as_json: bool = False, empty: str) -> None:
    """Leases as nodes told them."""
    print_rows(rows, _LEASE, as_json=as_json, empty=empty)
