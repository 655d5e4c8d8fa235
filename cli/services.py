"""`isthmus services`: which Services this node translates, to whom, and what differs."""

from typing import Any

import click

from cli.answers import Exit, json_option, leave, print_json, print_table, socket_option
from cli.asking import ask_agent

_SHOWN = 3


@click.command()
@click.argument("name", required=False, default="")
@socket_option
@json_option
def services(name: str, socket: str, as_json: bool) -> None:
    """Show the Services that this node translates, or those called NAME (or NAMESPACE/NAME).

    What is planned is compared with the kernel.  Exit status 1 when something differs, or cannot
    be used.
    """
    found = ask_agent(socket, {"op": "services", "wanted": name})["services"]
    if as_json:
        print_json(found)
    else:
        print_table(
            ("SERVICE", "FRONTEND", "ENDPOINTS", "POLICY", "STATE"),
            [row for service in found for row in rows(service, whole=bool(name))],
            empty="This node translates no Services.",
        )
        for service in found:
            for line in remarks(service):
                click.echo(line)
    fine = all(each["programmed"] and not each["problems"] for each in found)
    leave(Exit.FINE if fine else Exit.PROBLEM)


def rows(service: dict[str, Any], *, whole: bool) -> list[tuple[str, str, str, str, str]]:
    """A line for each frontend; *whole*: with every endpoint."""
    state = "programmed" if service["programmed"] else "DIFFERS"
    return [
        (service["name"], one["at"], _endpoints(one, whole=whole), policy(service), state)
        for one in service["frontends"]
    ] or [(service["name"], "none is its own", "", policy(service), state)]


def policy(service: dict[str, Any]) -> str:
    """What is not as usual."""
    words = []
    for side in ("internal", "external"):
        if service[f"{side}_policy"] != "Cluster":
            words.append(f"{side} {service[f'{side}_policy']}")
    if service["affinity_s"]:
        words.append(f"affinity {service['affinity_s']} s")
    if service["source_ranges"]:
        words.append(f"from {' '.join(service['source_ranges'])}")
    if port := service["health_check_node_port"]:
        words.append(f"health check {port}")
    return ", ".join(words)


def remarks(service: dict[str, Any]) -> list[str]:
    """What is wrong with it, a line each."""
    lacking = [f"the kernel lacks {each}" for each in service["differing"]]
    return [f"{service['name']}: {each}" for each in (*service["problems"], *lacking)]


def _endpoints(frontend: dict[str, Any], *, whole: bool) -> str:
    every, local = frontend["endpoints"], frontend["local"]
    text = _some(every, whole=whole) or ("" if local else "none: refused")
    return f"{text}; on this node: {_some(local, whole=whole)}".strip("; ") if local else text


def _some(endpoints: list[str], *, whole: bool) -> str:
    if whole or len(endpoints) <= _SHOWN:
        return ", ".join(endpoints)
    return f"{', '.join(endpoints[:_SHOWN])} and {len(endpoints) - _SHOWN} more"
