"""Who sends, and what the tables say where they are not whole; all else is in test_reconciler."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from dataplane.nft.objects import Protocol, element
from proxy.model import NodeView
from proxy.plan import node_elements
from proxy.tables import MAPS, NUMBERS
from proxy.walk import Fate, Flow, Packet, Reason, Source, Tables, packet_of

TO = ip_address("10.96.0.1")
PODS = (ip_network("10.244.0.0/16"),)
NODE = NodeView(name="here", addresses=(ip_network("192.0.2.1/32"),))
PACKET = Packet(
    source=Source.POD, source_address=ip_address("10.244.1.7"),
    address=TO, protocol=Protocol.TCP, port=80,
)  # fmt: skip


@pytest.mark.parametrize(
    ("sender", "source"),
    [
        ("10.244.1.7", Source.POD),
        ("192.0.2.1", Source.NODE),
        ("127.0.0.1", Source.NODE),
        ("203.0.113.9", Source.OUTSIDE),
    ],
)
def test_who_sends_is_told_by_the_address(sender: str, source: Source) -> None:
    own = {ip_address("192.0.2.1")}

    found = packet_of(Flow(ip_address(sender), TO, Protocol.TCP, 80), PODS, own=own)

    assert (found.source, found.is_to_this_node) == (source, False)


def test_a_frontend_without_slots_leads_nowhere() -> None:
    entry = element(MAPS[4].services, (TO, Protocol.TCP, 80), (NUMBERS["pick-2"],))

    outcome = Tables([*node_elements(NODE), entry]).fate(PACKET)

    assert outcome.fate is Fate.DROPPED


def test_a_node_port_is_open_at_the_addresses_meant_for_it_alone() -> None:
    port = element(MAPS[4].nodeports, (Protocol.TCP, 30080), (NUMBERS["refuse"],))
    tables = Tables([*node_elements(NODE), port])

    def reason(address: str) -> Reason:
        to = replace(PACKET, address=ip_address(address), port=30080, is_to_this_node=True)
        return tables.fate(to).reason

    assert reason("192.0.2.1") is Reason.NOBODY
    assert reason("192.0.2.2") is reason("127.0.0.1") is Reason.NOT_OPEN
