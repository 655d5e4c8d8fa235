"""Attachments for tests of the tables, and a strategy that makes them clash."""

from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_interface, ip_network

from hypothesis import strategies as st

from cni.nat import Published
from ipam.leases import Attachment
from net.address import IPAddress


@dataclass(frozen=True, slots=True)
class Port:
    """The least that a mapping has to be."""

    host_port: int
    container_port: int = 80
    protocol: str = "tcp"
    host_ip: IPAddress | None = None


def who(name: str, network: str = "net") -> Attachment:
    return Attachment(network, name, "eth0")


def pod(name: str, *addresses: str, started: int = 1, **more: object) -> Published:
    plain = Published(
        who=who(name),
        started_ns=started,
        addresses=tuple(ip_interface(each) for each in addresses or ("10.1.0.2/24",)),
        subnets=(ip_network("10.1.0.0/24"), ip_network("fd00::/64")),
        host_name=f"veth{name}",
        pod_mac="02:00:00:00:00:01",
    )
    return replace(plain, **more)  # type: ignore[arg-type]


NETWORKS = [
    ("10.0.0.0/8",),
    ("10.1.0.0/16", "10.2.0.0/24"),
    ("10.1.1.0/24", "10.2.0.0/16"),
    ("10.1.0.0/24", "10.1.1.0/24", "fd00::/64"),
    ("10.64.0.0/10", "192.168.0.0/24", "fd00::/48"),
    (),
]
ADDRESSES = ["10.1.0.2/24", "10.1.0.3/16", "10.1.0.2/16", "10.1.0.3/24", "fd00::2/64", "fd00::3/48"]

ports = st.builds(
    Port,
    st.sampled_from([53, 80]),
    st.sampled_from([80, 8080]),
    st.sampled_from(["tcp", "udp", "sctp"]),
    st.sampled_from([None, *map(ip_address, ("0.0.0.0", "::", "192.0.2.1", "2001:db8::1"))]),
)
published = st.builds(
    Published,
    who=st.builds(who, st.sampled_from("abcde"), st.sampled_from(["one", "two"])),
    started_ns=st.integers(1, 3),
    addresses=st.lists(st.sampled_from(ADDRESSES).map(ip_interface), max_size=3).map(tuple),
    subnets=st.sampled_from(NETWORKS).map(lambda nets: tuple(map(ip_network, nets))),
    masquerade=st.booleans(),
    routed=st.booleans(),
    port_mappings=st.lists(ports, max_size=3).map(tuple),
    host_name=st.sampled_from(["veth1", "veth2"]),
    pod_mac=st.sampled_from(["02:00:00:00:00:01", "02:00:00:00:00:02"]),
    mac_spoof_check=st.booleans(),
)
