"""What annotations ask for, what they cannot ask for, and who has precedence."""

import json
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from cni.args import Pod
from cni.config import NetConf
from cni.config import parse as parse_config
from cni.environment import Call, Verb
from cni.errors import CNIError
from cni.wishes import ADDRESS, EGRESS, INGRESS, MAC, POOL, Wishes, applied, parse, unheeded
from dataplane.model import Bandwidth

POD = Pod(namespace="shop", name="web")
BURST = 2_000_000


def wishes(of_namespace: dict[str, str] | None = None, **of_pod: str) -> Wishes:
    keys = {"pool": POOL, "address": ADDRESS, "mac": MAC, "ingress": INGRESS, "egress": EGRESS}
    return parse(POD, {keys[key]: text for key, text in of_pod.items()}, of_namespace or {})


def network(**keys: Any) -> NetConf:
    document = {"cniVersion": "1.1.0", "name": "net", "type": "isthmus", **keys}
    call = Call(command=Verb.ADD, container_id="c", netns="/run/netns/c", ifname="eth0")
    return parse_config(json.dumps(document).encode(), call)


def test_nothing_said_is_nothing_asked() -> None:
    assert wishes() == Wishes()


def test_all_that_a_pod_can_ask_for() -> None:
    asked = wishes(
        pool="blue, blue6", address="10.0.0.5,fd00::5", mac="02:00:00:00:00:0A",
        ingress="10M", egress="1.5k",
    )  # fmt: skip

    assert asked == Wishes(
        pools=("blue", "blue6"),
        addresses=(ip_address("10.0.0.5"), ip_address("fd00::5")),
        mac="02:00:00:00:00:0a",
        bandwidth=Bandwidth(
            ingress_rate=10_000_000, ingress_burst=BURST, egress_rate=1500, egress_burst=BURST
        ),
    )


def test_a_namespace_says_pool_and_bandwidth_for_pods_that_do_not() -> None:
    said = {POOL: "blue", INGRESS: "1M", MAC: "02:00:00:00:00:01", ADDRESS: "10.0.0.1"}

    assert wishes(said) == Wishes(
        pools=("blue",), bandwidth=Bandwidth(ingress_rate=1_000_000, ingress_burst=BURST)
    )
    assert wishes(said, pool="red").pools == ("red",)
    assert wishes(said, pool="").pools == ()


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1000", 1000), ("1k", 1000), ("1Ki", 1024), ("2M", 2 * 10**6), ("1Mi", 1 << 20),
        ("0.5G", 5 * 10**8), (".5G", 5 * 10**8), ("1e6", 10**6), ("1E6", 10**6), ("1P", 10**15),
    ],
)  # fmt: skip
def test_quantities_are_kubernetes_own(text: str, rate: int) -> None:
    found = wishes(egress=text).bandwidth

    assert found is not None
    assert found.egress_rate == rate


@pytest.mark.parametrize(
    ("rate", "burst"), [("1k", BURST), ("1G", 10**8), ("1P", 34359738352), ("", None)]
)
def test_a_tenth_of_a_second_may_come_at_once(rate: str, burst: int | None) -> None:
    found = wishes(egress=rate).bandwidth

    assert (found and found.egress_burst) == burst


@pytest.mark.parametrize(
    "text", ["999", "1m", "-1M", "1 M", "10Mbit", "1ki", "1e99", "2P", "M", "1e-9", "٣M", "NaN"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(CNIError, match="must be bit/s from 1k to 1P") as caught:
        wishes(ingress=text)

    assert caught.value.code == 7
    assert caught.value.msg == f'annotation {INGRESS} of pod shop/web is "{text}"'


@pytest.mark.parametrize(
    ("key", "text", "allowed"),
    [
        ("pool", "Blue", "name of a pool"),
        ("pool", "a,", "name of a pool"),
        ("pool", "a,a", "without anything twice"),
        ("pool", "a/b", "name of a pool"),
        ("address", "10.0.0", "an address, or one of each family"),
        ("address", "10.0.0.0/24", "an address, or one of each family"),
        ("address", "10.0.0.1,10.0.0.2", "an address, or one of each family"),
        ("mac", "02:00", "the six-byte address of one station"),
        ("mac", "01:00:00:00:00:01", "the six-byte address of one station"),
    ],
)
def test_what_is_malformed_is_named_with_what_is_allowed(key: str, text: str, allowed: str) -> None:
    with pytest.raises(CNIError, match=allowed) as caught:
        wishes(**{key: text})

    assert caught.value.code == 7
    assert text in caught.value.msg


def test_a_namespace_that_is_wrong_is_named() -> None:
    with pytest.raises(CNIError, match='pool of namespace shop is "A"'):
        wishes({POOL: "A"})


def test_wishes_become_what_the_network_would_have_said() -> None:
    asked = wishes(pool="blue", address="10.0.0.5", mac="02:00:00:00:00:01", ingress="1M")

    conf = applied(network(ipam={"type": "isthmus"}), asked)

    assert conf.ipam is not None
    assert conf.ipam.pools == ("blue",)
    assert conf.requested.addresses == (ip_address("10.0.0.5"),)
    assert conf.requested.mac == "02:00:00:00:00:01"
    assert conf.bandwidth == Bandwidth(ingress_rate=1_000_000, ingress_burst=BURST)


def test_what_the_runtime_asks_for_has_precedence() -> None:
    limits = {"ingressRate": 5000, "ingressBurst": 5000}
    conf = network(
        ipam={"type": "isthmus", "subnet": "10.0.0.0/24"}, runtimeConfig={"bandwidth": limits}
    )
    conf = replace(conf, requested=replace(conf.requested, mac="02:00:00:00:00:09"))

    got = applied(conf, wishes(mac="02:00:00:00:00:01", ingress="1M", address="10.0.0.7"))

    assert got.requested.mac == "02:00:00:00:00:09"
    assert got.bandwidth == Bandwidth(ingress_rate=5000, ingress_burst=5000)
    assert got.requested.addresses == (ip_address("10.0.0.7"),)


@pytest.mark.parametrize(
    ("ipam", "asked", "why"),
    [
        ({"type": "isthmus", "subnet": "10.0.0.0/24"}, {"pool": "blue"}, "ranges of its own"),
        ({"type": "host-local"}, {"pool": "blue"}, "not given by isthmus"),
        ({"type": "host-local"}, {"address": "10.0.0.1"}, "not given by isthmus"),
        ({}, {"address": "10.0.0.1"}, "not given by isthmus"),
    ],
)
def test_what_a_network_cannot_give_is_said(
    ipam: dict[str, str], asked: dict[str, str], why: str
) -> None:
    with pytest.raises(CNIError, match=why) as caught:
        applied(network(ipam=ipam), wishes(**asked))

    assert caught.value.code == 2


def test_what_is_not_known_of_ours_is_told_with_what_may_have_been_meant() -> None:
    of_pod = {"isthmus.dev/pol": "blue", "isthmus.dev/colour": "x", POOL: "red", "other/pool": "y"}
    of_namespace = {ADDRESS: "10.0.0.7", POOL: "red", EGRESS: "1M"}

    assert list(unheeded(POD, of_pod, of_namespace)) == [
        "annotation isthmus.dev/colour of pod shop/web is not known: there are isthmus.dev/pool, "
        "isthmus.dev/address, isthmus.dev/mac, kubernetes.io/ingress-bandwidth, "
        "kubernetes.io/egress-bandwidth",
        "annotation isthmus.dev/pol of pod shop/web is not known: did you mean isthmus.dev/pool?",
        "annotation isthmus.dev/address of namespace shop says nothing: isthmus.dev/pool, "
        "kubernetes.io/ingress-bandwidth, kubernetes.io/egress-bandwidth do",
    ]
