"""Links of a host that is busy, short of descriptors, or changing while it is listed."""

import errno
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dataplane import rtnl
from dataplane.errors import DataplaneError, NetlinkError
from dataplane.links import LinkRemover, Links
from dataplane.netlink import Netlink
from tests.kernel.conftest import Namespace
from tests.kernel.sockets import inside

pytestmark = pytest.mark.kernel


@pytest.fixture
def host(namespaces: Callable[[str], Namespace]) -> Namespace:
    return namespaces("links")


@pytest.fixture
def links(host: Namespace) -> Iterator[Links]:
    with inside(host):
        found = Links()
        with found.host():
            yield found


def test_addresses_are_those_of_one_link(host: Namespace, links: Links) -> None:
    host.run("ip", "link", "add", "a0", "type", "veth", "peer", "a1")
    host.run("ip", "link", "add", "b0", "type", "veth", "peer", "b1")
    host.run("ip", "address", "add", "10.9.0.1/24", "dev", "a0")
    host.run("ip", "address", "add", "fd09::1/64", "dev", "a0")
    host.run("ip", "address", "add", "10.9.1.1/24", "dev", "b0")
    index = links.host().index_of("a0")

    listed = list(links.host().dump(rtnl.list_addresses(index)))

    assert sorted(map(str, links.addresses(index))) == ["10.9.0.1/24", "fd09::1/64"]
    assert len(listed) == 2  # the kernel chose, not we


def test_a_link_that_is_gone_has_no_addresses(links: Links) -> None:
    assert links.addresses(9999) == []


def test_a_listing_that_the_kernel_refuses_is_no_empty_listing(links: Links) -> None:
    with pytest.raises(NetlinkError) as refused:
        links.host().dump(rtnl.list_addresses(9999))

    assert refused.value.errno == errno.ENODEV


def test_whoever_waited_for_a_deletion_that_broke_is_told() -> None:
    begun, joined = threading.Event(), threading.Event()

    def no_socket() -> Netlink:
        begun.set()
        assert joined.wait(10)
        raise OSError(errno.EMFILE, "Too many open files")

    remover = LinkRemover(no_socket)
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(remover.remove, "isth00000000001")
        assert begun.wait(10)
        others = [threads.submit(remover.remove, f"isth0000000000{n}") for n in (2, 3)]
        while len(remover._waiting) < 2:
            threading.Event().wait(0.005)
        joined.set()
        failures = [future.exception(10) for future in (first, *others)]

    assert isinstance(failures[0], OSError)
    # One of them tried for both.
    assert all(failures)
    assert any(isinstance(failure, DataplaneError) for failure in failures)
