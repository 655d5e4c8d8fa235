"""`isthmus manifest`: what `kubectl apply` makes a cluster's network of."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

import click

from agent.version import VERSION
from cli.install import Subnet
from cli.manifest_site import (
    BLOCK_LENGTH,
    ETCD_IMAGE,
    HOST_LOCAL,
    IPV4,
    IPV6,
    Member,
    Mode,
    PoolChoice,
    Senseless,
    Site,
)
from net.address import IPNetwork
from net.settings import LogLevel

_IMAGE = f"localhost/isthmus:{VERSION}"
_FAMILIES = {"ipv4": (4,), "ipv6": (6,), "dual": (4, 6)}


class MemberChoice(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """One NODE=ADDRESS."""

    name = "node=address"

    def convert(self, value: Any, param: Any, ctx: Any) -> Member:
        node, _, address = str(value).partition("=")
        try:
            return Member(node, ip_address(address))
        except ValueError:
            self.fail(f"{value!r}: give NODE=ADDRESS, as cp-1=10.0.0.11", param, ctx)


@click.command()
@click.option("--image", default=_IMAGE, show_default=True, help="Where nodes have isthmus from.")
@click.option(
    "--families",
    type=click.Choice(list(_FAMILIES)),
    default="ipv4",
    show_default=True,
    help="Addresses that pods have: as the cluster's Services and nodes have them.",
)
@click.option("--ipv4-pool", type=Subnet(), default=str(IPV4), show_default=True)
@click.option("--ipv4-block-length", type=int, default=BLOCK_LENGTH[4], show_default=True)
@click.option("--ipv6-pool", type=Subnet(), default=str(IPV6), show_default=True)
@click.option("--ipv6-block-length", type=int, default=BLOCK_LENGTH[6], show_default=True)
@click.option(
    "--mode",
    type=click.Choice([mode.value for mode in Mode]),
    default=Mode.AUTO.value,
    show_default=True,
    help="How packets go from node to node: by routes, in VXLAN, or by routes where they can.",
)
@click.option("--mtu", type=int, default=0, help="Of pods; 0: as the nodes' links allow.")
@click.option(
    "--masquerade/--no-masquerade",
    default=True,
    show_default=True,
    help="Whether what pods send out of the cluster has the node's address.",
)
@click.option(
    "--services/--no-services",
    default=False,
    show_default=True,
    help="Whether isthmus translates Services: where no kube-proxy runs.",
)
@click.option(
    "--announce/--no-announce",
    default=False,
    show_default=True,
    help="Whether nodes answer on their links for addresses of load balancers; with --services.",
)
@click.option(
    "--open-firewall/--no-open-firewall",
    default=False,
    show_default=True,
    help="Whether nodes' firewalls that drop what is forwarded let pods through; with --services.",
)
@click.option(
    "--admission-policy/--no-admission-policy",
    default=True,
    show_default=True,
    help="Whether the API server lets an agent change its own Node alone: from 1.30 on.",
)
@click.option("--api-server", default="", help="Its URL; without it what each kubelet uses.")
@click.option(
    "--log-level",
    type=click.Choice([level.value for level in LogLevel]),
    default=LogLevel.INFO.value,
)
@click.option("--etcd", "etcd", multiple=True, help="URL of a member of another etcd.")
@click.option(
    "--etcd-secret", default="", help="Secret with ca.pem, client.pem, client.key for it."
)
@click.option("--etcd-image", default=ETCD_IMAGE, show_default=True, help="Of our own etcd.")
@click.option(
    "--etcd-member",
    "members",
    type=MemberChoice(),
    multiple=True,
    help="Where our own etcd runs: once, or three times for a control plane of three nodes.",
)
@click.option(
    "--host-local",
    default=HOST_LOCAL,
    show_default=True,
    help="Where a former network's IPAM plugin keeps the addresses that it gave (dataDir).",
)
@click.option("--uninstall", is_flag=True, help="Print what takes isthmus off the nodes instead.")
@click.option("--force", is_flag=True, help="With --uninstall: do not wait for pods to end.")
def manifest(  # noqa: PLR0913, PLR0917 - click passes each by its name
    image: str,
    families: str,
    ipv4_pool: IPNetwork,
    ipv4_block_length: int,
    ipv6_pool: IPNetwork,
    ipv6_block_length: int,
    mode: str,
    mtu: int,
    masquerade: bool,
    services: bool,
    announce: bool,
    open_firewall: bool,
    admission_policy: bool,
    api_server: str,
    log_level: str,
    etcd: Sequence[str],
    etcd_secret: str,
    etcd_image: str,
    members: Sequence[Member],
    host_local: str,
    uninstall: bool,
    force: bool,
) -> None:
    """Print the manifest that makes isthmus the network of a Kubernetes cluster.

    \b
        isthmus manifest --families dual | kubectl apply -f -
        kubectl delete -f …   then   isthmus manifest --uninstall | kubectl apply -f -
    """
    if not isinstance(ipv4_pool, IPv4Network) or not isinstance(ipv6_pool, IPv6Network):
        raise click.UsageError("--ipv4-pool is of IPv4, --ipv6-pool of IPv6")
    if force and not uninstall:
        raise click.UsageError("--force is for --uninstall")
    _check_urls(api_server, etcd)
    pools = (PoolChoice(ipv4_pool, ipv4_block_length), PoolChoice(ipv6_pool, ipv6_block_length))
    try:
        site = Site(
            image=image,
            pools=tuple(one for one in pools if one.cidr.version in _FAMILIES[families]),
            mode=Mode(mode),
            mtu=mtu,
            masquerade=masquerade,
            services=services,
            announce=announce,
            open_firewall=open_firewall,
            admission_policy=admission_policy,
            api_server=api_server,
            log_level=LogLevel(log_level),
            etcd=tuple(etcd),
            etcd_secret=etcd_secret,
            etcd_image=etcd_image,
            members=tuple(members),
            host_local=host_local,
        )
    except Senseless as exc:
        raise click.UsageError(str(exc)) from exc
    click.echo(render_removal(site, force=force) if uninstall else render(site), nl=False)


def _check_urls(api_server: str, etcd: Sequence[str]) -> None:
    from ipam.daemon_config import urls
    from kube.config import CHECKS

    try:
        CHECKS["address"](api_server)
    except ValueError as exc:
        raise click.BadParameter(f"{api_server!r} {exc}", param_hint="--api-server") from exc
    try:
        urls(list(etcd) or ["https://one:1"])
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--etcd") from exc


def render(site: Site) -> str:
    """All objects of *site*, in the order in which they have to be made."""
    from cli.manifest_access import access
    from cli.manifest_agent import config_map, daemon_set
    from cli.manifest_control import control

    return _yaml(
        [*access(policy=site.admission_policy), *control(site), config_map(site), daemon_set(site)]
    )


def render_removal(site: Site, *, force: bool) -> str:
    from cli.manifest_removal import removal

    return _yaml(removal(site, force=force))


def _yaml(objects: Sequence[dict[str, Any]]) -> str:
    """As people read it: text of several lines as it is, no anchors."""
    import yaml

    class Dumper(yaml.SafeDumper):  # type: ignore[misc,unused-ignore]
        def ignore_aliases(self, data: Any) -> bool:
            return True

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
            return super().increase_indent(flow, False)

    def text(dumper: Any, value: str) -> Any:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return str(
        yaml.dump_all(objects, Dumper=Dumper, sort_keys=False, width=100, explicit_start=True)
    )
