"""`isthmus attachments`: which container has which address."""

import click

from cli.answers import json_option, print_json, print_table, socket_option, store_option
from cli.asking import Reading, read_attachments

_COLUMNS = ("NETWORK", "CONTAINER", "INTERFACE", "ADDRESSES", "STATE", "SANDBOX")


@click.command()
@click.option("--network", help="Only attachments of this network.")
@click.option("--no-trunc", is_flag=True, help="Container ids in full.")
@socket_option
@store_option
@json_option
def attachments(
    network: str | None, no_trunc: bool, socket: str, store: str, as_json: bool
) -> None:
    """List who has which address.

    From the agent, or from its store when it is away.
    """
    found = read_attachments(socket, store)
    show_attachments(found.only(network), as_json=as_json, whole=no_trunc)


def show_attachments(found: Reading, *, as_json: bool, whole: bool) -> None:
    """Print *found*; a container id is cut to 12 characters unless *whole*."""
    if as_json:
        print_json({"source": found.source, "attachments": list(found.attachments)})
        return
    rows = [
        (
            row["network"],
            row["container_id"] if whole else row["container_id"][:12],
            row["ifname"],
            " ".join(row["addresses"]),
            row["state"],
            row["sandbox"],
        )
        for row in found.attachments
    ]
    print_table(_COLUMNS, rows, empty="Nothing is attached.")
