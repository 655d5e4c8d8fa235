"""`isthmus remove-kube-proxy`: take away the rules that a kube-proxy left on this node."""

import click

from cli.answers import Problem, socket_option
from cli.asking import ask_agent


@click.command("remove-kube-proxy")
@socket_option
def remove_kube_proxy(socket: str) -> None:
    """Take away the rules that a kube-proxy left on this node, once isthmus translates Services.

    Of modes nftables, iptables (with iptables-legacy, where that is installed) and ipvs.
    Connections go on, but those by ipvs.  One that still runs makes its rules again: delete its
    DaemonSet first.
    """
    from dataplane import kube_proxy
    from dataplane.errors import DataplaneError
    from dataplane.nft.elements import Elements

    services = ask_agent(socket, {"op": "services", "wanted": ""})["services"]
    if not services:
        raise Problem("this node's agent translates no Services: without kube-proxy nobody would")
    if lacking := [each["name"] for each in services if not each["programmed"]]:
        raise Problem(f"not all Services are programmed yet: {', '.join(lacking[:3])}")
    try:
        with Elements() as elements:
            modes = kube_proxy.remove(elements)
    except DataplaneError as exc:
        raise Problem(f"{exc}; kube-proxy --cleanup takes away what is left") from exc
    for mode in modes:
        click.echo(f"what kube-proxy made in mode {mode} is removed")
    if kube_proxy.IPVS in modes:
        click.echo("virtual servers stay: ipvsadm --clear, if nobody else uses IPVS here")
    if not modes:
        click.echo("kube-proxy left nothing here")
