"""`isthmus ipam`: addresses held, verified, and given back by hand.

Of this node; where ipamd is configured or named, of the whole cluster where that is asked.
"""

from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import click

from cli.answers import (
    Exit,
    Unreachable,
    json_option,
    leave,
    print_json,
    print_table,
    socket_option,
    store_option,
)
from cli.asking import ask_agent, read_attachments, read_check
from cli.attachments import show_attachments
from cli.cluster import Cluster, cluster_options, find_cluster, need_cluster

_USAGE = ("RANGES", "SIZE", "HELD", "COOLING", "FREE")


@click.command()
@click.argument("address", required=False)
@socket_option
@store_option
@cluster_options
@json_option
def show(  # noqa: PLR0917 - click passes each by its name
    address: str | None,
    socket: str,
    store: str,
    ipamd: str | None,
    identity: Path,
    as_json: bool,
) -> None:
    """Show who holds what, and how full ranges are.

    Of this node.  With ADDRESS only its holder, asked of the whole cluster where ipamd is
    configured or named.
    """
    if address and (cluster := find_cluster(ipamd, identity)):
        _show_in_cluster(cluster, address, as_json)
        return
    found = read_attachments(socket, store)
    if address:
        found = found.holding(address)
    usage = list(found.usage)
    if as_json:
        print_json({"source": found.source, "attachments": list(found.attachments), "usage": usage})
        return
    show_attachments(found, as_json=False, whole=False)
    if usage:
        click.echo()
        rows = [[row[column.lower()] for column in _USAGE] for row in usage]
        print_table(_USAGE, rows, empty="")


def _show_in_cluster(cluster: Cluster, address: str, as_json: bool) -> None:
    from cli.ipam_cluster import print_leases, with_ports

    answer = cluster.show("address", address)
    if as_json:
        print_json(answer)
        return
    if given := answer["given"]:
        click.echo(
            f"{address} of pool {given['pool']} is given to "
            f"{' and '.join(map(with_ports, given['services'].items()))}."
        )
        return
    if block := answer["block"]:
        click.echo(
            f"{address} is in block {block['cidr']} of pool {block['pool']}, "
            f"which node {block['node']} has ({block['state']}, epoch {block['epoch']})."
        )
    else:
        click.echo(f"{address} is in no block that a node has.")
    print_leases(answer["leases"], empty="No node has told of a holder.")


@click.command()
@click.option("--fix", is_flag=True, help="Mend what can be mended safely; says first what.")
@socket_option
@store_option
@cluster_options
@json_option
def check(  # noqa: PLR0917 - click passes each by its name
    fix: bool,
    socket: str,
    store: str,
    ipamd: str | None,
    identity: Path,
    as_json: bool,
) -> None:
    """Verify the addresses.

    None may be held twice, leaked, or missing where it should be.

    The agent compares its memory, its store, the links and the namespaces.  Without the agent
    only the store is looked at.  Where ipamd is configured or named, it compares pools, blocks,
    nodes and what they told of their leases, for the whole cluster.
    """
    from cli.cluster_check import check_cluster

    cluster = need_cluster(ipamd, identity) if fix else find_cluster(ipamd, identity)
    findings = check_cluster(cluster, fix=fix, quiet=as_json) if cluster else []
    try:
        source, problems = read_check(socket, store)
    except Unreachable:
        if cluster is None:
            raise
        source, problems = "ipamd", []  # an operator's machine is no node
    if as_json:
        found = {"source": source, "problems": problems}
        print_json(found | ({"findings": findings} if cluster else {}))
    else:
        for problem in problems:
            click.echo(problem)
        number = len(problems) + len(findings)
        what = "problem" if number == 1 else "problems"
        click.echo(f"{number} {what} found." if number else "No problem found.")
    leave(Exit.PROBLEM if problems or findings else Exit.FINE)


@click.command()
@click.argument("wanted", metavar="KEY|ADDRESS|BLOCK")
@click.option("--force", is_flag=True, help="Even though its sandbox is alive.")
@socket_option
@cluster_options
@json_option
def release(  # noqa: PLR0917 - click passes each by its name
    wanted: str,
    force: bool,
    socket: str,
    ipamd: str | None,
    identity: Path,
    as_json: bool,
) -> None:
    """Take an attachment down, free its addresses; or free a block.

    KEY is NETWORK/CONTAINER/INTERFACE, or a container id, which may be shortened as long as
    it is clear.  An attachment whose sandbox is alive is refused without --force: its
    container loses the network.

    BLOCK is ADDRESS/LENGTH, of the cluster: one whose node has handed it back or is fenced,
    without waiting for the end of its rest.
    """
    if not wanted.strip():
        raise click.BadParameter("give NETWORK/CONTAINER/INTERFACE, an address or a container id")
    if _is_block(wanted):
        from cli.cluster_check import release_block

        release_block(need_cluster(ipamd, identity), wanted)
        if as_json:
            print_json({"block": wanted})
        else:
            click.echo(f"released block {wanted}")
        return
    answer = ask_agent(socket, {"op": "ipam-release", "wanted": wanted, "force": force})
    released: dict[str, Any] = answer["released"]
    if as_json:
        print_json(released)
        return
    key = "/".join(released[part] for part in ("network", "container_id", "ifname"))
    click.echo(f"released {key}: {' '.join(released['addresses']) or 'it held no address'}")


def _is_block(wanted: str) -> bool:
    try:
        return "/" in wanted and ip_interface(wanted) is not None  # ipamd says of host bits
    except ValueError:
        return False
