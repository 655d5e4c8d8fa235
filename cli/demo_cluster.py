"""`isthmus demo-cluster`: three hosts with addresses from etcd, and routes between them."""

import json
import time
from typing import Any

import click

from cli.answers import Problem
from cli.demo import on_stage, title

_PROGRAMS = {
    "etcd": "etcd-server",
    "ip": "iproute2",
    "nft": "nftables",
    "ping": "iputils-ping",
}
_POOLS = (("four", "10.80.0.0/16"), ("six", "fd80::/112"))


@click.command("demo-cluster")
def demo_cluster() -> None:
    """Show a cluster's addresses and routes in namespaces of its own.

    Three hosts, one of them behind a router, a real etcd, two ipamd and three agents with
    certificates made on the fly.  etcd is killed, and containers still get addresses.  The
    network of this machine is not touched, and all is removed at the end, and after Ctrl-C.
    """
    from cli.demo_cluster_site import ClusterSite

    with on_stage(ClusterSite, _PROGRAMS) as site:
        _play(site)
    click.echo("Everything is removed.")


def _play(site: Any) -> None:
    from cli.demo_cluster_site import HOSTS

    title("Three hosts, each a network namespace; a and b on one link, c on another")
    site.build()
    for part in ("switch", *(f"host-{host}" for host in HOSTS)):
        click.echo(f"  {site.name(part)}")
    _begin(site)
    title("An agent on each host: it registers, and claims its first blocks")
    for host in HOSTS:
        site.start_agent(host)
    _wait_for_blocks(site)
    _say(site, "ipam", "nodes")
    _say(site, "ipam", "blocks")
    title("A container on each (CNI ADD)")
    for host in HOSTS:
        _attach(site, host, f"web-{host}")
    _reach(site)
    _without_etcd(site)
    _with_etcd_again(site)
    _leave(site)


def _begin(site: Any) -> None:
    from cli.demo_cluster_site import HOSTS

    title("Certificates, etcd, two replicas of ipamd")
    nodes = [word for host in HOSTS for word in ("--node", host)]
    at = site.endpoints[0].rpartition(":")[0]
    _say(site, "ipam", "certificates", "make", str(site.identity), "--host", at, *nodes)
    site.start_etcd()
    for number in (1, 2):
        site.start_ipamd(number)
        click.echo(f"  ipamd at {site.endpoints[number - 1]}")
    _until(site, "ipamd follows etcd", lambda: bool(site.isthmus("ipam", "pools", "list")))
    _say(site, "ipam", "init")
    for name, cidr in _POOLS:
        _say(site, "ipam", "pools", "create", name, cidr)


def _wait_for_blocks(site: Any) -> None:
    from cli.demo_cluster_site import HOSTS

    def all_have() -> bool:
        rows = json.loads(site.isthmus("ipam", "blocks", "--json"))
        return {row["node"] for row in rows} == set(HOSTS)

    _until(site, "each host has blocks", all_have)


def _attach(site: Any, host: str, part: str) -> dict[str, Any]:
    """Attach container *part* and say how it went."""
    site.add_namespace(part)
    begun = time.monotonic()
    result: dict[str, Any] = site.call("ADD", host, part, part)
    took = (time.monotonic() - begun) * 1000
    addresses = "  ".join(ip["address"] for ip in result["ips"])
    click.echo(f"  {part:<6} on host-{host}  {addresses}  {took:.0f} ms")
    return result


def _reach(site: Any) -> None:
    title("They reach each other across hosts, by routes that the agents made")
    _until(site, "each host has routes", lambda: _are_routed(site))
    for source, target in (("a", "b"), ("b", "c"), ("c", "a")):
        for address in _told(site, f"web-{target}"):
            took, way = site.ping(f"web-{source}", address), site.way(source, address)
            click.echo(f"  web-{source} ➜ web-{target}  {address:<16} {way:<7} {took}")
    _say(site, "ipam", "who", "demo/web-b")
    _say(site, "ipam", "show", _told(site, "web-c")[0])


def _are_routed(site: Any) -> bool:
    from cli.demo_cluster_site import HOSTS

    found = [site.status(host)["mesh"]["routing"] for host in HOSTS]
    return [(one["direct"], one["tunnelled"]) for one in found] == [(2, 2), (2, 2), (0, 4)]


def _told(site: Any, pod: str) -> list[str]:
    """The addresses of *pod*, as its node has told ipamd."""
    found: list[str] = []

    def is_told() -> bool:
        rows = json.loads(site.isthmus("ipam", "who", f"demo/{pod}", "--json"))
        found[:] = [address.partition("/")[0] for row in rows for address in row["addresses"]]
        return bool(found)

    _until(site, f"its node tells of {pod}", is_told)
    return found


def _without_etcd(site: Any) -> None:
    from cli.demo_cluster_site import HOSTS

    title("etcd is killed (-9): nothing changes for containers")
    site.etcd.stop(kill=True)
    said = site.isthmus("ipam", "blocks", fails=True)
    click.secho("  $ isthmus ipam blocks", dim=True)
    click.echo(f"  {said.strip()}")
    for host in HOSTS:
        _attach(site, host, f"more-{host}")
    site.call("DEL", "a", "more-a")
    click.echo("  more-a is deleted again (CNI DEL)")
    click.echo(f"  more-b ➜ web-b  {site.ping('more-b', _addresses(site, 'b', 'web-b')[0])}")


def _addresses(site: Any, host: str, part: str) -> list[str]:
    from ipam.reading import read_records

    return [
        str(address.ip)
        for record in read_records(site.state(host) / "isthmus.db")
        if record.who.container_id.startswith(f"{part}-")
        for address in record.addresses
    ]


def _with_etcd_again(site: Any) -> None:
    title("etcd is back: what happened meanwhile is told")
    site.start_etcd()
    for pod in ("more-b", "more-c"):
        _told(site, pod)
    _say(site, "ipam", "pools", "list")
    _say(site, "ipam", "check", "--socket", str(site.socket("a")))


def _leave(site: Any) -> None:
    from cli.demo_cluster_site import HOSTS
    from ipam.reading import read_records

    title("All are detached (CNI DEL)")
    for host in HOSTS:
        for part in (f"web-{host}", f"more-{host}"):
            site.call("DEL", host, part)
        if left := list(read_records(site.state(host) / "isthmus.db")):
            raise Problem(f"something is left on {host}: {', '.join(str(one.who) for one in left)}")
    click.echo("  no lease is left of them")


def _say(site: Any, *words: str) -> None:
    """Run a command of ours, and show command and answer."""
    shown = [word.replace(str(site.directory), "…") for word in words]
    click.secho(f"  $ isthmus {' '.join(shown)}", dim=True)
    for line in site.isthmus(*words).splitlines():
        click.echo(f"  {line.replace(str(site.directory), '…')}")


def _until(site: Any, what: str, holds: Any, *, within_s: float = 20.0) -> None:
    """Wait until *holds*; Problem, that not *what*, if it does not in time."""
    import threading

    from cli.demo_stage import tail

    pause, deadline = threading.Event(), time.monotonic() + within_s
    last = ""
    while time.monotonic() < deadline:
        try:
            if holds():
                return
        except Problem as exc:
            last = exc.message
        pause.wait(0.1)
    logs = "\n".join(tail(site.log(name)) for name in site.programs)
    raise Problem(f"not within {within_s:g} s: {what}; {last}\n{logs}")
