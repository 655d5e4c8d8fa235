"""Settings are of the namespace of the thread that asks."""

import threading
from collections.abc import Callable

import pytest

from dataplane.sysctl import Sysctls
from tests.kernel.conftest import Namespace
from tests.kernel.sockets import inside

pytestmark = pytest.mark.kernel


def test_a_thread_in_a_namespace_sees_and_sets_that_ones_settings(
    namespaces: Callable[[str], Namespace],
) -> None:
    here, there = namespaces("a"), namespaces("b")
    name = "net/ipv4/ip_forward"

    def enable() -> None:
        with inside(here):
            Sysctls().enable_forwarding(ipv4=True, ipv6=True)

    thread = threading.Thread(target=enable)
    thread.start()
    thread.join()
    with inside(there):
        other = Sysctls().get(name)
    with inside(here):
        own = Sysctls().get(name)

    assert (own, other) == ("1", "0")
    assert here.run("cat", "/proc/sys/net/ipv6/conf/all/forwarding") == "1\n"


def test_an_interface_name_may_have_dots(namespaces: Callable[[str], Namespace]) -> None:
    namespace = namespaces("dots")
    namespace.run("ip", "link", "add", "eth0.5", "type", "bridge")

    with inside(namespace):
        Sysctls().allow_localhost_ports("eth0.5")
        value = Sysctls().get("net/ipv4/conf/eth0.5/route_localnet")

    assert value == "1"
