"""Results: the golden spelling of each version, and the way back."""

import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.document import Section, decode
from cni.errors import CNIError
from cni.result import DNS, Interface, IPConfig, Result, encode, parse, render
from cni.versions import SUPPORTED, at_least
from dataplane.model import Route

GOLDEN = Path(__file__).parents[2] / "data" / "results"

POD = Interface(
    name="eth0",
    mac="e2:10:00:00:00:03",
    sandbox="/run/netns/goldns",
    mtu=1450,
    socket_path="/run/vhost.sock",
    pci_id="0000:00:1f.6",
)
WHOLE = Result(
    interfaces=(
        Interface(name="goldbr0", mac="e2:10:00:00:00:01"),
        Interface(name="veth46342fe3", mac="e2:10:00:00:00:02"),
        POD,
    ),
    ips=(
        IPConfig(
            address=ip_interface("10.77.0.2/24"), gateway=ip_address("10.77.0.1"), interface=2
        ),
        IPConfig(address=ip_interface("fd77::2/64"), gateway=ip_address("fd77::1"), interface=0),
        IPConfig(address=ip_interface("10.78.0.2/24")),
    ),
    routes=(
        Route(dst=ip_network("0.0.0.0/0")),
        Route(
            dst=ip_network("::/0"),
            via=ip_address("fd77::1"),
            mtu=1400,
            advmss=1360,
            priority=5,
            table=100,
            scope=0,
        ),
    ),
    dns=DNS(nameservers=("10.96.0.10",), domain="d", search=("a.b",), options=("ndots:5",)),
)
MODERN = [version for version in SUPPORTED if at_least(version, "0.3.0")]
BY_FAMILY = ["0.1.0", "0.2.0"]


def reread(document: object, version: str = "1.1.0") -> Result:
    return parse(decode(json.dumps(document).encode()), version)


@pytest.mark.parametrize("version", SUPPORTED)
def test_a_result_is_spelled_as_the_golden_file_of_its_version(version: str) -> None:
    golden = json.loads((GOLDEN / f"{version}.json").read_text())

    assert render(WHOLE, version) == golden
    assert json.loads(encode(WHOLE, version)) == golden


@pytest.mark.parametrize("version", SUPPORTED)
def test_a_golden_result_is_read_and_spelled_again_as_it_was(version: str) -> None:
    golden = decode((GOLDEN / f"{version}.json").read_bytes())

    assert render(parse(golden, version), version) == render(WHOLE, version)


def test_the_newest_version_carries_everything() -> None:
    assert reread(render(WHOLE, "1.1.0")) == WHOLE


@pytest.mark.parametrize("version", SUPPORTED)
def test_an_empty_dns_is_written_only_up_to_0_4_0(version: str) -> None:
    document = render(replace(WHOLE, dns=DNS()), version)

    assert document.get("dns") == (None if at_least(version, "1.0.0") else {})


@pytest.mark.parametrize("version", MODERN)
def test_interface_zero_is_written_and_a_missing_index_stays_missing(version: str) -> None:
    ips = render(WHOLE, version)["ips"]

    assert [ip.get("interface", "missing") for ip in ips] == [2, 0, "missing"]


@pytest.mark.parametrize("version", BY_FAMILY)
def test_without_any_address_there_is_no_form_by_family(version: str) -> None:
    with pytest.raises(CNIError, match="cannot convert: no valid IP addresses"):
        render(Result(interfaces=(POD,)), version)


@pytest.mark.parametrize("version", BY_FAMILY)
def test_one_family_alone_has_only_its_half(version: str) -> None:
    document = render(Result(ips=(IPConfig(address=ip_interface("fd77::2/64")),)), version)

    assert document == {"cniVersion": version, "ip6": {"ip": "fd77::2/64"}, "dns": {}}


def test_a_result_by_family_is_read_without_interfaces() -> None:
    document = {
        "cniVersion": "0.2.0",
        "ip4": {"ip": "10.0.0.2/24", "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}]},
        "ip6": {"ip": "fd00::2/64", "gateway": "fd00::1"},
    }

    assert reread(document) == Result(
        ips=(
            IPConfig(address=ip_interface("10.0.0.2/24")),
            IPConfig(address=ip_interface("fd00::2/64"), gateway=ip_address("fd00::1")),
        ),
        routes=(Route(dst=ip_network("0.0.0.0/0"), via=ip_address("10.0.0.1")),),
    )


def test_the_answer_of_an_ipam_plugin_has_neither_interfaces_nor_indices() -> None:
    answer = Result(ips=(IPConfig(address=ip_interface("10.0.0.2/24")),))

    assert render(answer, "1.0.0") == {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"}]}


def test_a_results_own_version_has_precedence() -> None:
    assert reread({"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.2/24"}}, "1.1.0").ips
    assert reread({"ip4": {"ip": "10.0.0.2/24"}}, "0.2.0").ips


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"cniVersion": "9.9.9"}, 'invalid cniVersion: "9.9.9" is not one of 0.1.0'),
        ({"ips": [{}]}, r"ips\[0\]\.address: null is not an address with its prefix"),
        ({"ips": [{"address": "10.0.0.2"}]}, r"ips\[0\]\.address"),
        ({"ips": [{"address": "10.0.0.2/24", "interface": 0}]}, "index into the result's 0 inter"),
        ({"ips": [{"address": "10.0.0.2/24", "interface": -1}]}, r"ips\[0\]\.interface: -1"),
        ({"ips": [{"address": "10.0.0.2/24", "interface": True}]}, r"interface: true"),
        ({"ips": [{"address": "10.0.0.2/24", "gateway": "x"}]}, r"ips\[0\]\.gateway"),
        ({"routes": [{}]}, r"routes\[0\]\.dst: null"),
        ({"routes": [{"dst": "0.0.0.0/0", "gw": "fd00::1"}]}, r"gw: .* family of 0\.0\.0\.0/0"),
        ({"routes": [{"dst": "::/0", "scope": 256}]}, r"routes\[0\]\.scope: 256"),
        ({"interfaces": [7]}, r"interfaces\[0\]: 7 is not an object"),
        ({"dns": []}, r"dns: \[\] is not an object"),
    ],
)
def test_a_malformed_result_is_refused_by_name(document: object, complaint: str) -> None:
    with pytest.raises(CNIError, match=complaint):
        reread(document)


def test_a_chained_result_comes_after_what_was_there_and_its_indices_move() -> None:
    before = Result(interfaces=(POD,), dns=DNS(domain="before"))
    ours = Result(
        interfaces=(Interface(name="net1"),),
        ips=(
            IPConfig(address=ip_interface("10.0.0.2/24"), interface=0),
            IPConfig(address=ip_interface("10.0.0.3/24")),
        ),
        routes=(Route(dst=ip_network("10.0.0.0/8")),),
    )

    chained = before.extended(ours)

    assert [link.name for link in chained.interfaces] == ["eth0", "net1"]
    assert [ip.interface for ip in chained.ips] == [1, None]
    assert chained.routes == ours.routes
    assert chained.dns == before.dns
    assert before.extended(replace(ours, dns=DNS(domain="ours"))).dns.domain == "ours"


def code_of(attempt: Callable[[], object]) -> int:
    """The code of the error that *attempt* raises, or 0."""
    try:
        attempt()
    except CNIError as error:
        return error.code
    return 0


KEYS = [
    "cniVersion",
    "ips",
    "interfaces",
    "interface",
    "routes",
    "dst",
    "address",
    "dns",
    "ip4",
    "ip6",
    "ip",
    "gw",
    "nameservers",
    "scope",
]
texts = st.text(max_size=8)
numbers = st.integers(0, (1 << 32) - 1)
# An IPv4 address in IPv6's clothing is read as IPv4, so that no result of ours holds one.
addresses = st.ip_addresses().filter(lambda address: not getattr(address, "ipv4_mapped", None))
interfaces = addresses.flatmap(
    lambda address: st.integers(0, address.max_prefixlen).map(
        lambda prefix: ip_interface(f"{address}/{prefix}")
    )
)
dnses = st.builds(
    DNS,
    nameservers=st.lists(texts).map(tuple),
    domain=texts,
    search=st.lists(texts).map(tuple),
    options=st.lists(texts).map(tuple),
)


@st.composite
def routes(draw: st.DrawFn, *, extras: bool) -> Route:
    dst = draw(interfaces).network
    via = draw(st.none() | addresses.filter(lambda address: address.version == dst.version))
    if not extras:
        return Route(dst=dst, via=via)
    mtu, advmss, priority, table = draw(st.tuples(numbers, numbers, numbers, numbers))
    scope = draw(st.none() | st.integers(0, 255))
    return Route(
        dst=dst, via=via, mtu=mtu, advmss=advmss, priority=priority, table=table, scope=scope
    )


@st.composite
def results(draw: st.DrawFn, *, extras: bool) -> Result:
    plain = st.builds(Interface, name=texts, mac=texts, sandbox=texts)
    full = st.builds(
        Interface,
        name=texts,
        mac=texts,
        sandbox=texts,
        mtu=numbers,
        socket_path=texts,
        pci_id=texts,
    )
    links = tuple(draw(st.lists(full if extras else plain, max_size=3)))
    index = st.none() | st.integers(0, len(links) - 1) if links else st.none()
    ip = st.builds(IPConfig, address=interfaces, gateway=st.none() | addresses, interface=index)
    return Result(
        interfaces=links,
        ips=tuple(draw(st.lists(ip, max_size=3))),
        routes=tuple(draw(st.lists(routes(extras=extras), max_size=3))),
        dns=draw(dnses),
    )


@given(results(extras=True))
def test_what_1_1_0_spells_is_read_back(result: Result) -> None:
    assert reread(render(result, "1.1.0")) == result


@given(results(extras=False), st.sampled_from(MODERN))
def test_what_an_older_version_spells_is_read_back(result: Result, version: str) -> None:
    assert reread(render(result, version)) == result


@given(results(extras=True), st.sampled_from(SUPPORTED))
def test_going_down_once_loses_all_that_is_ever_lost(result: Result, version: str) -> None:
    try:
        once = render(result, version)
    except CNIError:
        assert not result.ips
        return

    assert render(reread(once), version) == once


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(KEYS),
                inner,
            )
        ),
    ),
    st.sampled_from(SUPPORTED),
)
def test_any_json_is_a_result_or_a_decoding_failure(value: object, version: str) -> None:
    document = Section({"prevResult": value}, code=6)

    assert code_of(lambda: parse(document.section("prevResult"), version)) in (0, 6)
