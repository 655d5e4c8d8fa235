"""Announcements, as the kernel of a neighbour understands them."""

from collections.abc import Callable
from ipaddress import ip_address

import pytest

from dataplane.announce import AnnouncementFailed, announce
from tests.kernel.conftest import Namespace
from tests.kernel.sockets import inside

pytestmark = pytest.mark.kernel

ADDRESSES = ("10.64.0.2", "fd64::2")


@pytest.fixture
def neighbours(namespaces: Callable[[str], Namespace]) -> tuple[Namespace, Namespace]:
    pod, other = namespaces("pod"), namespaces("other")
    pod.run("ip", "link", "add", "eth0", "type", "veth", "peer", "eth0", "netns", other.name)
    for namespace in (pod, other):
        namespace.run("sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=0")
        namespace.run("ip", "link", "set", "eth0", "up")
    pod.run("ip", "addr", "add", "fd64::3/64", "dev", "eth0", "nodad")
    other.run("ip", "addr", "add", "fd64::1/64", "dev", "eth0", "nodad")
    # A link carries nothing until the kernel's link watch has looked at it.
    assert pod.pings("fd64::1")
    return pod, other


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_neighbour_learns_the_new_mac_of_an_address_it_knew(
    neighbours: tuple[Namespace, Namespace], address: str
) -> None:
    pod, other = neighbours
    mac = pod.run("cat", "/sys/class/net/eth0/address").strip()
    stale = ("lladdr", "02:00:00:00:00:99", "dev", "eth0", "nud", "stale")
    other.run("ip", "neigh", "add", address, *stale)
    # The kernel ignores news within locktime of the last.
    other.run("sysctl", "-qw", "net.ipv4.neigh.eth0.locktime=0")

    with inside(pod):
        announce("eth0", mac, [ip_address(address)])

    assert f"lladdr {mac}" in other.run("ip", "neigh", "show", address)


def test_an_interface_that_is_not_there_is_named(
    neighbours: tuple[Namespace, Namespace],
) -> None:
    with inside(neighbours[0]), pytest.raises(AnnouncementFailed, match="eth7"):
        announce("eth7", "02:00:00:00:00:01", [ip_address("10.0.0.1")])
