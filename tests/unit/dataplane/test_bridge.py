"""Bridges: what is sent to the kernel for one that is absent, there, foreign, or wrong."""

import errno
from dataclasses import replace
from ipaddress import ip_interface

import pytest

from dataplane import rtnl
from dataplane.bridge import Bridges
from dataplane.errors import DataplaneError
from dataplane.model import Bridge
from tests.unit.dataplane.fakes import FakeNetlink, address_payload, kind_of, link_payload

MAC = "02:11:22:33:44:55"
BR0 = Bridge(name="no-such-br", mac=MAC, mtu=1400, addresses=(ip_interface("10.9.0.1/24"),))
SIX = replace(BR0, addresses=(ip_interface("fd09::1/64"),))


@pytest.fixture
def kernel() -> FakeNetlink:
    made = FakeNetlink()
    made.links = [link_payload(7, "no-such-br", kind="bridge", mac=MAC)]
    return made


def refusing(kind: int, number: int) -> object:
    return lambda message: number if kind_of(message) == kind else 0


def test_an_absent_bridge_is_made_up_with_its_mac_and_address(kernel: FakeNetlink) -> None:
    made = Bridges().ensure(kernel, BR0)  # type: ignore[arg-type]

    assert (made.index, made.mac) == (7, MAC)
    assert kernel.sent == [
        rtnl.new_bridge("no-such-br", MAC, 1400, vlan_filtering=False),
        rtnl.set_link(7, flags=rtnl.UP, mac=MAC),
        rtnl.new_address(7, ip_interface("10.9.0.1/24")),
    ]


def test_what_is_known_is_not_looked_at_again_until_forgotten(kernel: FakeNetlink) -> None:
    bridges = Bridges()
    bridges.ensure(kernel, BR0)  # type: ignore[arg-type]
    before = len(kernel.sent)

    bridges.ensure(kernel, BR0)  # type: ignore[arg-type]
    again = len(kernel.sent)
    bridges.forget()
    bridges.ensure(kernel, BR0)  # type: ignore[arg-type]

    assert (again, len(kernel.sent) > again) == (before, True)


def test_another_wish_of_the_same_bridge_is_looked_at(kernel: FakeNetlink) -> None:
    bridges = Bridges()
    bridges.ensure(kernel, BR0)  # type: ignore[arg-type]
    del kernel.sent[:]

    bridges.ensure(kernel, SIX)  # type: ignore[arg-type]

    assert rtnl.new_address(7, ip_interface("fd09::1/64")) in kernel.sent


def test_a_bridge_of_somebody_else_keeps_its_mac(kernel: FakeNetlink) -> None:
    kernel.links = [link_payload(7, "no-such-br", kind="bridge", mac="0a:00:00:00:00:01")]
    kernel.refuse = refusing(rtnl.NEWLINK, errno.EEXIST)  # type: ignore[assignment]

    Bridges().ensure(kernel, BR0)  # type: ignore[arg-type]

    assert rtnl.set_link(7, flags=rtnl.UP, mac="0a:00:00:00:00:01") in kernel.sent


def test_a_mac_that_the_kernel_reset_is_given_again(kernel: FakeNetlink) -> None:
    kernel.links = [link_payload(7, "no-such-br", kind="bridge", mac="00:00:00:00:00:00")]

    Bridges().ensure(kernel, BR0)  # type: ignore[arg-type]

    assert rtnl.set_link(7, flags=rtnl.UP, mac=MAC) in kernel.sent


def test_an_address_that_is_there_is_not_given_again(kernel: FakeNetlink) -> None:
    kernel.addresses = [address_payload(7, ip_interface("10.9.0.1/24"))]

    Bridges().ensure(kernel, BR0)  # type: ignore[arg-type]

    assert rtnl.NEWADDR not in kernel.kinds


def test_another_address_is_refused_in_the_references_words(kernel: FakeNetlink) -> None:
    kernel.addresses = [address_payload(7, ip_interface("172.16.0.1/16"))]

    with pytest.raises(DataplaneError) as caught:
        Bridges().ensure(kernel, BR0)  # type: ignore[arg-type]

    assert str(caught.value) == (
        '"no-such-br" already has an IP address different from 10.9.0.1/24 '
        "(172.16.0.1/16); remove it or set forceAddress"
    )
    assert rtnl.NEWADDR not in kernel.kinds


def test_a_refused_bridge_is_looked_at_again_the_next_time(kernel: FakeNetlink) -> None:
    bridges = Bridges()
    kernel.addresses = [address_payload(7, ip_interface("172.16.0.1/16"))]
    with pytest.raises(DataplaneError):
        bridges.ensure(kernel, BR0)  # type: ignore[arg-type]
    kernel.addresses = []

    assert bridges.ensure(kernel, BR0).index == 7  # type: ignore[arg-type]


@pytest.mark.parametrize("force", [False, True])
def test_gateways_of_several_ranges_live_side_by_side(kernel: FakeNetlink, force: bool) -> None:
    gateways = (ip_interface("10.9.0.1/24"), ip_interface("10.8.0.1/24"))
    wanted = replace(BR0, addresses=gateways, force_address=force)
    kernel.addresses = [address_payload(7, gateways[0])]

    Bridges().ensure(kernel, wanted)  # type: ignore[arg-type]

    assert [kind_of(message) for message in kernel.sent].count(rtnl.DELADDR) == 0
    assert kernel.sent[-1] == rtnl.new_address(7, gateways[1])


def test_another_address_is_replaced_by_force(kernel: FakeNetlink) -> None:
    kernel.addresses = [address_payload(7, ip_interface("172.16.0.1/16"))]

    Bridges().ensure(kernel, replace(BR0, force_address=True))  # type: ignore[arg-type]

    assert kernel.sent[-2:] == [
        rtnl.delete_address(7, ip_interface("172.16.0.1/16")),
        rtnl.new_address(7, ip_interface("10.9.0.1/24")),
    ]


def test_addresses_of_other_links_and_of_the_other_family_do_not_matter(
    kernel: FakeNetlink,
) -> None:
    kernel.addresses = [
        address_payload(8, ip_interface("172.16.0.1/16")),
        address_payload(7, ip_interface("fe80::1/64")),
    ]

    Bridges().ensure(kernel, BR0)  # type: ignore[arg-type]

    assert rtnl.DELADDR not in kernel.kinds


def test_ipv6_addresses_that_do_not_overlap_live_side_by_side(kernel: FakeNetlink) -> None:
    kernel.addresses = [
        address_payload(7, ip_interface("fe80::1/64")),
        address_payload(7, ip_interface("fd08::1/64")),
    ]

    Bridges().ensure(kernel, SIX)  # type: ignore[arg-type]

    assert kernel.sent[-1] == rtnl.new_address(7, ip_interface("fd09::1/64"))


def test_an_overlapping_ipv6_address_is_refused(kernel: FakeNetlink) -> None:
    kernel.addresses = [address_payload(7, ip_interface("fd09::ffff/48"))]

    with pytest.raises(DataplaneError, match="already has an IP address different from fd09::1"):
        Bridges().ensure(kernel, SIX)  # type: ignore[arg-type]


def test_a_link_of_another_kind_is_refused(kernel: FakeNetlink) -> None:
    kernel.links = [link_payload(7, "no-such-br", kind="veth")]
    kernel.refuse = refusing(rtnl.NEWLINK, errno.EEXIST)  # type: ignore[assignment]

    with pytest.raises(DataplaneError) as caught:
        Bridges().ensure(kernel, BR0)  # type: ignore[arg-type]

    assert str(caught.value) == '"no-such-br" already exists but is not a bridge (it is a veth)'


def test_a_kernel_without_vlan_filtering_is_told_apart(kernel: FakeNetlink) -> None:
    kernel.refuse = refusing(rtnl.NEWLINK, errno.EOPNOTSUPP)  # type: ignore[assignment]

    with pytest.raises(DataplaneError, match="this kernel has no VLAN filtering on bridges"):
        Bridges().ensure(kernel, replace(BR0, vlan_filtering=True))  # type: ignore[arg-type]


def test_a_kernel_without_vlan_filtering_is_told_apart_on_a_bridge_that_is_there(
    kernel: FakeNetlink,
) -> None:
    answers = {
        rtnl.new_bridge("no-such-br", MAC, 1400, vlan_filtering=True): errno.EEXIST,
        rtnl.set_vlan_filtering(7): errno.EOPNOTSUPP,
    }
    kernel.refuse = lambda message: answers.get(message, 0)

    with pytest.raises(DataplaneError, match="this kernel has no VLAN filtering on bridges"):
        Bridges().ensure(kernel, replace(BR0, vlan_filtering=True))  # type: ignore[arg-type]


def test_another_refusal_to_filter_vlans_is_passed_on(kernel: FakeNetlink) -> None:
    answers = {rtnl.set_vlan_filtering(7): errno.EPERM}
    kernel.refuse = lambda message: answers.get(message, 0)

    with pytest.raises(DataplaneError, match="Operation not permitted"):
        Bridges().ensure(kernel, replace(BR0, vlan_filtering=True))  # type: ignore[arg-type]


def test_a_bridge_made_without_vlan_filtering_gets_it(kernel: FakeNetlink) -> None:
    Bridges().ensure(kernel, replace(BR0, vlan_filtering=True))  # type: ignore[arg-type]

    assert kernel.sent[:2] == [
        rtnl.new_bridge("no-such-br", MAC, 1400, vlan_filtering=True),
        rtnl.set_vlan_filtering(7),
    ]


def test_other_refusals_are_passed_on(kernel: FakeNetlink) -> None:
    kernel.refuse = refusing(rtnl.NEWLINK, errno.EPERM)  # type: ignore[assignment]

    with pytest.raises(DataplaneError, match="Operation not permitted"):
        Bridges().ensure(kernel, BR0)  # type: ignore[arg-type]


def test_a_promiscuous_bridge_is_made_so(kernel: FakeNetlink) -> None:
    Bridges().ensure(kernel, replace(BR0, promiscuous=True))  # type: ignore[arg-type]

    assert rtnl.set_link(7, flags=rtnl.UP | 0x100, mac=MAC) in kernel.sent


def test_a_shared_bridge_takes_gateways_of_other_subnets_and_no_second_one_of_its_own(
    kernel: FakeNetlink,
) -> None:
    shared = replace(BR0, shared=True)
    kernel.addresses = [address_payload(7, ip_interface("10.8.0.1/24"))]
    Bridges().ensure(kernel, shared)  # type: ignore[arg-type]
    kernel.addresses = [address_payload(7, ip_interface("10.9.0.9/24"))]

    with pytest.raises(DataplaneError, match=r"already has an IP address different from 10\.9"):
        Bridges().ensure(kernel, shared)  # type: ignore[arg-type]
