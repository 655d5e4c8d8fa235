"""What is written into chains of others, and how it is known again."""

from typing import Any

from dataplane.firewall import ForwardChain
from dataplane.firewall_opening import closing, opening

DOCKERS = ForwardChain(family="ip", table="filter", name="FORWARD", drops=True)


def rule(handle: int, comment: str) -> dict[str, Any]:
    place = {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": handle}
    return {"rule": {**place, "comment": comment, "expr": [{"accept": None}]}}


def test_a_chain_is_opened_by_two_marked_rules_at_its_head() -> None:
    assert opening([DOCKERS], "isth").splitlines() == [
        'insert rule ip filter FORWARD oifname "isth*" counter accept comment "isthmus"',
        'insert rule ip filter FORWARD iifname "isth*" counter accept comment "isthmus"',
    ]


def test_a_rule_of_ours_is_known_by_its_comment() -> None:
    listed = [{"chain": {"name": "FORWARD"}}, rule(3, "mine"), rule(4, "isthmus"), rule(5, "")]

    assert list(closing(listed)) == ["delete rule ip filter FORWARD handle 4\n"]


def test_a_chain_is_shut_for_those_whom_nothing_in_it_lets_through() -> None:
    lets_in = ForwardChain(
        family="ip", table="filter", name="FORWARD", drops=True, accepts=frozenset({"isth*"})
    )

    assert DOCKERS.is_shut_for("isth")
    assert not lets_in.is_shut_for("isth")
    assert lets_in.is_shut_for("cni")
    assert not ForwardChain(family="ip", table="x", name="y", drops=False).is_shut_for("isth")
