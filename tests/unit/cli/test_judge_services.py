"""Who is in the way of Services."""

import pytest

from cli.findings import Severity
from cli.judge_services import judge_services
from dataplane.firewall import Firewall, ForwardChain


def shut(*owners: str, table: str = "filter", accepts: frozenset[str] = frozenset()) -> Firewall:
    chain = ForwardChain(
        family="ip", table=table, name="FORWARD", drops=True, accepts=accepts, owners=owners
    )
    return Firewall(chains=(chain,))


@pytest.mark.parametrize(
    ("owner", "remedy"),
    [
        (
            "Docker",
            "open_firewall of [services] in agent.toml, or iptables -I DOCKER-USER -i isth+",
        ),
        ("ufw", "open_firewall of [services] in agent.toml, or ufw default allow routed"),
        ("firewalld", "firewall-cmd --permanent"),
        ("Calico", "take Calico off"),
    ],
)
def test_who_drops_is_named_with_a_remedy(owner: str, remedy: str) -> None:
    (found,) = judge_services(shut(owner), ())

    assert found.severity is Severity.ERROR
    assert found.what == f"{owner} drops forwarded packets, by the chain ip filter FORWARD"
    assert found.mend.startswith(remedy)


def test_two_in_one_chain_and_somebody_unknown_are_named_too() -> None:
    (both,) = judge_services(shut("Docker", "ufw"), ())
    (unknown,) = judge_services(shut(), ())

    assert both.what.startswith("Docker and ufw drops")
    assert "DOCKER-USER" in both.mend
    assert "ufw default" in both.mend
    assert unknown.what.startswith("somebody drops")
    assert unknown.mend == "open_firewall of [services], or accept isth* in it"


def test_our_own_tables_and_chains_that_let_pods_through_are_fine() -> None:
    assert judge_services(shut(table="isthmus"), ()) == []
    assert judge_services(shut("Docker", accepts=frozenset({"isth*"})), ()) == []


def test_a_kube_proxy_is_told_of_by_its_mode() -> None:
    (found,) = judge_services(Firewall(), ["iptables"])

    assert (found.severity, found.what) == (
        Severity.WARNING,
        "a kube-proxy has rules here, of mode iptables",
    )
    assert "remove-kube-proxy" in found.mend


def test_what_another_program_has_to_take_away_is_said_with_it() -> None:
    legacy, ipvs = judge_services(Firewall(), ["iptables-legacy", "ipvs"])

    assert legacy.mend.endswith("else kube-proxy --cleanup")
    assert "ipvsadm --clear" in ipvs.mend
