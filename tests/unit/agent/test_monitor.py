"""Which of the kernel's news are a loss."""

import socket
import struct
from ipaddress import ip_interface, ip_network

import pytest

from agent import monitor
from dataplane import rtnl
from dataplane.netlink import text
from tests.unit.dataplane.fakes import address_payload, link_payload, route_payload

DEFAULT4, DEFAULT6 = ip_network("0.0.0.0/0"), ip_network("::/0")
POD = ip_network("10.9.0.2/32")


DELTABLE, DELCHAIN, DELRULE, NEWSET, DELSET = 0xA02, 0xA05, 0xA08, 0xA09, 0xA0B
NEWELEMENT, DELELEMENT = 0xA0C, 0xA0E


def part(table: str) -> bytes:
    """What the kernel says of a part of *table*: nfgenmsg, then the table's name first."""
    return bytes([1, 0, 0, 0]) + text(1, table) + text(2, "isthmus-cni")


def address(scope: int) -> bytes:
    payload = address_payload(4, ip_interface("10.9.0.1/24"))
    return payload[:3] + bytes([scope]) + payload[4:]


@pytest.mark.parametrize(
    ("kind", "payload", "is_loss"),
    [
        (rtnl.DELADDR, address(0), True),
        (rtnl.DELADDR, address(rtnl.SCOPE_LINK), False),
        (rtnl.DELADDR, address(rtnl.SCOPE_HOST), False),
        (rtnl.NEWADDR, address(0), False),
        (rtnl.DELROUTE, route_payload(DEFAULT4, (None, 4)), True),
        (rtnl.NEWROUTE, route_payload(DEFAULT6, (None, 4)), True),
        (rtnl.DELROUTE, route_payload(POD, (None, 4)), False),
        (rtnl.NEWROUTE, route_payload(POD, (None, 4)), False),
        (DELTABLE, part("isthmus-cni"), True),
        (DELCHAIN, part("isthmus-cni"), True),
        (DELRULE, part("isthmus-cni"), True),
        (DELSET, part("isthmus-cni"), True),
        (DELRULE, part("isthmus-cni-2"), False),
        (DELRULE, part("filter"), False),
        (DELRULE, b"", False),
        (NEWSET, part("isthmus-cni"), False),
        (NEWELEMENT, part("isthmus-cni"), False),
        (DELELEMENT, part("isthmus-cni"), False),
        (rtnl.NEWLINK, link_payload(4, "eth0"), False),
    ],
)
def test_a_loss_is_an_address_a_change_of_uplinks_or_a_part_of_our_tables(
    kind: int, payload: bytes, is_loss: bool
) -> None:
    assert monitor.is_loss(kind, memoryview(payload)) is is_loss


@pytest.mark.parametrize(
    ("kind", "table", "is_touched"),
    [
        (NEWELEMENT, "isthmus-services", True),
        (DELELEMENT, "isthmus-services", True),
        (DELRULE, "isthmus-services", True),
        (NEWSET, "isthmus-services", False),
        (DELELEMENT, "isthmus-cni", False),
    ],
)
def test_a_table_is_touched_by_elements_too(kind: int, table: str, is_touched: bool) -> None:
    assert monitor.is_touched(kind, memoryview(part(table)), "isthmus-services") is is_touched


def test_scopes_and_lengths_are_where_the_kernel_puts_them() -> None:
    head = struct.pack("=BBBBI", socket.AF_INET, 24, 0, 253, 4)

    assert head[3] == rtnl.SCOPE_LINK
    assert route_payload(POD, (None, 4))[1] == 32
