"""runtimeConfig as containerd, CRI-O and podman send it."""

from ipaddress import ip_address

import pytest

from cni.capabilities import (
    PortMapping,
    Protocol,
    parse_aliases,
    parse_bandwidth,
    parse_mac,
    parse_port_mappings,
    parse_runtime_dns,
    usual_burst,
)
from cni.document import Section
from cni.errors import CNIError
from cni.result import DNS
from dataplane.model import Bandwidth


def mappings(*entries: dict[str, object]) -> tuple[PortMapping, ...]:
    return parse_port_mappings(Section({"portMappings": list(entries)}))


def test_containerd_and_podman_mean_the_same_mapping() -> None:
    containerd = {"HostPort": 18080, "ContainerPort": 80, "Protocol": "udp", "HostIP": "127.0.0.1"}
    podman = {"hostPort": 18080, "containerPort": 80, "protocol": "udp", "hostIP": "127.0.0.1"}

    assert mappings(containerd, podman) == (
        PortMapping(
            host_port=18080,
            container_port=80,
            protocol=Protocol.UDP,
            host_ip=ip_address("127.0.0.1"),
        ),
    )


@pytest.mark.parametrize("any_address", ["", "0.0.0.0", "::", None])
def test_an_unspecified_host_address_means_any(any_address: str | None) -> None:
    (mapping,) = mappings({"hostPort": 1, "containerPort": 2, "hostIP": any_address})

    assert mapping == PortMapping(host_port=1, container_port=2)


@pytest.mark.parametrize("protocol", ["tcp", "TCP", "udp", "SCTP", ""])
def test_a_protocol_is_taken_in_any_case_and_is_tcp_by_default(protocol: str) -> None:
    (mapping,) = mappings({"hostPort": 1, "containerPort": 2, "protocol": protocol})

    assert mapping.protocol == (protocol.lower() or "tcp")


@pytest.mark.parametrize("host_port", [0, -1, None])
def test_a_mapping_without_host_port_is_skipped(host_port: int | None) -> None:
    assert mappings({"hostPort": host_port, "containerPort": 80}) == ()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            {"hostPort": 65536},
            r"portMappings\[0\]\.hostPort: 65536 is not an integer from 1 to 65535, or 0 for none$",
        ),
        ({"hostPort": True}, r"hostPort: true"),
        ({"hostPort": "80"}, r"portMappings\[0\]\.hostPort: \"80\""),
        ({"containerPort": 0}, r"containerPort: 0 is not an integer from 1 to 65535"),
        ({"containerPort": None}, r"containerPort: null is not an integer from 1 to 65535"),
        ({"protocol": "icmp"}, 'protocol: "icmp" is not tcp, udp or sctp'),
        ({"hostIP": "localhost"}, 'hostIP: "localhost" is not an IPv4 or IPv6 address'),
    ],
)
def test_an_impossible_mapping_is_refused_by_name(
    change: dict[str, object], complaint: str
) -> None:
    with pytest.raises(CNIError, match=complaint) as caught:
        mappings({"hostPort": 8080, "containerPort": 80} | change)

    assert caught.value.code == 7


@pytest.mark.parametrize(
    ("rate", "burst"), [(1000, 2_000_000), (10**9, 10**8), (10**15, 34359738352)]
)
def test_containerds_rates_come_with_no_burst_that_was_said(rate: int, burst: int) -> None:
    sent = Section({"IngressRate": rate, "IngressBurst": 4294967295})

    assert parse_bandwidth(sent) == Bandwidth(ingress_rate=rate, ingress_burst=burst)
    assert usual_burst(rate) == burst


@pytest.mark.parametrize("sent", [{}, {"ingressRate": 0, "egressBurst": 0}])
def test_a_bandwidth_of_zeros_limits_nothing(sent: dict[str, object]) -> None:
    assert parse_bandwidth(Section(sent)) is None


@pytest.mark.parametrize(
    ("sent", "code", "complaint"),
    [
        ({"ingressRate": 1}, 7, "ingressBurst: null is not more than 0 bits"),
        ({"egressBurst": 1}, 7, "egressRate: null is not more than 0 bit/s"),
        ({"egressRate": 1, "egressBurst": 34359738360}, 7, "egressBurst: .* less than 4 GiB"),
        ({"ingressRate": -1}, 7, "ingressRate: -1"),
        ({"ingressRate": 1.5}, 7, r"ingressRate: 1\.5"),
        ({"shapedSubnets": ["10.0.0.0/8"]}, 2, r"unsupported shapedSubnets: 10\.0\.0\.0/8"),
    ],
)
def test_an_impossible_bandwidth_is_refused_by_name(
    sent: dict[str, object], code: int, complaint: str
) -> None:
    with pytest.raises(CNIError, match=complaint) as caught:
        parse_bandwidth(Section(sent))

    assert caught.value.code == code


def test_the_largest_burst_below_four_gibibytes_is_taken() -> None:
    limits = parse_bandwidth(Section({"egressRate": 1, "egressBurst": 34359738359}))

    assert limits == Bandwidth(egress_rate=1, egress_burst=34359738359)


def test_aliases_are_a_list_or_podmans_map_by_network() -> None:
    assert parse_aliases(Section({"aliases": ["web", "db"]}), "pnet") == ("web", "db")
    assert parse_aliases(Section({"aliases": {"pnet": ["web"], "x": ["y"]}}), "pnet") == ("web",)
    assert parse_aliases(Section({"aliases": {"other": ["web"]}}), "pnet") == ()
    assert parse_aliases(Section({}), "pnet") == ()


def test_containerds_dns_is_read_and_an_empty_one_says_nothing() -> None:
    sent = {"Servers": ["10.96.0.10"], "Searches": ["a.b"], "Options": ["ndots:5"]}
    empty = dict.fromkeys(sent)

    assert parse_runtime_dns(Section({"dns": sent})) == DNS(
        nameservers=("10.96.0.10",), search=("a.b",), options=("ndots:5",)
    )
    assert parse_runtime_dns(Section({"dns": empty})) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "02:00:00:00:00",
        "02:00:00:00:00:0g",
        "01:00:00:00:00:00",
        "00:00:00:00:00:00",
        "02:00:00:00:00:01:02:03",
        "02:00-00:00:00:01",
        "020000000001",
        "02:00:00:00:00:01\n",
    ],
)
def test_only_six_bytes_of_one_station_are_a_mac(text: str) -> None:
    assert parse_mac(text) is None


def test_a_mac_is_spelled_in_lower_case_with_colons() -> None:
    assert parse_mac("0A-00-00-00-00-FF") == "0a:00:00:00:00:ff"
