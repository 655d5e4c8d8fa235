"""`isthmus ipam`: addresses held, verified, and given back by hand."""

from typing import Any

import click

from cli.answers import (
    Exit,
    json_option,
    leave,
    print_json,
    print_table,
    socket_option,
    store_option,
)
from cli.asking import ask_agent, read_attachments, read_check
from cli.attachments import show_attachments

_USAGE = ("RANGES", "SIZE", "HELD", "COOLING", "FREE")


@click.command()
@socket_option
@store_option
@json_option
def show(socket: str, store: str, as_json: bool) -> None:
    """Show who holds what, and how full ranges are."""
    found = read_attachments(socket, store)
    usage = list(found.usage)
    if as_json:
        print_json({"source": found.source, "attachments": list(found.attachments), "usage": usage})
        return
    show_attachments(found, as_json=False, whole=False)
    if usage:
        click.echo()
        rows = [[row[column.lower()] for column in _USAGE] for row in usage]
        print_table(_USAGE, rows, empty="")


@click.command()
@socket_option
@store_option
@json_option
def check(socket: str, store: str, as_json: bool) -> None:
    """Verify the addresses.

    None may be held twice, leaked, or missing where it should be.

    The agent compares its memory, its store, the links and the namespaces.  Without the agent
    only the store is looked at.
    """
    source, problems = read_check(socket, store)
    if as_json:
        print_json({"source": source, "problems": problems})
    else:
        for problem in problems:
            click.echo(problem)
        click.echo(f"{len(problems)} problems found" if problems else "No problem found.")
    leave(Exit.PROBLEM if problems else Exit.FINE)


@click.command()
@click.argument("wanted", metavar="KEY|ADDRESS")
@click.option("--force", is_flag=True, help="Even though its sandbox is alive.")
@socket_option
@json_option
def release(wanted: str, force: bool, socket: str, as_json: bool) -> None:
    """Take an attachment down, free its addresses.

    KEY is NETWORK/CONTAINER/INTERFACE, or the beginning of a container id.  An attachment
    whose sandbox is alive is refused without --force: its container loses the network.
    """
    if not wanted.strip():
        raise click.BadParameter("give NETWORK/CONTAINER/INTERFACE, an address or a container id")
    answer = ask_agent(socket, {"op": "ipam-release", "wanted": wanted, "force": force})
    released: dict[str, Any] = answer["released"]
    if as_json:
        print_json(released)
        return
    key = "/".join(released[part] for part in ("network", "container_id", "ifname"))
    click.echo(f"released {key}: {' '.join(released['addresses']) or 'it held no address'}")
