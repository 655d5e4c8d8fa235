"""`isthmus attachments`: which container has which address."""

from typing import Any

import click

from cli.answers import json_option, print_json, print_table, socket_option, store_option
from cli.asking import Reading, read_attachments

_COLUMNS = {
    "network": "NETWORK",
    "container_id": "CONTAINER",
    "ifname": "INTERFACE",
    "addresses": "ADDRESSES",
    "state": "STATE",
    "pod": "POD",
    "host_side": "HOST SIDE",
    "sandbox": "SANDBOX",
}
_SHORT = 12  # characters of a container id, as runtimes show it


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
    """Print *found*; container ids are cut unless *whole*."""
    if as_json:
        print_json({"source": found.source, "attachments": list(found.attachments)})
        return
    # A column that is empty in every row says nothing: there are no pods without Kubernetes.
    keys = [key for key in _COLUMNS if any(row.get(key) for row in found.attachments)]
    rows = [[_cell(row, key, whole=whole) for key in keys] for row in found.attachments]
    print_table([_COLUMNS[key] for key in keys], rows, empty="Nothing is attached.")


def _cell(row: dict[str, Any], key: str, *, whole: bool) -> str:
    value = row.get(key, "")
    if key == "container_id" and not whole:
        return str(value)[:_SHORT]
    return " ".join(value) if isinstance(value, list) else str(value)
