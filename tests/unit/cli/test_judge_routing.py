"""Findings about the way to other nodes' pods."""

from dataclasses import replace
from typing import Any

from cli.findings import Severity
from cli.judge_routing import judge_pools, judge_routing
from tests.unit.cli.test_leftovers import VETH

GOOD: dict[str, Any] = {"problems": [], "refused": [], "in_sync": True, "mtu": 1450}


def mesh(trouble: str = "", **routing: Any) -> dict[str, Any]:
    return {"trouble": trouble, "routing": GOOD | routing, "masquerade": None}


def test_without_a_cluster_or_with_all_in_order_there_is_nothing_to_say() -> None:
    assert judge_routing(None, [VETH]) == []
    assert judge_routing(mesh(), [replace(VETH, mtu=1450)]) == []
    assert judge_routing({"trouble": "", "routing": None}, [VETH]) == []


def test_each_problem_is_an_error_and_what_was_refused_is_told_once() -> None:
    findings = judge_routing(
        mesh(
            "route to x: another has one",
            problems=["b is out of reach", "route to x: another has one"],
            refused=["route to x: another has one"],
        ),
        [],
    )

    assert [finding.severity for finding in findings] == [Severity.ERROR] * 2
    assert [finding.what for finding in findings] == [
        "routes or masquerade cannot be made: route to x: another has one",
        "b is out of reach",
    ]


def test_containers_that_send_more_than_the_way_carries_are_named() -> None:
    wide = replace(VETH, name="isthffffffffffa", mtu=9000)
    others = replace(VETH, name="eth0", alias="", mtu=9000)

    (finding,) = judge_routing(mesh(), [VETH, wide, others])

    assert finding.severity is Severity.WARNING
    assert finding.what.startswith("2 containers have an MTU above 1450")
    assert "(isth0123456789a, isthffffffffffa)" in finding.what
    assert judge_routing(mesh(mtu=0), [wide]) == []


def test_a_table_that_is_remembered_is_said_to_be() -> None:
    (finding,) = judge_routing(mesh(in_sync=False), [])

    assert finding.severity is Severity.INFO


def test_a_pool_that_has_the_nodes_own_address_is_an_error() -> None:
    cluster = {"pools": {"four": "192.0.2.0/24", "six": "fd00::/64"}}

    (finding,) = judge_pools(cluster, mesh(addresses=["192.0.2.1", "2001:db8::1"]))

    assert finding.severity is Severity.ERROR
    assert finding.what == "192.0.2.1 is this node's address, and of pool four (192.0.2.0/24)"
    assert judge_pools(None, None) == judge_pools(cluster, mesh()) == []
