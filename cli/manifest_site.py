"""What a site may choose about isthmus in its cluster, checked as a whole."""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import PurePosixPath

from net.address import IPAddress, IPNetwork
from net.settings import LogLevel

NAMESPACE = "isthmus"
IPAMD_PORT, ENROLL_PORT = 9476, 9475
# A node's kubelet runs 110 pods unless told otherwise, and a block gives 254 addresses or more.
BLOCK_LENGTH = {4: 24, 6: 112}
IPV4 = IPv4Network("10.244.0.0/16")
IPV6 = IPv6Network("fd00:10:244::/56")
HOST_LOCAL = "/var/lib/cni/networks"
# etcd as kubeadm 1.34 brings it: the control plane has this image already.
ETCD_IMAGE = "registry.k8s.io/etcd:3.6.5-0"


class Mode(StrEnum):
    """How packets go from node to node."""

    DIRECT = "direct"
    VXLAN = "vxlan"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class PoolChoice:
    """One pool, cut into blocks of *block_length*."""

    cidr: IPNetwork
    block_length: int

    @property
    def name(self) -> str:
        return f"ipv{self.cidr.version}"

    def __str__(self) -> str:
        return f"{self.name}={self.cidr}:{self.block_length}"


@dataclass(frozen=True, slots=True)
class Member:
    """One member of our etcd: the node it runs on, and where that is reached."""

    node: str
    address: IPAddress

    def url(self, port: int) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"https://{host}:{port}"


class Senseless(Exception):
    """Choices that contradict each other; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """*mtu* 0: as the links allow; *api_server* "": as each node's kubelet finds it; *etcd*:
    URLs of one that is not ours, which *etcd_secret* is for; *members* of ours: none means one,
    on whichever node of the control plane there is; *host_local*: where a former network's plugin
    of that name keeps addresses.  Raises Senseless.
    """

    image: str
    pools: tuple[PoolChoice, ...]
    mode: Mode = Mode.AUTO
    mtu: int = 0
    masquerade: bool = True
    services: bool = False
    announce: bool = False
    open_firewall: bool = False
    admission_policy: bool = True
    api_server: str = ""
    log_level: LogLevel = LogLevel.INFO
    etcd: tuple[str, ...] = ()
    etcd_secret: str = ""
    etcd_image: str = ETCD_IMAGE
    members: tuple[Member, ...] = ()
    host_local: str = HOST_LOCAL

    def __post_init__(self) -> None:
        if not self.pools:
            raise Senseless("no pool: choose a family")
        for pool in self.pools:
            _check_pool(pool)
        _check_network(self)
        if self.etcd:
            _check_other_etcd(self.etcd, self.etcd_secret)
        elif self.etcd_secret:
            raise Senseless("a secret is for another etcd: give its URLs too")
        if self.etcd and self.members:
            raise Senseless("members are of an etcd of our own: give them, or URLs of another one")
        _check_members(self.members)
        if not PurePosixPath(self.host_local).is_absolute():
            raise Senseless(f"{self.host_local!r} is no directory of nodes: give it from / on")


def _check_network(site: Site) -> None:
    if site.mtu and not 1280 <= site.mtu <= 65535:
        raise Senseless(f"MTU {site.mtu}: 1280 (what IPv6 needs) to 65535, or 0 for automatic")
    if site.announce and not site.services:
        raise Senseless("nodes that announce addresses translate them, too: --services")
    if site.open_firewall and not site.services:
        raise Senseless("firewalls are opened for what Services lead to pods: --services")


def _check_pool(pool: PoolChoice) -> None:
    longest = 30 if pool.cidr.version == 4 else 126
    if not pool.cidr.prefixlen <= pool.block_length <= longest:
        raise Senseless(
            f"blocks of /{pool.block_length} of {pool.cidr}: "
            f"/{pool.cidr.prefixlen} to /{longest} are allowed"
        )


def _check_other_etcd(urls: tuple[str, ...], secret: str) -> None:
    if len({url.partition("://")[0] for url in urls}) > 1:
        raise Senseless("etcd's URLs must be all https or all http")
    if urls[0].startswith("https://") and not secret:
        raise Senseless("https URLs of etcd need a secret with ca.pem, client.pem, client.key")
    if secret and not urls[0].startswith("https://"):
        raise Senseless("a secret for etcd is for https URLs")


def _check_members(members: tuple[Member, ...]) -> None:
    if len(members) not in (0, 1, 3, 5):
        raise Senseless(f"{len(members)} members of etcd: 1, 3 or 5 keep a majority")
    if len({member.node for member in members}) != len(members):
        raise Senseless("two members of etcd on one node: losing it would lose both")
