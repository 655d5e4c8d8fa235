"""What leaves the cluster, as who receives it sees it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_network

import pytest

from masquerade.settings import Settings
from routing.settings import Mode
from tests.kernel.conftest import Namespace
from tests.kernel.routed_site import (
    OUTSIDE,
    POOLS,
    Site,
    masquerader,
    routed_site,
    standard,
)
from tests.kernel.sockets import Echo, ask

pytestmark = pytest.mark.kernel

PORT = 7000
NODE, POD = ("192.0.2.1", "2001:db8:1::1"), ("10.80.1.5", "fd80::105")
Keep = Callable[..., bool]


@pytest.fixture
def site(namespaces: Callable[[str], Namespace]) -> Iterator[Site]:
    with routed_site(namespaces) as site:
        yield site


@pytest.fixture
def pods(site: Site) -> dict[str, tuple[Namespace, str, str]]:
    pods = standard(site, Mode.AUTO)
    # Else what keeps its address would get no answer.
    for block, via in (("10.80.1.0/26", NODE[0]), ("fd80::100/122", NODE[1])):
        site.router.run("ip", "route", "add", block, "via", via)
    return pods


@pytest.fixture
def keep(site: Site, pods: dict[str, tuple[Namespace, str, str]]) -> Keep:
    return masquerader(site.hosts["a"])


def seen(pod: Namespace, server: Namespace, addresses: tuple[str, str]) -> tuple[str, str]:
    """By which addresses *server* knows *pod*, asked at *addresses*, by TCP and UDP alike."""
    with Echo(server, "by", PORT):
        found = [ask(pod, address, PORT, udp=udp) for address in addresses for udp in (False, True)]
    assert found[0] == found[1]
    assert found[2] == found[3]
    return str(found[0])[3:], str(found[2])[3:]


def test_pods_are_masqueraded_towards_the_outside_alone(
    site: Site, pods: dict[str, tuple[Namespace, str, str]], keep: Keep
) -> None:
    pod = pods["a"][0]
    keep()

    assert seen(pod, site.outside, OUTSIDE) == NODE
    for other in ("b", "c"):
        host = site.hosts[other]
        assert seen(pod, pods[other][0], pods[other][1:]) == POD
        assert seen(pod, host.namespace, tuple(map(str, host.addresses))) == POD  # type: ignore[arg-type]


def test_ports_are_chosen_at_random(
    site: Site, pods: dict[str, tuple[Namespace, str, str]], keep: Keep
) -> None:
    keep()
    rules = site.hosts["a"].namespace.run("nft", "list", "table", "inet", "isthmus-masquerade")

    assert rules.count("masquerade fully-random") == 2


def test_configured_ranges_and_link_local_ones_are_kept(
    site: Site, pods: dict[str, tuple[Namespace, str, str]], keep: Keep
) -> None:
    pod = pods["a"][0]
    keep(
        Settings(
            non_masquerade_cidrs=(ip_network("198.51.100.0/24"), ip_network("2001:db8:9::/48"))
        )
    )
    kept = seen(pod, site.outside, OUTSIDE)
    keep(Settings())

    assert kept == POD
    assert seen(pod, site.outside, OUTSIDE) == NODE
    # Overlapping ranges are one to the kernel.
    keep(Settings(non_masquerade_cidrs=(ip_network("10.0.0.0/8"), ip_network("fe00::/7"))))
    assert seen(pod, site.outside, OUTSIDE) == NODE


def test_a_pool_has_a_switch(
    site: Site, pods: dict[str, tuple[Namespace, str, str]], keep: Keep
) -> None:
    pod = pods["a"][0]
    keep(Settings(), (replace(POOLS[0], masquerade=False), POOLS[1]))

    assert seen(pod, site.outside, OUTSIDE) == (POD[0], NODE[1])


def test_a_new_node_is_kept_at_once_and_a_flow_goes_on(
    site: Site, pods: dict[str, tuple[Namespace, str, str]], keep: Keep
) -> None:
    keep()
    new = site.add("d", "two", "203.0.113.4", "2001:db8:2::4")
    new.give("10.80.4.0/26", "fd80::400/122")
    site.settle()
    changed = keep()

    assert changed
    assert seen(pods["a"][0], new.namespace, ("203.0.113.4", "2001:db8:2::4")) == POD


def test_a_table_that_was_flushed_is_made_anew(
    site: Site, pods: dict[str, tuple[Namespace, str, str]], keep: Keep
) -> None:
    host = site.hosts["a"].namespace
    keep()
    host.run("nft", "flush", "ruleset")
    # Something has to change, or to be doubted, until it is looked at.
    keep(Settings(masquerade_link_local=True))

    assert seen(pods["a"][0], site.outside, OUTSIDE) == NODE


def test_nothing_is_touched_before_pools_are_known_and_without_settings_it_goes(
    site: Site, pods: dict[str, tuple[Namespace, str, str]], keep: Keep
) -> None:
    host = site.hosts["a"].namespace
    show = ("nft", "list", "table", "inet", "isthmus-masquerade")
    unknown = keep(Settings(), ())
    before = host.succeeds(*show)
    keep()
    keep(Settings(), ())
    kept = seen(pods["a"][0], site.outside, OUTSIDE)
    keep(None)

    assert (unknown, before, kept) == (False, False, NODE)
    assert not host.succeeds(*show)
    assert seen(pods["a"][0], site.outside, OUTSIDE) == POD
