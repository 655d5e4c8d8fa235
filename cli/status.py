"""`isthmus status`: is the agent well, and what does it hold?"""

from typing import Any

import click

from cli.answers import Exit, json_option, leave, print_json, socket_option
from cli.asking import ask_agent

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


@click.command()
@socket_option
@json_option
def status(socket: str, as_json: bool) -> None:
    """Say how the agent is.

    Exit status 1 when it cannot serve.
    """
    found = ask_agent(socket, {"op": "status"})["status"]
    if as_json:
        print_json(found)
    else:
        for line in lines(found):
            click.echo(line)
    leave(Exit.FINE if found["serving"] else Exit.PROBLEM)


def lines(found: dict[str, Any]) -> list[str]:
    """What *found* says, for people."""
    serving = "serving" if found["serving"] else "NOT serving"
    age = found["last_reconcile_s"]
    rows = [
        ("agent", f"{serving}, version {found['version']}, pid {found['pid']}"),
        ("up for", span(found["uptime_s"])),
        ("attachments", f"{found['attachments']}, and {found['reservations']} reservations"),
        ("requests", f"{found['in_flight']} in flight, {found['queued']} queued"),
        ("spool", f"{found['spooled']} deletions waiting"),
        ("reconciled", "not yet" if age is None else f"{span(age)} ago"),
        ("memory", f"{found['resident_bytes'] / 2**20:.0f} MiB resident"),
        ("store", found["store"]),
    ]
    rows += _cluster(found["cluster"]) if found.get("cluster") else []
    rows += _mesh(found["mesh"]) if found.get("mesh") else []
    if kubernetes := found.get("kubernetes"):
        rows.append(("Kubernetes", _kubernetes(kubernetes)))
    if announcing := found.get("announcing"):
        rows.append(("announces", _announcing(announcing)))
        rows += _owners(announcing)
    rows += [("reason", reason) for reason in found["reasons"]]
    return [f"{name:<12} {value}" for name, value in rows]


def _cluster(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The node's part in a cluster: who it is, what it has, how far behind the mirror is."""
    confirmed = "confirmed" if found["confirmed"] else "NOT confirmed in this boot"
    connection = "connected" if found["connected"] else "NOT connected"
    rows = [
        ("node", f"{found['node']}, {found['node_state']}, epoch {found['epoch']} {confirmed}"),
        ("ipamd", f"{connection}: {found['trouble']}" if found["trouble"] else connection),
    ]
    rows += [
        (
            "block",
            f"{block['cidr']} of pool {block['pool']}, {block['state']}, "
            f"{block['used']} of {block['size']} in use",
        )
        for block in found["blocks"]
    ]
    rows += [("pool", f"{pool or 'default'}: {why}") for pool, why in found["outlook"].items()]
    waiting = f"{found['mirror_waiting']} changes waiting, {found['mirror_lag_s']:.1f} s behind"
    return [*rows, ("mirror", waiting)]


def _mesh(found: dict[str, Any]) -> list[tuple[str, str]]:
    """How pods of other nodes are reached, and what leaves the cluster."""
    rows = []
    if routing := found["routing"]:
        stale = "" if routing["in_sync"] else ", as remembered: ipamd has not told yet"
        rows.append(
            (
                "routes",
                f"{routing['mode']}: {routing['direct']} direct, {routing['tunnelled']} through "
                f"VXLAN; MTU of pods {routing['mtu'] or 'unknown'}{stale}",
            )
        )
        rows += [("routes", problem) for problem in routing["problems"]]
    if (translated := found["masquerade"]) is not None:
        pools = ", ".join(translated["pools"]) or "no pool"
        rows.append(("masquerade", f"{pools}; {translated['elements']} ranges"))
    return rows + ([("trouble", found["trouble"])] if found["trouble"] else [])


def _kubernetes(found: dict[str, Any]) -> str:
    """Which Node this is, and what keeps it from the API server."""
    cidrs = " and ".join(found["pod_cidrs"]) or "none"
    trouble = f"; {found['trouble']}" if found["trouble"] else ""
    return f"Node {found['node']}, pod CIDRs {cidrs}, {found['pods']} pods known{trouble}"


def _announcing(found: dict[str, Any]) -> str:
    """For which addresses of Services this node answers, and whom it hears."""
    answers = " ".join(found["addresses"]) or "nothing"
    silent = f"; silent: {' '.join(found['silent'])}" if found["silent"] else ""
    unfit = f"; unfit: {found['unfit']}" if found["unfit"] else ""
    hears = f"hears {len(found['hears'])} nodes"
    return f"{answers} (could answer for {found['bids']}); {hears}{silent}{unfit}"


def _owners(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Which other node answers for what, as this one sees it."""
    others: dict[str, list[str]] = {}
    for address, node in found["owners"].items():
        if address not in found["addresses"]:
            others.setdefault(node, []).append(address)
    return [("answers", f"{node}: {' '.join(others[node])}") for node in sorted(others)]


def span(seconds: float) -> str:
    """A length of time in its largest whole unit."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
