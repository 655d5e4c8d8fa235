"""Findings about addresses, sysctls, firewalls and the kernel."""

from ipaddress import ip_interface, ip_network

import pytest

from cli.findings import Severity
from cli.judge_files import Network
from cli.judge_host import (
    judge_bridges,
    judge_default_routes,
    judge_firewall,
    judge_kernel,
    judge_subnets,
    judge_sysctls,
)
from dataplane.features import Shortcomings
from dataplane.firewall import Firewall, ForwardChain
from dataplane.inspect import HostAddress, HostNetwork, HostRoute

NETWORK = Network(
    file="10-isthmus.conflist",
    name="isthmus",
    bridge="cni0",
    subnets=(ip_network("10.66.0.0/16"), ip_network("fd66::/64")),
)
GOOD_NFT = (1, 0, 6)


def test_an_address_of_the_host_in_a_range_is_an_error_told_once() -> None:
    host = HostNetwork(
        addresses=(HostAddress("eth0", ip_interface("10.66.3.4/24")),),
        routes=(HostRoute("eth0", ip_network("10.66.3.0/24"), ours=False),),
    )

    findings = judge_subnets([NETWORK], host)

    assert [finding.what for finding in findings] == [
        "10.66.0.0/16 of 10-isthmus.conflist overlaps the address 10.66.3.4/24 on eth0"
    ]


def test_a_route_into_a_range_is_an_error() -> None:
    host = HostNetwork(routes=(HostRoute("wg0", ip_network("10.0.0.0/8"), ours=False),))

    assert [finding.severity for finding in judge_subnets([NETWORK], host)] == [Severity.ERROR]


@pytest.mark.parametrize(
    "route",
    [
        HostRoute("eth0", ip_network("0.0.0.0/0"), ours=False),
        HostRoute("cni0", ip_network("10.66.0.0/16"), ours=False),
        HostRoute("isth12", ip_network("10.66.0.2/32"), ours=True),
        HostRoute("eth0", ip_network("192.0.2.0/24"), ours=False),
    ],
)
def test_default_routes_our_own_and_those_elsewhere_are_fine(route: HostRoute) -> None:
    assert judge_subnets([NETWORK], HostNetwork(routes=(route,))) == []


@pytest.mark.parametrize(
    ("writable", "attached", "severity"),
    [(True, 0, Severity.INFO), (True, 3, Severity.ERROR), (False, 0, Severity.ERROR)],
)
def test_forwarding_that_is_off_matters_when_it_is_needed_or_cannot_be_set(
    writable: bool, attached: int, severity: Severity
) -> None:
    values = {"net/ipv4/ip_forward": "0", "net/ipv6/conf/all/forwarding": "1"}

    findings = judge_sysctls(values, [NETWORK], writable=writable, attached=attached)

    assert [finding.severity for finding in findings] == [severity]


def test_forwarding_of_a_family_that_no_network_has_is_not_asked_for() -> None:
    v4 = Network(file="f", name="n", subnets=(ip_network("10.1.0.0/16"),))
    values = {"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "0"}

    assert judge_sysctls(values, [v4], writable=True, attached=1) == []


def test_a_strict_reverse_path_filter_and_the_bridge_detour_are_told() -> None:
    values = {
        "net/ipv4/conf/all/rp_filter": "1",
        "net/bridge/bridge-nf-call-iptables": "1",
    }

    findings = judge_sysctls(values, [], writable=True, attached=0)

    assert [finding.severity for finding in findings] == [Severity.WARNING, Severity.INFO]


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        (ForwardChain(family="ip", table="filter", name="FORWARD", drops=True), "DOCKER-USER"),
        (
            ForwardChain(family="inet", table="firewalld", name="filter_FORWARD", drops=True),
            "firewall-cmd",
        ),
        (ForwardChain(family="inet", table="mine", name="fwd", drops=True), "cni0"),
    ],
)
def test_a_forward_chain_that_drops_is_an_error_with_its_own_remedy(
    chain: ForwardChain, words: str
) -> None:
    findings = judge_firewall(Firewall(version=GOOD_NFT, chains=(chain,)), [NETWORK])

    assert [finding.severity for finding in findings] == [Severity.ERROR]
    assert words in findings[0].mend


@pytest.mark.parametrize(
    "chain",
    [
        ForwardChain(family="ip", table="filter", name="FORWARD", drops=False),
        ForwardChain(
            family="ip", table="filter", name="F", drops=True, accepts=frozenset({"cni0"})
        ),
        ForwardChain(family="inet", table="isthmus-policy", name="F", drops=True),
    ],
)
def test_chains_that_let_our_bridge_pass_or_are_ours_are_fine(chain: ForwardChain) -> None:
    assert judge_firewall(Firewall(version=GOOD_NFT, chains=(chain,)), [NETWORK]) == []


def test_nft_that_cannot_be_used_is_one_error() -> None:
    firewall = Firewall(fault="cannot run nft: No such file")

    findings = judge_firewall(firewall, []) + judge_kernel(Shortcomings(refusal="x"), firewall)

    assert [finding.severity for finding in findings] == [Severity.ERROR]


def test_nft_that_does_not_take_our_tables_is_an_error_with_its_version() -> None:
    findings = judge_kernel(Shortcomings(refusal="syntax error"), Firewall(version=(0, 9, 8)))

    assert "nft 0.9.8" in findings[0].what
    assert "syntax error" in findings[0].what


def test_a_missing_feature_is_as_grave_as_what_needs_it() -> None:
    found = Shortcomings(missing=("veth", "bridge VLAN filtering"))

    findings = judge_kernel(found, Firewall(version=GOOD_NFT))

    assert [finding.severity for finding in findings] == [Severity.ERROR, Severity.INFO]


def test_a_bridge_with_an_address_of_another_network_is_an_error() -> None:
    host = HostNetwork(
        addresses=(
            HostAddress("cni0", ip_interface("10.88.0.1/16")),
            HostAddress("cni0", ip_interface("10.66.0.1/16")),
            HostAddress("cni0", ip_interface("fe80::1/64")),
            HostAddress("eth0", ip_interface("192.0.2.1/24")),
        )
    )

    findings = judge_bridges([NETWORK], host)

    assert [finding.what.partition(",")[0] for finding in findings] == [
        "cni0 has the address 10.88.0.1/16"
    ]


def test_a_host_without_a_default_route_is_told_what_containers_reach() -> None:
    near = HostRoute("eth0", ip_network("192.0.2.0/24"), ours=False)
    default = HostRoute("eth0", ip_network("::/0"), ours=False)

    (finding,) = judge_default_routes(HostNetwork(routes=(near,)))

    assert (finding.severity, finding.what) == (Severity.INFO, "this host has no default route")
    assert judge_default_routes(HostNetwork(routes=(near, default))) == []
