"""Which of the kernel's news are a loss."""

import socket
import struct
from ipaddress import ip_interface, ip_network

import pytest

from agent.monitor import _matters
from dataplane import rtnl
from tests.unit.dataplane.fakes import address_payload, link_payload, route_payload

DEFAULT4, DEFAULT6 = ip_network("0.0.0.0/0"), ip_network("::/0")
POD = ip_network("10.9.0.2/32")


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
        (rtnl.NEWLINK, link_payload(4, "eth0"), False),
    ],
)
def test_a_loss_is_an_address_or_a_change_of_uplinks(
    kind: int, payload: bytes, is_loss: bool
) -> None:
    assert _matters(kind, memoryview(payload)) is is_loss


def test_scopes_and_lengths_are_where_the_kernel_puts_them() -> None:
    head = struct.pack("=BBBBI", socket.AF_INET, 24, 0, 253, 4)

    assert head[3] == rtnl.SCOPE_LINK
    assert route_payload(POD, (None, 4))[1] == 32
