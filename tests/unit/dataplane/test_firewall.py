"""What is read from the output of nft and iptables."""

import json
from typing import Any

import pytest

from dataplane.firewall import owners, parse_legacy, parse_ruleset


def ruleset(*entries: dict[str, Any]) -> str:
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, *entries]})


def chain(policy: str = "accept", hook: str = "forward", family: str = "ip") -> dict[str, Any]:
    return {
        "chain": {
            "family": family, "table": "filter", "name": "FORWARD", "hook": hook,
            "policy": policy,
        }
    }  # fmt: skip


def rule(*expr: dict[str, Any], name: str = "FORWARD") -> dict[str, Any]:
    return {"rule": {"family": "ip", "table": "filter", "chain": name, "expr": list(expr)}}


def interface(key: str, right: object) -> dict[str, Any]:
    return {"match": {"op": "==", "left": {"meta": {"key": key}}, "right": right}}


STATE = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established"]}}


def test_the_version_and_only_forward_chains_are_read() -> None:
    version, chains = parse_ruleset(ruleset(chain(), chain(hook="input", policy="drop")))

    assert version == (1, 0, 6)
    assert [(str(one), one.drops) for one in chains] == [("ip filter FORWARD", False)]


def test_chains_of_other_families_are_not_on_the_path() -> None:
    assert parse_ruleset(ruleset(chain(family="bridge", policy="drop")))[1] == ()


@pytest.mark.parametrize(
    ("entries", "drops"),
    [
        ([chain("drop")], True),
        ([chain(), rule({"counter": {}}, {"reject": {"type": "icmpx"}})], True),
        ([chain(), rule({"drop": None})], True),
        ([chain(), rule(STATE, {"drop": None})], False),
        ([chain(), rule({"drop": None}, name="other")], False),
        ([chain(), rule({"jump": {"target": "other"}})], False),
    ],
)
def test_a_chain_drops_by_policy_or_by_a_rule_without_condition(
    entries: list[dict[str, Any]], drops: bool
) -> None:
    assert parse_ruleset(ruleset(*entries))[1][0].drops is drops


def test_interfaces_that_any_chain_of_the_table_accepts_are_collected() -> None:
    text = ruleset(
        chain("drop"),
        rule(interface("iifname", "cni0"), {"accept": None}, name="DOCKER-USER"),
        rule(interface("oifname", {"set": ["a", "b"]}), {"accept": None}),
        rule(interface("iifname", "eth9"), {"drop": None}),
        rule(STATE, {"accept": None}),
    )

    assert parse_ruleset(text)[1][0].accepts == {"cni0", "a", "b"}


def test_the_older_iptables_is_read_from_its_own_listing() -> None:
    listing = "\n".join(
        [
            "-P INPUT ACCEPT",
            "-P FORWARD DROP",
            "-A FORWARD -i cni0 -j ACCEPT",
            "-A FORWARD ! -o eth1 -j ACCEPT",
            "-A FORWARD -i eth2 -j DROP",
        ]
    )

    found = parse_legacy("ip", listing)

    assert (found.drops, found.accepts) == (True, {"cni0"})


@pytest.mark.parametrize(
    ("table", "chains", "found"),
    [
        ("filter", ["FORWARD", "DOCKER-USER", "DOCKER"], ("Docker",)),
        ("filter", ["FORWARD", "ufw-before-forward", "DOCKER"], ("Docker", "ufw")),
        ("firewalld", ["filter_FORWARD"], ("firewalld",)),
        ("filter", ["FORWARD", "cali-FORWARD"], ("Calico",)),
        ("filter", ["FORWARD"], ()),
    ],
)
def test_whose_chains_are_in_a_table_is_known_by_their_names(
    table: str, chains: list[str], found: tuple[str, ...]
) -> None:
    assert owners(table, chains) == found


def test_owners_are_read_of_both_kinds_of_listings() -> None:
    other = {"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER"}}

    (by_nft,) = parse_ruleset(ruleset(chain("drop"), other))[1]
    by_legacy = parse_legacy("ip", "-P FORWARD DROP\n-N ufw-user-forward\n")

    assert (by_nft.owners, by_legacy.owners) == (("Docker",), ("ufw",))
