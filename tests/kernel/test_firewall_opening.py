"""Firewalls of others that drop what is forwarded let packets to pods through, on request."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.leftovers import remove_leftovers
from cni.link_config import HOST_PREFIX
from dataplane.firewall_opening import close_for, is_open_for, open_for
from tests.kernel.conftest import Namespace
from tests.kernel.service_site import Site, site
from tests.kernel.test_services import IPS, WEB

pytestmark = pytest.mark.kernel

PODS = "p"  # of this site, the links of p1 and p2


@pytest.fixture
def here(namespaces: Callable[[str], Namespace]) -> Iterator[Site]:
    with site(namespaces) as made:
        made.put(WEB, made.endpoints("p2"))
        yield made


def answers(here: Site, version: int) -> set[str]:
    return set(here.answers(here.pods["p1"], IPS[version], 80))


@pytest.mark.parametrize(
    ("program", "version"),
    [("iptables-nft", 4), ("ip6tables-nft", 6), ("iptables-legacy", 4), ("ip6tables-legacy", 6)],
)
def test_a_chain_that_drops_lets_pods_through_until_it_is_closed(
    here: Site, program: str, version: int
) -> None:
    here.node.run(program, "-N", "DOCKER-USER")
    here.node.run(program, "-A", "FORWARD", "-j", "DOCKER-USER")
    here.node.run(program, "-P", "FORWARD", "DROP")
    assert answers(here, version) == {"TimeoutError"}

    opened, again = open_for(PODS), open_for(PODS)
    assert (len(opened), again) == (1, [])
    assert answers(here, version) == {"p2"}

    here.node.run(program, "-F", "FORWARD")  # as a firewall that is loaded again
    assert (open_for(PODS), answers(here, version)) == (opened, {"p2"})

    assert (is_open_for(PODS), close_for(PODS)) == (True, True)
    assert (is_open_for(PODS), close_for(PODS)) == (False, False)
    assert answers(here, version) == {"TimeoutError"}
    assert "isthmus" not in here.node.run(f"{program}-save")


def test_what_was_opened_is_closed_when_isthmus_goes(here: Site, tmp_path: Path) -> None:
    here.node.run("iptables-nft", "-P", "FORWARD", "DROP")
    open_for(HOST_PREFIX)

    removed, faults = remove_leftovers(tmp_path / "sysctl.json", seed="none")

    assert "rules in others' chains" in removed
    assert (faults, is_open_for(HOST_PREFIX)) == ([], False)


def test_who_drops_nothing_is_left_alone_and_so_are_firewallds_own_chains(here: Site) -> None:
    here.node.run("iptables-nft", "-A", "FORWARD", "-i", "p1", "-j", "LOG")
    here.node.run("nft", "add table inet firewalld; add chain inet firewalld filter_FORWARD "
                  "{ type filter hook forward priority 10; policy drop; }")  # fmt: skip
    before = here.node.run("nft", "list", "table", "inet", "firewalld")

    assert open_for(PODS) == []
    assert here.node.run("nft", "list", "table", "inet", "firewalld") == before
    assert not is_open_for(PODS)
