"""Masquerade, port mappings and MAC guards, with packets.

outside 192.0.2.2 ─── 192.0.2.1 host ── bridge 10.77.0.1/24 ── pod a .2, pod b .3
                                   └─── routed ─────────────── pod c 10.78.0.2
"""

import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from cni.capabilities import PortMapping, Protocol
from cni.nat import Published, plan
from cni.publisher import Publisher
from cni.tables import MAC_GUARD, NAT
from dataplane.conntrack import Conntrack
from dataplane.nft.elements import Elements
from dataplane.nft.objects import Family
from dataplane.nft.runner import NftRunner
from dataplane.nft.table import NftTable
from dataplane.sysctl import Sysctls
from ipam.leases import Attachment
from tests.kernel.conftest import Namespace
from tests.kernel.sockets import Echo, ask, inside

pytestmark = pytest.mark.kernel

POD_PORT = 8080
HOST = {4: "192.0.2.1", 6: "2001:db8:1::1"}
OUTSIDE = {4: "192.0.2.2", 6: "2001:db8:1::2"}
POD_A = {4: "10.77.0.2", 6: "fd77::2"}
POD_B = {4: "10.77.0.3", 6: "fd77::3"}
POD_C = {4: "10.78.0.2", 6: "fd78::2"}
GATEWAY = {4: "10.77.0.1", 6: "fd77::1"}
FAMILIES = pytest.mark.parametrize("v", [4, 6])
TRANSPORTS = pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])


@dataclass(frozen=True, slots=True)
class Lab:
    """The namespaces, and the publisher that works in the host's."""

    host: Namespace
    outside: Namespace
    a: Namespace
    b: Namespace
    c: Namespace

    def publish(self, *published: Published) -> None:
        with inside(self.host), self.publisher() as publisher:
            publisher.resync(lambda: published)

    def publisher(self) -> "Opened":
        return Opened()


class Opened:
    """A publisher for the namespace that this thread is in."""

    def __enter__(self) -> Publisher:
        self._elements = (Elements(), Elements())
        self._conntrack = Conntrack()
        runner, (nat, guard) = NftRunner(), self._elements
        return Publisher(
            {
                Family.INET: NftTable(NAT, runner, nat),
                Family.BRIDGE: NftTable(MAC_GUARD, runner, guard),
            },
            self._conntrack,
        )

    def __exit__(self, *_: object) -> None:
        for each in (*self._elements, self._conntrack):
            each.close()


@pytest.fixture
def lab(namespaces: Callable[[str], Namespace]) -> Iterator[Lab]:
    made = Lab(*(namespaces(role) for role in ("host", "out", "a", "b", "c")))
    host = made.host
    for each in (host, made.outside, made.a, made.b, made.c):
        each.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    host.run("ip", "link", "add", "br0", "type", "bridge")
    wire(host, "br0", HOST | GATEWAY)
    for name, pod, addresses in (("a", made.a, POD_A), ("b", made.b, POD_B)):
        join(host, f"v{name}", pod)
        host.run("ip", "link", "set", f"v{name}", "master", "br0")
        # With br_netfilter a translated frame back to its own pod is bridged, not routed.
        host.run("bridge", "link", "set", "dev", f"v{name}", "hairpin", "on")
        wire(pod, "eth0", addresses, gateways=GATEWAY)
    join(host, "vout", made.outside)
    wire(host, "vout", HOST)
    # The way back to pods exists, so that what was not masqueraded can be told by its source.
    wire(made.outside, "eth0", OUTSIDE, gateways=HOST)
    join(host, "vc", made.c)
    wire(host, "vc", {4: "10.78.0.1", 6: "fd78::1"})
    wire(made.c, "eth0", POD_C, gateways={4: "10.78.0.1", 6: "fd78::1"})
    with inside(host):
        for port in ("br0", "vc"):
            Sysctls().ensure(f"net/ipv4/conf/{port}/route_localnet", "1")
    with (
        Echo(made.a, "a", POD_PORT),
        Echo(made.b, "b", POD_PORT),
        Echo(made.c, "c", POD_PORT),
        Echo(made.outside, "outside", POD_PORT),
    ):
        yield made


def join(host: Namespace, name: str, pod: Namespace) -> None:
    host.run("ip", "link", "add", name, "type", "veth", "peer", "eth0", "netns", pod.name)
    host.run("ip", "link", "set", name, "up")


def wire(
    namespace: Namespace,
    device: str,
    addresses: dict[int, str],
    *,
    gateways: dict[int, str] | None = None,
) -> None:
    namespace.run("ip", "link", "set", device, "up")
    for version, address in addresses.items():
        length = {4: 24, 6: 64}[version]
        nodad = ["nodad"] if version == 6 else []
        namespace.run("ip", "addr", "add", f"{address}/{length}", "dev", device, *nodad)
    for version, gateway in (gateways or {}).items():
        namespace.run("ip", f"-{version}", "route", "add", "default", "via", gateway)


def pod(name: str, addresses: dict[int, str], **more: object) -> Published:
    subnets = {4: "/24", 6: "/64"}
    made = Published(
        who=Attachment("lab", name * 64, "eth0"),
        started_ns=1,
        addresses=tuple(ip_interface(addresses[v] + subnets[v]) for v in (4, 6)),
        subnets=(ip_network("10.77.0.0/24"), ip_network("fd77::/64")),
        host_name=f"v{name}",
        pod_mac="02:00:00:00:00:0a",
    )
    return replace(made, **more)  # type: ignore[arg-type]


def port(number: int, *, udp: bool = False, host_ip: str = "") -> tuple[PortMapping, ...]:
    return (
        PortMapping(
            host_port=number,
            container_port=POD_PORT,
            protocol=Protocol.UDP if udp else Protocol.TCP,
            host_ip=ip_address(host_ip) if host_ip else None,
        ),
    )


@FAMILIES
@TRANSPORTS
def test_outside_sees_the_hosts_address_and_neighbours_the_pods(
    lab: Lab, v: int, udp: bool
) -> None:
    lab.publish(pod("a", POD_A, masquerade=True))

    assert ask(lab.a, OUTSIDE[v], POD_PORT, udp=udp) == f"outside {HOST[v]}"
    assert ask(lab.a, POD_B[v], POD_PORT, udp=udp) == f"b {POD_A[v]}"
    assert ask(lab.b, OUTSIDE[v], POD_PORT, udp=udp) == f"outside {POD_B[v]}"


@FAMILIES
def test_a_pod_is_not_masqueraded_towards_any_subnet_of_its_network(lab: Lab, v: int) -> None:
    both = (ip_network("10.77.0.0/24"), ip_network("10.78.0.0/24"))
    six = (ip_network("fd77::/64"), ip_network("fd78::/64"))
    lab.publish(pod("a", POD_A, masquerade=True, subnets=both + six))

    assert ask(lab.a, POD_C[v], POD_PORT) == f"c {POD_A[v]}"


@FAMILIES
@TRANSPORTS
@pytest.mark.parametrize("bridge_filter", ["0", "1"], ids=["", "br_netfilter"])
def test_a_host_port_reaches_the_pod_from_everywhere(
    lab: Lab, v: int, udp: bool, bridge_filter: str
) -> None:
    for call in ("iptables", "ip6tables"):
        name = f"net/bridge/bridge-nf-call-{call}"
        with inside(lab.host):
            if Sysctls().get(name) is not None:
                Sysctls().ensure(name, bridge_filter)
            elif bridge_filter == "1":
                pytest.skip("this kernel has no br_netfilter")
    lab.publish(pod("a", POD_A, port_mappings=port(5000, udp=udp)))

    assert ask(lab.outside, HOST[v], 5000, udp=udp) == f"a {OUTSIDE[v]}"
    assert ask(lab.host, HOST[v], 5000, udp=udp) is not None
    assert ask(lab.b, HOST[v], 5000, udp=udp) == f"a {GATEWAY[v]}"
    assert ask(lab.c, HOST[v], 5000, udp=udp) == f"a {POD_C[v]}"
    assert ask(lab.a, HOST[v], 5000, udp=udp) == f"a {GATEWAY[v]}"


@TRANSPORTS
@pytest.mark.parametrize(("name", "addresses"), [("a", POD_A), ("c", POD_C)])
def test_a_host_port_is_reached_by_127_0_0_1(
    lab: Lab, name: str, addresses: dict[int, str], udp: bool
) -> None:
    routed = name == "c"
    lab.publish(pod(name, addresses, routed=routed, port_mappings=port(5000, udp=udp)))

    answer = ask(lab.host, "127.0.0.1", 5000, udp=udp)

    assert answer == f"{name} {'10.78.0.1' if routed else GATEWAY[4]}"


def test_sctp_to_a_host_port_arrives_at_the_pods_port(lab: Lab) -> None:
    """By hand: the kernel need not have SCTP sockets to translate SCTP."""
    mapping = PortMapping(host_port=5000, container_port=38412, protocol=Protocol.SCTP)
    lab.publish(pod("a", POD_A, port_mappings=(mapping,)))
    raw = (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP)
    with inside(lab.a):
        receiver = socket.socket(*raw)
    with inside(lab.outside):
        sender = socket.socket(*raw)
    with receiver, sender:
        receiver.settimeout(3)
        sender.sendto(sctp_init(40000, 5000), (HOST[4], 0))
        packet, (source, _) = receiver.recvfrom(100)

    assert source == OUTSIDE[4]
    assert struct.unpack_from(">HH", packet, 20) == (40000, 38412)


def sctp_init(source_port: int, port: int) -> bytes:
    """An INIT (RFC 9260 §3.3.2) with the checksum that conntrack insists on."""
    chunk = struct.pack(">BBHIIHHI", 1, 0, 20, 0x1234, 65536, 1, 1, 1)
    header = struct.pack(">HHI", source_port, port, 0)
    checksum = 0xFFFFFFFF
    for byte in header + bytes(4) + chunk:
        checksum ^= byte
        for _ in range(8):
            checksum = checksum >> 1 ^ (0x82F63B78 if checksum & 1 else 0)
    return header + struct.pack("<I", checksum ^ 0xFFFFFFFF) + chunk


@FAMILIES
def test_a_routed_pod_reaches_itself_by_its_host_port_and_others_keep_their_source(
    lab: Lab, v: int
) -> None:
    lab.publish(pod("c", POD_C, routed=True, port_mappings=port(5000)))

    assert ask(lab.c, HOST[v], 5000) == f"c {'10.78.0.1' if v == 4 else 'fd78::1'}"
    assert ask(lab.a, HOST[v], 5000) == f"c {POD_A[v]}"


@FAMILIES
def test_a_mapping_with_a_host_address_is_of_that_address_alone(lab: Lab, v: int) -> None:
    lab.publish(pod("a", POD_A, port_mappings=port(5000, host_ip=HOST[v])))
    other = 10 - v

    assert ask(lab.outside, HOST[v], 5000) == f"a {OUTSIDE[v]}"
    assert ask(lab.b, GATEWAY[v], 5000) is None
    assert ask(lab.outside, HOST[other], 5000) is None


def test_a_mapping_of_127_0_0_1_is_not_reached_from_outside(lab: Lab) -> None:
    lab.publish(pod("a", POD_A, port_mappings=port(5000, host_ip="127.0.0.1")))

    assert ask(lab.host, "127.0.0.1", 5000) == f"a {GATEWAY[4]}"
    assert ask(lab.outside, HOST[4], 5000) is None


@FAMILIES
def test_traffic_through_the_host_is_left_alone(lab: Lab, v: int) -> None:
    lab.publish(pod("a", POD_A, port_mappings=port(POD_PORT)))

    assert ask(lab.b, OUTSIDE[v], POD_PORT) == f"outside {POD_B[v]}"
    assert ask(lab.outside, POD_C[v], POD_PORT) == f"c {OUTSIDE[v]}"


@pytest.mark.parametrize("known", [True, False], ids=["tracked", "untracked"])
def test_nobody_on_the_wire_reaches_the_hosts_loopback(lab: Lab, known: bool) -> None:
    lab.b.run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
    lab.b.run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
    lab.b.run("ip", "route", "add", "127.0.0.1/32", "via", GATEWAY[4], "src", POD_B[4])
    if not known:
        on_host(lab, "filter hook prerouting priority raw", "ip daddr 127.0.0.1 notrack")
    with Echo(lab.host, "host", 6000):
        assert ask(lab.b, GATEWAY[4], 6000) == f"host {POD_B[4]}"
        assert ask(lab.b, "127.0.0.1", 6000) == f"host {POD_B[4]}"  # the hole that is to be closed

        lab.publish(pod("a", POD_A, port_mappings=port(5000)))

        assert ask(lab.b, "127.0.0.1", 6000, timeout=0.5) is None


def test_nobody_on_the_wire_has_127_0_0_1_translated_by_others(lab: Lab) -> None:
    lab.b.run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
    lab.b.run("ip", "route", "add", "127.0.0.1/32", "via", GATEWAY[4], "src", POD_B[4])
    lab.b.run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
    to_c = f"ip daddr 127.0.0.1 tcp dport 6000 dnat to {POD_C[4]}:{POD_PORT}"
    on_host(lab, "nat hook prerouting priority -150", to_c)
    assert ask(lab.b, "127.0.0.1", 6000) == f"c {POD_B[4]}"

    lab.publish(pod("a", POD_A, port_mappings=port(5000)))

    assert ask(lab.b, "127.0.0.1", 6000, timeout=0.5) is None


def test_what_others_translate_to_the_hosts_loopback_arrives(lab: Lab) -> None:
    lab.publish(pod("a", POD_A, port_mappings=port(5000)))
    to_itself = f"ip daddr {GATEWAY[4]} tcp dport 53 dnat to 127.0.0.1:6000"
    on_host(lab, "nat hook prerouting priority dstnat", to_itself)
    with Echo(lab.host, "host", 6000):
        assert ask(lab.b, GATEWAY[4], 53) == f"host {POD_B[4]}"


def on_host(lab: Lab, chain: str, rule: str) -> None:
    """Add a rule that is not ours."""
    lab.host.run("nft", f"table ip others {{ chain c {{ type {chain}; {rule}; }} ; }}")


@FAMILIES
def test_a_withdrawn_port_is_unreachable_and_the_former_holder_comes_back(lab: Lab, v: int) -> None:
    first = pod("a", POD_A, port_mappings=port(5000))
    second = pod("b", POD_B, port_mappings=port(5000), started_ns=2)
    with inside(lab.host), lab.publisher() as publisher:
        publisher.publish(first)
        publisher.publish(second)
        with_both = ask(lab.outside, HOST[v], 5000)
        publisher.withdraw(second.who)
        with_first = ask(lab.outside, HOST[v], 5000)
        publisher.withdraw(first.who)
        with_none = ask(lab.outside, HOST[v], 5000)

    assert with_both == f"b {OUTSIDE[v]}"
    assert with_first == f"a {OUTSIDE[v]}"
    assert with_none is None


@FAMILIES
def test_an_old_udp_flow_does_not_stick(lab: Lab, v: int) -> None:
    first = pod("a", POD_A, port_mappings=port(5000, udp=True))
    second = pod("b", POD_B, port_mappings=port(5000, udp=True), started_ns=2)
    answers = []
    with inside(lab.host), lab.publisher() as publisher, Echo(lab.host, "host", 5000):
        for step in (
            lambda: None,
            lambda: publisher.publish(first),
            lambda: publisher.publish(second),
            lambda: publisher.withdraw(second.who),
            lambda: publisher.withdraw(first.who),
        ):
            step()
            answers.append(ask(lab.outside, HOST[v], 5000, udp=True, source_port=40000))

    assert answers == [f"{name} {OUTSIDE[v]}" for name in ("host", "a", "b", "a", "host")]


def test_a_guarded_port_drops_frames_with_another_source(lab: Lab) -> None:
    mac = lab.a.run("cat", "/sys/class/net/eth0/address").strip()
    guarded = pod("a", POD_A, mac_spoof_check=True, pod_mac=mac)
    lab.publish(guarded)
    assert lab.a.pings(GATEWAY[4])

    lab.a.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99")

    assert not lab.a.succeeds("ping", "-c", "1", "-W", "1", GATEWAY[4])
    assert lab.b.pings(GATEWAY[4])


def test_nothing_published_makes_no_table(lab: Lab) -> None:
    lab.publish()

    assert lab.host.run("nft", "list", "tables") == ""


def test_a_flushed_ruleset_is_put_back_by_the_next_change(lab: Lab) -> None:
    with inside(lab.host), lab.publisher() as publisher:
        publisher.publish(pod("a", POD_A, masquerade=True, port_mappings=port(5000)))
        lab.host.run("nft", "flush", "ruleset")
        lost = publisher.missing(pod("a", POD_A, masquerade=True))
        publisher.publish(pod("b", POD_B, masquerade=True))

    assert lost == ["nft table inet isthmus-cni is not as made"]
    assert ask(lab.outside, HOST[4], 5000) == f"a {OUTSIDE[4]}"


def test_check_names_each_element_that_is_gone(lab: Lab) -> None:
    published = pod("a", POD_A, masquerade=True)
    with inside(lab.host), lab.publisher() as publisher:
        publisher.publish(published)
        before = publisher.missing(published)
        lab.host.run("nft", "flush", "set", "inet", "isthmus-cni", "masq6")
        after = publisher.missing(published)

    assert before == []
    assert after == [f'nft element masq6 {{ {POD_A[6]} comment "lab/{"a" * 12}/eth0" }} is missing']


def test_the_kernel_lists_exactly_the_plan_and_other_tables_stay(lab: Lab) -> None:
    lab.host.run("nft", "add", "table", "inet", "somebody-else")
    everybody = [
        pod("a", POD_A, masquerade=True, mac_spoof_check=True, port_mappings=port(5000)),
        pod("b", POD_B, masquerade=True, port_mappings=port(53, udp=True, host_ip=HOST[6])),
    ]
    lab.publish(*everybody)
    with inside(lab.host), Elements() as elements:
        runner = NftRunner()
        observed = NftTable(NAT, runner, elements).observe()
        guards = NftTable(MAC_GUARD, runner, elements).observe()

    assert observed is not None
    assert guards is not None
    assert observed | guards == plan(everybody)

    with inside(lab.host), Elements() as elements:
        for skeleton in (NAT, MAC_GUARD):
            NftTable(skeleton, NftRunner(), elements).remove()

    assert lab.host.run("nft", "list", "tables").split("\n") == ["table inet somebody-else", ""]


def test_a_table_of_another_layout_is_replaced_with_its_elements(lab: Lab) -> None:
    older = replace(NAT, chains=NAT.chains[:-1])
    with inside(lab.host):
        subprocess.run(["nft", "-f", "-"], input=older.script(), text=True, check=True)
    lab.publish(pod("a", POD_A, masquerade=True))

    assert ask(lab.a, OUTSIDE[4], POD_PORT) == f"outside {HOST[4]}"


def test_overlapping_networks_are_taken_by_the_kernel(lab: Lab) -> None:
    nets = [("10.0.0.0/8",), ("10.1.0.0/16", "10.2.0.0/24"), ("10.1.1.0/24", "10.2.0.0/16")]
    nets += [("10.64.0.0/10", "192.168.0.0/24"), ("10.77.0.0/24", "192.168.0.0/16")]
    everybody = [
        pod("a", POD_A, masquerade=True, started_ns=1, subnets=tuple(map(ip_network, group)))
        for group in nets
    ]
    everybody = [
        replace(each, who=Attachment(f"n{number}", "c", "eth0"))
        for number, each in enumerate(everybody)
    ]
    lab.publish(*everybody)
    with inside(lab.host), Elements() as elements:
        observed = NftTable(NAT, NftRunner(), elements).observe()

    assert observed == plan(everybody)


def test_swapping_owners_of_keys_is_one_accepted_transaction(lab: Lab) -> None:
    here = pod("a", POD_A, masquerade=True, port_mappings=port(5000))
    there = replace(here, who=Attachment("lab", "z", "eth0"), started_ns=2)
    with inside(lab.host), lab.publisher() as publisher:
        publisher.publish(here)
        publisher.publish(there)
        lost = publisher.missing(there)

    assert lost == []
