"""What a site may choose, checked as a whole."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from cli.manifest_site import Member, PoolChoice, Senseless, Site

POOL = PoolChoice(ip_network("10.244.0.0/16"), 24)
SITE = Site(image="isthmus", pools=(POOL,))
A, B, C = (Member(name, ip_address(f"10.0.0.{n}")) for n, name in enumerate("abc", 1))
HTTPS = ("https://10.0.0.9:2379",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pools": ()}, "choose a family"),
        ({"pools": (PoolChoice(ip_network("10.244.0.0/16"), 8),)}, "/16 to /30 are allowed"),
        ({"pools": (PoolChoice(ip_network("fd00::/56"), 127),)}, "/56 to /126 are allowed"),
        ({"mtu": 1000}, "1280 (what IPv6 needs) to 65535, or 0"),
        (
            {"open_firewall": True},
            "firewalls are opened for what Services lead to pods: --services",
        ),
        ({"announce": True}, "nodes that announce addresses translate them, too: --services"),
        ({"etcd": HTTPS}, "need a secret with ca.pem, client.pem, client.key"),
        ({"etcd": (*HTTPS, "http://a:1"), "etcd_secret": "s"}, "all https or all http"),
        ({"etcd": ("http://a:1",), "etcd_secret": "s"}, "is for https URLs"),
        ({"etcd_secret": "s"}, "give its URLs too"),
        ({"etcd": ("http://a:1",), "members": (A,)}, "of an etcd of our own"),
        ({"members": (A, B)}, "1, 3 or 5 keep a majority"),
        ({"members": (A, B, replace(C, node="a"))}, "two members of etcd on one node"),
        ({"host_local": "leases"}, "'leases' is no directory of nodes"),
    ],
)
def test_choices_that_make_no_sense_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Senseless) as caught:
        replace(SITE, **changes)

    assert message in str(caught.value)


def test_a_pool_is_written_as_the_job_reads_it() -> None:
    assert str(POOL) == "ipv4=10.244.0.0/16:24"


def test_a_member_is_reached_by_either_family() -> None:
    assert A.url(2479) == "https://10.0.0.1:2479"
    assert Member("a", ip_address("fd00::1")).url(2479) == "https://[fd00::1]:2479"
