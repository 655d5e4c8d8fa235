"""`isthmus explain`: which endpoints of a Service a packet may reach, and why not the others."""

from ipaddress import ip_address
from typing import Any

import click

from cli.answers import Exit, json_option, leave, note, print_json, print_table, socket_option
from cli.asking import ask_agent
from net.address import IPAddress

_FORM = "must be ADDRESS:PORT, or [ADDRESS]:PORT for IPv6, with a port of 1 to 65535"
_SOURCES = {"pod": "a pod", "node": "this node", "outside": "beyond the cluster"}
_FATES = {
    "translated": "goes to one of the endpoints below",
    "refused": "is refused at once",
    "dropped": "is dropped",
    "untouched": "is not translated: it goes where it is addressed",
}


class Address(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    name = "address"

    def convert(self, value: Any, param: Any, ctx: Any) -> IPAddress:
        try:
            return ip_address(value)
        except ValueError:
            self.fail(f"{value!r} must be an IPv4 or IPv6 address", param, ctx)


class Destination(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    name = "destination"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[IPAddress, int]:
        host, _, port = str(value).rpartition(":")
        if (":" in host) != (host.startswith("[") and host.endswith("]")):
            self.fail(f"{value!r} {_FORM}", param, ctx)
        try:
            address, number = ip_address(host.strip("[]")), int(port)
        except ValueError:
            self.fail(f"{value!r} {_FORM}", param, ctx)
        if not 0 < number < 1 << 16:
            self.fail(f"{value!r} {_FORM}", param, ctx)
        return address, number


@click.command()
@click.argument("source", metavar="SRC", type=Address())
@click.argument("destination", metavar="DST:PORT", type=Destination())
@click.option(
    "--protocol", type=click.Choice(["tcp", "udp", "sctp"]), default="tcp", show_default=True
)
@socket_option
@json_option
def explain(
    source: IPAddress,
    destination: tuple[IPAddress, int],
    protocol: str,
    socket: str,
    as_json: bool,
) -> None:
    """Walk a packet from SRC to DST:PORT through this node's translation of Services.

    Say what becomes of it, which endpoints it may reach, and why it may not reach the others.  SRC
    is the address of a pod, of this node, or of somebody beyond.

    Exit status 1 when the kernel would do otherwise than planned.
    """
    address, port = destination
    if source.version != address.version:
        raise click.UsageError(f"{source} and {address} must be of one family, IPv4 or IPv6")
    op = {"op": "explain", "source": str(source), "address": str(address), "port": port}
    found = ask_agent(socket, {**op, "protocol": protocol})["explained"]
    if as_json:
        print_json(found)
    else:
        for line in lines(found):
            click.echo(line)
        if found["endpoints"]:
            click.echo()
            print_table(("ENDPOINT", "NODE", "MAY BE REACHED"), rows(found), empty="")
        for problem in found["problems"]:
            click.echo(f"{found['service']}: {problem}")
        if not found["programmed"]:
            note(deviation(found["kernel"]))
    leave(Exit.FINE if found["programmed"] else Exit.PROBLEM)


def lines(found: dict[str, Any]) -> list[str]:
    """What *found* says but for its endpoints."""
    port = f", port {found['port']}" if found["port"] else ""
    said = [
        ("from", f"{found['source']}, {_SOURCES[found['source_is']]}"),
        ("to", found["destination"]),
        ("Service", found["service"] + port or "none"),
        ("fate", _FATES[found["fate"]]),
        ("because", found["reason"]),
    ]
    if found["masqueraded"]:
        said.append(("source", "masqueraded: the endpoint sees this node's address"))
    if found["affinity_s"]:
        kept = found["remembered"]
        which = f"it has {kept}" if kept else "none is remembered yet"
        said.append(
            ("affinity", f"a client keeps its endpoint for {found['affinity_s']} s: {which}")
        )
    return [f"{name:<9} {value}" for name, value in said]


def rows(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """A line for each endpoint, those that may be reached first."""
    every = sorted(found["endpoints"], key=lambda each: bool(each["why_not"]))
    return [
        (each["at"], each["node"], f"no: {each['why_not']}" if each["why_not"] else "yes")
        for each in every
    ]


def deviation(kernel: dict[str, Any]) -> str:
    """That the kernel has something else, and what."""
    to = f" ({', '.join(kernel['endpoints'])})" if kernel["endpoints"] else ""
    return f"The kernel has it otherwise for now: {kernel['fate']}{to}"
