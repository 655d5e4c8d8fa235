"""`isthmus demo`: two containers' worth of networking, from nothing and back to nothing."""

import os
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from cli.answers import Problem

_PROGRAMS = {"ip": "iproute2", "nft": "nftables", "ping": "iputils-ping"}
_PORT = 8080
_SETS = (("set", "masq4"), ("set", "masq6"), ("map", "hostport4_any"))


@click.command()
@click.option("--keep", is_flag=True, help="Leave everything running, and say how to remove it.")
def demo(keep: bool) -> None:
    """Show all of it in namespaces of its own.

    The network of this machine is not touched.  A host, something beyond it and two
    containers; an agent; the real plugin as a runtime would run it.  All is removed at
    the end, and after Ctrl-C.
    """
    from cli.demo_site import Site

    with on_stage(Site, _PROGRAMS) as site:
        _play(site)
        if keep:
            assert site.agent is not None
            site.agent.let_go()
            site.undo.pop_all()
            _how_to_look(site)
            return
        _leave(site)
    click.echo("Everything is removed.  To keep it and look around: isthmus demo --keep")


def _play(site: Any) -> None:
    title("Four network namespaces: a host, something beyond it, two containers")
    site.build()
    for part in ("web", "shell"):
        site.add_namespace(part)
    for part in ("outside", "host", "web", "shell"):
        click.echo(f"  {site.name(part)}")

    title("The agent starts in the host, with a store of its own")
    site.start_agent()
    click.echo(f"  pid {site.agent.pid}, {site.store}")

    title("A runtime attaches both (CNI ADD); web asks for a port of the host")
    mapping = {"hostPort": _PORT, "containerPort": 80, "protocol": "tcp"}
    results = {"web": site.call("ADD", "web", portMappings=[mapping])}
    results["shell"] = site.call("ADD", "shell")
    for part, result in results.items():
        click.echo(f"  {part:<6} {'  '.join(_addresses(result))}")
    _reach(site, results)
    _look(site)
    _crash(site)
    title("What is there now")
    click.echo(_picture(site, results))


def _reach(site: Any, results: dict[str, Any]) -> None:
    from cli.demo_site import BEYOND, UPLINK

    web, shell = (_bare(_addresses(results[part])) for part in ("web", "shell"))
    gateways = [ip["gateway"] for ip in results["shell"]["ips"]]
    title("They reach each other, their gateway, the host, and beyond")
    for source, target, addresses in (
        ("shell", "web", web),
        ("web", "shell", shell),
        ("shell", "gateway", gateways),
        ("shell", "host", _bare(UPLINK)),
        ("host", "web", web),
        ("shell", "outside", _bare(BEYOND)),
    ):
        for address in addresses:
            click.echo(f"  {source:<6} ➜ {target:<8} {address:<22} {site.ping(source, address)}")
    click.echo("  (outside has no route to the containers: masquerade brought the replies back)")
    seen = site.fetch("shell", 5000, "web", (shell[0], 5000))
    click.echo(f"  shell is called by web directly, and sees {seen}")
    seen = site.fetch("web", 80, "outside", (_bare(UPLINK)[0], _PORT))
    click.echo(f"  outside ➜ {_bare(UPLINK)[0]}:{_PORT} ➜ web:80, and web sees {seen}")


def _look(site: Any) -> None:
    from cli.asking import read_attachments
    from cli.attachments import show_attachments
    from ipam.reading import read_records

    title("isthmus attachments")
    found = read_attachments(str(site.socket_path), str(site.store))
    show_attachments(found, as_json=False, whole=False)
    title("In nftables a container is elements of sets, never rules of its own")
    for kind, name in _SETS:
        for element in _elements(site, kind, name):
            click.echo(f"  {name:<14} {element}")
    title("The leases are on disk before the answer is given")
    for record in sorted(read_records(site.store), key=lambda record: record.who):
        click.echo(f"  {record.who}: {' '.join(map(str, record.addresses))}")


def _elements(site: Any, kind: str, name: str) -> list[str]:
    """The elements of one set or map of the demonstration's host, as nft prints them."""
    listed = site.must(*site.inside("host"), "nft", "list", kind, "inet", "isthmus-cni", name)
    within = listed.partition("elements = {")[2].partition("}")[0]
    return [" ".join(element.split()) for element in within.split(",") if element.strip()]


def _crash(site: Any) -> None:
    from cli.asking import read_attachments

    title("The agent is killed (-9); a container that ends meanwhile is still deleted")
    site.add_namespace("brief")
    brief = _bare(_addresses(site.call("ADD", "brief")))
    before = _leases(site)
    site.kill_agent()
    click.echo(f"  shell ➜ web without an agent: {site.ping('shell', before['web'][0])}")
    site.call("DEL", "brief")
    waiting = len(list((site.state / "spool").glob("*.del")))
    click.echo(f"  brief ({' '.join(brief)}) is deleted: {waiting} deletion waits in the spool")
    site.start_agent()
    found = read_attachments(str(site.socket_path), str(site.store))
    click.echo(f"  a new agent, pid {site.agent.pid}: {len(found.attachments)} attachments")
    after = _leases(site)
    expected = {part: addresses for part, addresses in before.items() if part != "brief"}
    if after != expected:
        raise Problem(f"the leases changed: {before} became {after}")
    click.echo("  web and shell have the addresses they had; brief's rest before they are reused")
    click.echo(f"  shell ➜ web: {site.ping('shell', after['web'][0])}")


def _leave(site: Any) -> None:
    from ipam.reading import read_records

    title("Both are detached (CNI DEL)")
    for part in ("web", "shell"):
        site.call("DEL", part)
    links = site.must("ip", "-n", site.name("host"), "-o", "link", "show", "type", "veth")
    left = [line for line in links.splitlines() if ": isth" in line]
    left += [f"element {one}" for kind, name in _SETS for one in _elements(site, kind, name)]
    left += [f"lease {record.who}" for record in read_records(site.store)]
    if left:
        raise Problem(f"something is left: {', '.join(left)}")
    click.echo("  no link, no lease, no element is left of them")


def _leases(site: Any) -> dict[str, list[str]]:
    from ipam.reading import read_records

    return {
        record.who.container_id.partition("-")[0]: [str(one.ip) for one in record.addresses]
        for record in read_records(site.store)
    }


def _picture(site: Any, results: dict[str, Any]) -> str:
    from cli.demo_picture import Pod, Scene, draw
    from cli.demo_site import BEYOND, UPLINK

    web = _bare(_addresses(results["web"]))
    pods = tuple(
        Pod(
            title=part,
            namespace=site.name(part),
            addresses=tuple(_addresses(result)),
            host_side=result["interfaces"][1]["name"],
        )
        for part, result in results.items()
    )
    bridge = tuple(
        f"{ip['gateway']}/{ip['address'].partition('/')[2]}" for ip in results["web"]["ips"]
    )
    return draw(
        Scene(
            outside=site.name("outside"),
            host=site.name("host"),
            uplink=UPLINK,
            beyond=BEYOND,
            bridge=bridge,
            rules=(
                "masquerade: what containers send beyond leaves as the host",
                f"port {_PORT}: tcp to the host goes to {web[0]} port 80",
            ),
            pods=pods,
        )
    )


def _how_to_look(site: Any) -> None:
    from agent.program import own_command

    names = [site.name(part) for part in ("host", "outside", "web", "shell", "brief")]
    title("All of it goes on running.  To look around")
    click.echo(f"  export ISTHMUS_SOCKET={site.socket_path}")
    isthmus = " ".join(own_command())
    for command in (
        f"{isthmus} status",
        f"{isthmus} attachments",
        f"{isthmus} ipam show",
        f"ip netns exec {site.name('shell')} ip address",
        f"ip netns exec {site.name('shell')} ping -c 1 {_leases(site)['web'][0]}",
        f"ip netns exec {site.name('host')} nft list table inet isthmus-cni",
        f"less {site.log}",
    ):
        click.echo(f"  {command}")
    click.echo("\nTo remove it:")
    click.echo(f"  kill {site.agent.pid}")
    click.echo(f"  for name in {' '.join(names)}; do ip netns delete $name; done")
    click.echo(f"  rm -rf {site.directory}")


def _addresses(result: dict[str, Any]) -> list[str]:
    return [str(ip["address"]) for ip in result["ips"]]


def _bare(addresses: Any) -> list[str]:
    return [address.partition("/")[0] for address in addresses]


def title(text: str) -> None:
    click.echo()
    click.secho(text, bold=True)


@contextmanager
def on_stage(make: Callable[[str, Path, Path], Any], programs: Mapping[str, str]) -> Iterator[Any]:
    """A site that *make* builds of a suffix, a directory and the launcher; it goes with this.

    Raises Problem for what is missing, and for what of the kernel fails meanwhile.
    """
    from cli.places import find_launcher
    from dataplane.errors import DataplaneError

    _need_root_and(programs)
    launcher = find_launcher()
    if launcher is None:
        raise Problem("the launcher is not built: make launcher")
    suffix = secrets.token_hex(2)
    site = make(suffix, Path(f"/run/isthmus-demo-{suffix}"), launcher)
    # A terminal that closes, or a service that stops us, must clean up as Ctrl-C does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    with site.undo:
        try:
            yield site
        except DataplaneError as exc:
            raise Problem(str(exc)) from exc


def _need_root_and(programs: Mapping[str, str]) -> None:
    """Raises Problem without them; *programs* are what is executed, and the packages it is in."""
    if os.geteuid() != 0:
        raise Problem("the demonstration makes network namespaces, which needs root: use sudo")
    missing = [package for program, package in programs.items() if not shutil.which(program)]
    if missing:
        raise Problem(f"programs are missing: apt install {' '.join(missing)}")


def _interrupted(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
