"""Which flows are forgotten, told by the kernel's own list of them."""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from dataplane.conntrack import Conntrack, Match
from dataplane.flows import Flows
from dataplane.nft.objects import Protocol
from tests.kernel.conftest import Namespace
from tests.kernel.sockets import inside

pytestmark = pytest.mark.kernel

OWN = {4: "10.66.0.1", 6: "fd66::1"}
POD = {4: "10.66.0.2", 6: "fd66::2"}
FAR = {4: "10.66.0.3", 6: "fd66::3"}
RULES = """
table inet tracked {
    chain out {
        type nat hook output priority -100;
        udp dport 700 dnat ip to 10.66.0.2:53
        udp dport 700 dnat ip6 to [fd66::2]:53
    }
}
"""


@dataclass(slots=True)
class Tracked:
    """A namespace whose own packets are tracked, and its conntrack."""

    namespace: Namespace
    conntrack: Conntrack

    def send(self, destination: str, port: int, *, source: str) -> None:
        family = socket.AF_INET6 if ":" in destination else socket.AF_INET
        with inside(self.namespace), socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.bind((source, 0))
            sender.sendto(b"?", (destination, port))

    def flows(self, v: int) -> set[tuple[str, str, int]]:
        """Source, destination and port of every flow, as first sent."""
        return {
            (str(each.original.source), str(each.original.destination), each.original.port)
            for each in self.conntrack.entries(v)
        }


class OldConntrack(Conntrack):
    """As on a kernel that cannot delete by filter."""

    def _delete_by_filter(self, _: Sequence[Sequence[Match]]) -> bool:
        return False


@pytest.fixture(params=[Conntrack, OldConntrack], ids=["filter", "list"])
def tracked(
    request: pytest.FixtureRequest, namespaces: Callable[[str], Namespace]
) -> Iterator[Tracked]:
    namespace = namespaces("ct")
    namespace.run("ip", "link", "add", "here", "type", "veth", "peer", "there")
    for device, address in (("here", OWN), ("here", POD)):
        namespace.run("ip", "link", "set", device, "up")
        for each in address.values():
            nodad = ["nodad"] if ":" in each else []
            namespace.run("ip", "addr", "add", each, "dev", device, *nodad)
    namespace.run("ip", "link", "set", "there", "up")
    namespace.run("ip", "route", "add", FAR[4], "dev", "here")
    namespace.run("ip", "-6", "route", "add", FAR[6], "dev", "here")
    for each in FAR.values():
        mac = "02:00:00:00:00:01"
        namespace.run("ip", "neigh", "add", each, "lladdr", mac, "dev", "here", "nud", "permanent")
    namespace.run("nft", RULES)
    with ExitStack() as stack:
        with inside(namespace):
            made = stack.enter_context(request.param())
        yield Tracked(namespace, made)


@pytest.mark.parametrize("v", [4, 6])
def test_an_address_loses_the_flows_from_it_to_it_and_translated_to_it(
    tracked: Tracked, v: int
) -> None:
    tracked.send(FAR[v], 1, source=POD[v])
    tracked.send(POD[v], 2, source=OWN[v])
    tracked.send(FAR[v], 700, source=OWN[v])
    tracked.send(FAR[v], 3, source=OWN[v])
    before = tracked.flows(v)

    tracked.conntrack.flush_address(ip_address(POD[v]))

    kept = (OWN[v], FAR[v], 3)
    assert before == {
        (POD[v], FAR[v], 1),
        (OWN[v], POD[v], 2),
        (OWN[v], FAR[v], 700),
        kept,
    }
    assert tracked.flows(v) == {kept}


@pytest.mark.parametrize("v", [4, 6])
def test_a_host_port_loses_its_own_flows_and_other_hosts_keep_theirs(
    tracked: Tracked, v: int
) -> None:
    tracked.send(OWN[v], 53, source=POD[v])
    tracked.send(FAR[v], 53, source=POD[v])
    tracked.send(OWN[v], 54, source=POD[v])

    tracked.conntrack.flush_port(Protocol.TCP, 53)
    before = tracked.flows(v)
    tracked.conntrack.flush_port(Protocol.UDP, 53)

    kept = {(POD[v], FAR[v], 53), (POD[v], OWN[v], 54)}
    assert before == kept | {(POD[v], OWN[v], 53)}
    assert tracked.flows(v) == kept


@pytest.mark.parametrize("v", [4, 6])
def test_a_host_port_of_one_address_leaves_the_others(tracked: Tracked, v: int) -> None:
    tracked.send(OWN[v], 53, source=POD[v])
    tracked.send(POD[v], 53, source=OWN[v])

    tracked.conntrack.flush_port(Protocol.UDP, 53, ip_address(POD[v]))

    assert tracked.flows(v) == {(POD[v], OWN[v], 53)}


def test_flushing_nothing_is_no_error(tracked: Tracked) -> None:
    for each in (POD[4], POD[6]):
        tracked.conntrack.flush_address(ip_address(each))
    tracked.conntrack.flush_port(Protocol.SCTP, 9)

    assert tracked.flows(4) == set()


def flows(v: int, address: str | None, port: int, to: str | None = None) -> Flows:
    where, target = (ip_address(each) if each else None for each in (address, to))
    return Flows(v, where, Protocol.UDP, port, target)


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("others", [0, 20])
def test_flows_to_a_former_endpoint_are_forgotten_and_others_go_on(
    tracked: Tracked, v: int, others: int
) -> None:
    tracked.send(FAR[v], 700, source=OWN[v])
    tracked.send(FAR[v], 3, source=OWN[v])
    tracked.send(POD[v], 53, source=OWN[v])
    more = [flows(v, FAR[v], 900 + n, POD[v]) for n in range(others)]

    tracked.conntrack.forget([flows(v, FAR[v], 700, OWN[v]), flows(v, POD[v], 700, POD[v]), *more])
    before = tracked.flows(v)
    tracked.conntrack.forget([flows(v, FAR[v], 700, POD[v]), *more])

    kept = {(OWN[v], FAR[v], 3), (OWN[v], POD[v], 53)}
    assert before == kept | {(OWN[v], FAR[v], 700)}
    assert tracked.flows(v) == kept


@pytest.mark.parametrize("v", [4, 6])
def test_translated_flows_are_found_by_whom_they_lead_to(tracked: Tracked, v: int) -> None:
    tracked.send(FAR[v], 700, source=OWN[v])  # translated to the pod
    tracked.send(FAR[v], 3, source=OWN[v])
    there, other = flows(v, FAR[v], 700, POD[v]), flows(v, FAR[v], 700, OWN[v])

    assert tracked.conntrack.find([there, other, flows(v, FAR[v], 3, FAR[v])]) == {there}
    assert tracked.conntrack.find([]) == set()
    assert tracked.conntrack.leading() == set()  # datagrams are no connections


@pytest.mark.parametrize("v", [4, 6])
@pytest.mark.parametrize("others", [0, 20])
def test_flows_at_a_frontend_are_forgotten_whatever_became_of_them(
    tracked: Tracked, v: int, others: int
) -> None:
    tracked.send(FAR[v], 700, source=OWN[v])
    tracked.send(FAR[v], 3, source=OWN[v])
    more = [flows(v, FAR[v], 900 + n) for n in range(others)]

    tracked.conntrack.forget([flows(v, FAR[v], 700), flows(v, FAR[v], 3), *more])

    assert tracked.flows(v) == set()


@pytest.mark.parametrize("v", [4, 6])
def test_flows_that_were_translated_to_who_still_answers_are_kept(tracked: Tracked, v: int) -> None:
    tracked.send(FAR[v], 700, source=OWN[v])  # translated to the pod
    tracked.send(FAR[v], 3, source=OWN[v])
    kept = frozenset({ip_address(POD[v])})

    tracked.conntrack.forget([flows(v, FAR[v], port)._replace(kept=kept) for port in (700, 3)])

    assert tracked.flows(v) == {(OWN[v], FAR[v], 700)}


@pytest.mark.parametrize("v", [4, 6])
def test_a_node_port_is_one_of_this_host_and_of_no_other(tracked: Tracked, v: int) -> None:
    tracked.send(OWN[v], 30053, source=POD[v])
    tracked.send(FAR[v], 30053, source=POD[v])

    tracked.conntrack.forget([flows(v, None, 30053)])

    assert tracked.flows(v) == {(POD[v], FAR[v], 30053)}
