"""Judgements on the host: its addresses, sysctls, firewalls and kernel.

Everything here is a function of its arguments.
"""

from collections.abc import Iterable, Mapping, Sequence

from cli.findings import Finding, error, info, warning
from cli.judge_files import Network
from dataplane.features import Shortcomings
from dataplane.firewall import Firewall, ForwardChain
from dataplane.inspect import HostNetwork
from net.address import IPNetwork

_OUR_TABLES = "isthmus"
_REMEDIES = {
    "filter": "for Docker: nft insert rule {family} filter DOCKER-USER iifname {bridge} accept"
    " (and oifname); for ufw: ufw route allow in on {bridge} and out on {bridge}",
    "firewalld": "firewall-cmd --permanent --zone=trusted --add-interface={bridge}"
    " && firewall-cmd --reload",
}
# What each kernel feature is for, and whether nothing works without it.
_FEATURES: Mapping[str, tuple[str, bool]] = {
    "veth": ("every attachment is a veth pair", True),
    "bridge": ("mode bridge needs it; mode routed does not", True),
    "bridge VLAN filtering": ("the keys vlan and vlanTrunk need it", False),
    "tbf and ifb": ("the capability bandwidth needs them", False),
    "VXLAN": ("[routing] needs it, unless its mode is direct", False),
    "nftables NAT": ("ipMasq and portMappings need it", True),
    "nftables conntrack": ("ipMasq and portMappings need it", True),
    "nftables fib": ("portMappings need it", True),
}


def judge_subnets(networks: Iterable[Network], host: HostNetwork) -> list[Finding]:
    """Ranges that overlap an address or a route of the host which is not of that network."""
    findings = []
    for network in networks:
        for subnet in network.subnets:
            findings += [
                error(
                    f"{subnet} of {network.file} overlaps {what} on {ifname}",
                    "packets for one of the two go to the other",
                    f"choose another subnet: isthmus install --subnet …, or edit {network.file}",
                )
                for what, ifname in sorted(_overlapping(subnet, network.bridge, host))
            ]
    return findings


def _overlapping(subnet: IPNetwork, bridge: str, host: HostNetwork) -> set[tuple[str, str]]:
    ours = {bridge} | {link.name for link in host.links if link.alias.startswith("isthmus")}
    seen = {
        (f"the address {found.address}", found.ifname)
        for found in host.addresses
        if found.ifname not in ours and found.address.network.overlaps(subnet)
    }
    covered = {ifname for _, ifname in seen}
    return seen | {
        (f"the route to {found.dst}", found.ifname)
        for found in host.routes
        if found.ifname not in ours | covered
        and not found.ours
        and found.dst.prefixlen > 0
        and found.dst.overlaps(subnet)
    }


def judge_sysctls(
    values: Mapping[str, str | None],
    networks: Sequence[Network],
    *,
    writable: bool,
    attached: int,
) -> list[Finding]:
    """Forwarding, reverse path filters and the bridge's detour through iptables."""
    findings = []
    for version, name in (
        (4, "net/ipv4/ip_forward"),
        (6, "net/ipv6/conf/all/forwarding"),
    ):
        needed = any(subnet.version == version for one in networks for subnet in one.subnets)
        if needed and values.get(name) == "0":
            findings.append(_forwarding(name.replace("/", "."), writable, attached))
    if values.get("net/ipv4/conf/all/rp_filter") == "1":
        findings.append(
            warning(
                "net.ipv4.conf.all.rp_filter is 1 (strict)",
                "replies that leave by another link than the request came in by are dropped",
                "sysctl net.ipv4.conf.all.rp_filter=2 where the host has several uplinks",
            )
        )
    if any(values.get(f"net/bridge/bridge-nf-call-{one}tables") == "1" for one in ("ip", "ip6")):
        findings.append(
            info(
                "net.bridge.bridge-nf-call-iptables is 1",
                "packets between containers of one bridge pass the forward chains too",
                "sysctl net.bridge.bridge-nf-call-iptables=0 unless something here relies on it",
            )
        )
    return findings


def _forwarding(name: str, writable: bool, attached: int) -> Finding:
    if not writable:
        return error(
            f"{name} is 0, and /proc/sys cannot be written here",
            "packets of containers do not leave the host",
            f"set {name}=1 on the host, outside of this container",
        )
    if attached:
        return error(
            f"{name} is 0 though {attached} containers are attached",
            "something switched it off: their packets do not leave the host",
            f"sysctl {name}=1, and look in /etc/sysctl.d for what sets it to 0",
        )
    return info(f"{name} is 0", "nothing needs it yet", "nothing: the agent sets it when needed")


def judge_default_routes(host: HostNetwork) -> list[Finding]:
    """A host from which nothing but its own links is reached, in no family."""
    if any(route.dst.prefixlen == 0 for route in host.routes):
        return []
    return [
        info(
            "this host has no default route",
            "containers reach one another, and beyond that what the host has routes for",
            "nothing, if that is meant; else: ip route add default via …",
        )
    ]


def judge_bridges(networks: Iterable[Network], host: HostNetwork) -> list[Finding]:
    """A bridge of ours that has an address of no range of its network."""
    return [
        error(
            f"{found.ifname} has the address {found.address}, which is in no range of "
            f"{network.file}",
            "an ADD fails rather than change a bridge that somebody else uses",
            f"ip address delete {found.address} dev {found.ifname}, "
            "or name another bridge: isthmus install --bridge …",
        )
        for network in networks
        for found in host.addresses
        if found.ifname == network.bridge
        and not found.address.is_link_local
        and not any(found.address.ip in subnet for subnet in network.subnets)
    ]


def judge_firewall(firewall: Firewall, networks: Iterable[Network]) -> list[Finding]:
    """nft itself, and forward chains of others that drop what containers send."""
    findings = []
    if firewall.fault:
        findings.append(
            error(
                f"nft cannot be used: {firewall.fault}",
                "masquerade and port mappings cannot be made",
                "apt install nftables, and run this as root",
            )
        )
    bridges = sorted({network.bridge for network in networks if network.bridge})
    for chain in firewall.chains:
        if not chain.drops or chain.table.startswith(_OUR_TABLES):
            continue
        shut = [bridge for bridge in bridges if bridge not in chain.accepts]
        findings += [_drop(chain, bridge) for bridge in shut]
    return findings


def _drop(chain: ForwardChain, bridge: str) -> Finding:
    remedy = _REMEDIES.get(chain.table, "accept iifname and oifname {bridge} in it")
    return error(
        f"the chain {chain} drops forwarded packets and does not accept {bridge}",
        "what any table drops is dropped: no rule of isthmus can undo it",
        remedy.format(bridge=bridge, family=chain.family),
    )


def judge_kernel(found: Shortcomings, firewall: Firewall) -> list[Finding]:
    """Features that are absent, and an nft that does not take our tables."""
    findings = []
    for name in found.missing:
        reason, is_needed = _FEATURES[name]
        say = error if is_needed else info
        findings.append(
            say(
                f"this kernel has no {name}",
                reason,
                "load the module or use another kernel" if is_needed else "nothing, unless used",
            )
        )
    if found.refusal and not firewall.fault:
        version = ".".join(map(str, firewall.version))
        findings.append(
            error(
                f"nft {version} and this kernel do not take the tables of isthmus: {found.refusal}",
                "masquerade and port mappings cannot be made",
                "install nftables 1.0.2 or newer, on Linux 5.10 or newer",
            )
        )
    return findings
