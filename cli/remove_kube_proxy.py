"""`isthmus remove-kube-proxy`: take away the rules that a kube-proxy left on this node."""

import click

from cli.answers import Problem, socket_option
from cli.asking import ask_agent


@click.command("remove-kube-proxy")
@socket_option
def remove_kube_proxy(socket: str) -> None:
    """Take away the rules that a kube-proxy left on this node, once isthmus translates Services.

    Of its modes nftables and iptables (iptables-nft).  Connections go on.  One that still runs
    makes its rules again: delete its DaemonSet first.
    """
    from dataplane.kube_proxy import removal
    from dataplane.nft.runner import NftRunner

    services = ask_agent(socket, {"op": "services", "wanted": ""})["services"]
    if not services:
        raise Problem("this node's agent translates no Services: without kube-proxy nobody would")
    if lacking := [each["name"] for each in services if not each["programmed"]]:
        raise Problem(f"not all Services are programmed yet: {', '.join(lacking[:3])}")
    script = removal()
    if script:
        NftRunner().load(script)
    click.echo("kube-proxy's rules are removed" if script else "kube-proxy left nothing here")
