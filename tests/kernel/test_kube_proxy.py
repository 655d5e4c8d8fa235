"""What a kube-proxy left goes at once, and nothing else does."""

import subprocess
from collections.abc import Callable, Iterator

import pytest

from dataplane.kube_proxy import look, removal, remove
from dataplane.nft.elements import Elements
from dataplane.nft.runner import NftRunner
from tests.kernel.conftest import Namespace
from tests.kernel.sockets import inside

pytestmark = pytest.mark.kernel

# As kube-proxy and the kubelet write it, shortened.
_IPTABLES = """*nat
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-SEP-A - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-A - [0:0]
:MINE - [0:0]
-A PREROUTING -m comment --comment "service portals" -j KUBE-SERVICES
-A PREROUTING -j MINE
-A OUTPUT -m comment --comment "service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "postrouting rules" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-A
-A KUBE-SVC-A -m statistic --mode random --probability 0.5 -j KUBE-SEP-A
-A KUBE-SEP-A -p tcp -m tcp -j DNAT --to-destination 10.244.0.2:6443
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
-A FORWARD -j KUBE-FORWARD
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
COMMIT
"""
_NFTABLES = """
add table ip kube-proxy
add chain ip kube-proxy services
add rule ip kube-proxy services ip daddr 10.96.0.1 drop
add table ip6 kube-proxy
add chain ip6 kube-proxy services
add table ip mine
add chain ip mine services
"""


@pytest.fixture
def namespace(namespaces: Callable[[str], Namespace]) -> Iterator[Namespace]:
    made = namespaces("kp")
    with inside(made):
        yield made


def found() -> list[str]:
    with Elements() as elements:
        return look(elements)


def take_away() -> list[str]:
    with Elements() as elements:
        return remove(elements)


def test_where_none_was_nothing_is_found_and_nothing_to_be_removed(namespace: Namespace) -> None:
    assert (found(), removal()) == ([], "")


def test_of_mode_nftables_its_tables_go(namespace: Namespace) -> None:
    NftRunner().load(_NFTABLES)

    assert take_away() == ["nftables"]
    assert (found(), removal()) == ([], "")
    assert namespace.run("nft", "list", "tables").split("\n")[:1] == ["table ip mine"]


def test_of_mode_iptables_its_chains_go_and_the_kubelets_stay(namespace: Namespace) -> None:
    subprocess.run(["iptables-nft-restore"], input=_IPTABLES, text=True, check=True)

    assert take_away() == ["iptables"]
    assert (found(), removal()) == ([], "")
    assert_only_others_are_left(namespace.run("iptables-nft-save"))


@pytest.mark.parametrize("program", ["iptables-legacy", "ip6tables-legacy"])
def test_of_iptables_legacy_its_chains_go_and_the_kubelets_stay(
    namespace: Namespace, program: str
) -> None:
    rules = (
        _IPTABLES
        if program == "iptables-legacy"
        else _IPTABLES.replace("10.96.0.1/32", "fd00:96::1/128").replace(
            "10.244.0.2:6443", "[fd00:244::2]:6443"
        )
    )
    subprocess.run([f"{program}-restore"], input=rules, text=True, check=True)

    assert take_away() == ["iptables-legacy"]
    assert (found(), take_away()) == ([], [])
    assert_only_others_are_left(namespace.run(f"{program}-save"))


def test_of_mode_ipvs_the_link_goes_with_the_addresses_of_services(namespace: Namespace) -> None:
    namespace.run("ip", "link", "add", "kube-ipvs0", "type", "veth", "peer", "name", "other")
    namespace.run("ip", "address", "add", "10.96.0.1/32", "dev", "kube-ipvs0")

    assert take_away() == ["ipvs"]
    assert found() == []


def assert_only_others_are_left(left: str) -> None:
    assert "-A PREROUTING -j MINE" in left
    assert {line.split()[0] for line in left.splitlines() if line.startswith(":KUBE")} == {
        ":KUBE-KUBELET-CANARY",
        ":KUBE-FIREWALL",
    }
    assert "-A OUTPUT -j KUBE-FIREWALL" in left
