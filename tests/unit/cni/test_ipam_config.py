"""The ipam section: host-local's keys, our own, and other plugins' names."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from cni.document import Section
from cni.errors import CNIError
from cni.ipam_config import IPAMConf, delegate_type, parse_ipam
from dataplane.model import Route
from ipam.ranges import Range, RangeSet

V4 = RangeSet((Range.of(ip_network("10.1.0.0/16")),))
V6 = RangeSet((Range.of(ip_network("fd00:1::/64")),))


def ipam(section: dict[str, Any], version: str = "1.0.0", **runtime: object) -> IPAMConf:
    whole = Section({"ipam": section, "runtimeConfig": runtime})
    return parse_ipam(whole.section("ipam"), whole.section("runtimeConfig"), version)


def test_a_subnet_alone_is_a_whole_configuration() -> None:
    assert ipam({"subnet": "10.1.0.0/16"}) == IPAMConf(range_sets=(V4,))


def test_ranges_take_every_key_in_any_case() -> None:
    lower = {
        "subnet": "10.1.0.0/16",
        "rangeStart": "10.1.0.5",
        "rangeEnd": "10.1.0.9",
        "gateway": "10.1.255.254",
    }
    upper = {key[0].upper() + key[1:]: value for key, value in lower.items()}
    wanted = Range.of(
        ip_network("10.1.0.0/16"),
        start=ip_address("10.1.0.5"),
        end=ip_address("10.1.0.9"),
        gateway=ip_address("10.1.255.254"),
    )

    for spelling in (lower, upper):
        assert ipam({"ranges": [[spelling]]}).range_sets == (RangeSet((wanted,)),)
    assert ipam(lower).range_sets == (RangeSet((wanted,)),)


def test_the_capability_comes_first_and_the_plain_subnet_before_ranges() -> None:
    found = ipam(
        {"ranges": [[{"subnet": "fd00:1::/64"}]], "subnet": "10.1.0.0/16"},
        ipRanges=[[{"Subnet": "10.2.0.0/24"}, {"Subnet": "10.3.0.0/24"}]],
    )

    assert [str(ranges) for ranges in found.range_sets] == [
        "10.2.0.0/24, 10.3.0.0/24",
        "10.1.0.0/16",
        "fd00:1::/64",
    ]
    assert found.has_ipv6


@pytest.mark.parametrize(
    ("section", "pools"),
    [
        ({"type": "isthmus"}, ()),
        ({"pool": None, "ranges": []}, ()),
        ({"pool": []}, ()),
        ({"pool": "blue"}, ("blue",)),
        ({"Pool": ["blue", "blue6"]}, ("blue", "blue6")),
    ],
)
def test_without_ranges_addresses_come_from_blocks(
    section: dict[str, Any], pools: tuple[str, ...]
) -> None:
    found = ipam({**section, "reservations": ["10.1.0.7"]})

    assert (found.from_blocks, found.pools, found.range_sets) == (True, pools, ())
    assert found.reservations == (ip_network("10.1.0.7/32"),)
    assert not ipam({"subnet": "10.1.0.0/16"}).from_blocks


def test_routes_reservations_and_resolv_conf_are_read() -> None:
    found = ipam(
        {
            "subnet": "10.1.0.0/16",
            "routes": [{"dst": "10.9.1.2/16", "gw": "10.1.0.1", "mtu": 1400, "scope": 0}],
            "reservations": ["10.1.0.7", "10.1.1.0/24"],
            "resolvConf": "/etc/resolv.conf",
            "dataDir": "/run/ignored",
        }
    )

    assert found.routes == (
        Route(dst=ip_network("10.9.0.0/16"), via=ip_address("10.1.0.1"), mtu=1400, scope=0),
    )
    assert found.reservations == (ip_network("10.1.0.7/32"), ip_network("10.1.1.0/24"))
    assert found.resolv_conf == "/etc/resolv.conf"


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ({"pool": "blue", "subnet": "10.1.0.0/16"}, "cannot set pool and ranges at the same"),
        ({"pool": ""}, r'ipam\.pool: "" is not the name of a pool'),
        ({"pool": 7}, r"ipam\.pool: 7 is not a string"),
        ({"pool": ["blue", 7]}, r"ipam\.pool: .* is not a list of strings"),
        ({"pool": ["blue", "blue"]}, r"ipam\.pool: .*a list of different ones"),
        ({"ranges": [[]]}, "at least one range"),
        ({"ranges": [{"subnet": "10.1.0.0/16"}]}, r"ipam\.ranges\[0\]: .* is not a list of obj"),
        ({"ranges": [[{}]]}, r"ipam\.ranges\[0\]\[0\]\.subnet: null"),
        ({"subnet": "10.1.2.3/16"}, r"ipam\.subnet: \"10\.1\.2\.3/16\" .*meant: 10\.1\.0\.0/16"),
        ({"subnet": "127.0.0.0/24"}, r"ipam\.subnet.*127\.0\.0\.0/8, which is loopback"),
        ({"ranges": [[{"subnet": "fe80::/64"}]]}, r"ranges\[0\]\[0\]\.subnet.*is link-local"),
        ({"subnet": "10.1.0.0/31"}, "too small to allocate from"),
        ({"subnet": "10.1.0.0/16", "rangeStart": "10.2.0.1"}, r"rangeStart 10\.2\.0\.1 is not in"),
        ({"subnet": "10.1.0.0/16", "rangeEnd": "x"}, r'ipam\.rangeEnd: "x"'),
        ({"ranges": [[{"subnet": "10.1.0.0/16"}, {"subnet": "fd00::/64"}]]}, "mixes IPv4 and IPv6"),
        ({"ranges": [[{"subnet": "10.1.0.0/16"}, {"subnet": "10.1.0.0/24"}]]}, "overlap"),
        ({"ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "10.1.0.0/24"}]]}, "sets overlap"),
        ({"subnet": "10.1.0.0/16", "reservations": ["10.1.0.1/24"]}, r"ipam\.reservations"),
        ({"subnet": "10.1.0.0/16", "routes": [{"dst": "x"}]}, r"ipam\.routes\[0\]\.dst"),
    ],
)
def test_ranges_that_cannot_serve_are_refused_by_name(
    section: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(CNIError, match=complaint) as caught:
        ipam(section)

    assert caught.value.code == 7


def test_versions_before_0_3_0_take_one_set_of_each_family() -> None:
    both = {"ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00:1::/64"}]]}
    two = {"ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "10.2.0.0/16"}]]}

    assert ipam(both, "0.2.0").range_sets == (V4, V6)
    assert len(ipam(two, "0.3.0").range_sets) == 2
    with pytest.raises(CNIError, match=r"0\.2\.0 does not support more than 1 address per family"):
        ipam(two, "0.2.0")


@pytest.mark.parametrize(
    ("name", "delegate"),
    [("isthmus", ""), ("isthmus-ipam", ""), (None, ""), ("host-local", "host-local")],
)
def test_only_a_type_that_is_not_ours_is_a_delegate(name: str | None, delegate: str) -> None:
    assert delegate_type(Section({"type": name})) == delegate


@pytest.mark.parametrize("name", ["../x", "/bin/sh", "a/b", "..", "."])
def test_a_delegate_is_named_without_a_path(name: str) -> None:
    with pytest.raises(CNIError, match="the name of a plugin, without a path"):
        delegate_type(Section({"type": name}))
