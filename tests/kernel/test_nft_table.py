"""The kernel keeps the contract that the fake is written to."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv6Address, ip_address, ip_network

import pytest

from cni.nat import Published, plan
from cni.publisher import Publisher
from cni.tables import HOST_PORT, MAC_GUARD, NAT
from dataplane.errors import NftError
from dataplane.nft.elements import Elements
from dataplane.nft.objects import Family, Protocol, Skeleton, element
from dataplane.nft.runner import NftRunner
from dataplane.nft.table import NftTable
from net.address import IPAddress
from proxy.tables import MAPS, skeleton
from tests.kernel.conftest import Namespace
from tests.kernel.sockets import inside
from tests.unit.cni.published import Port, pod
from tests.unit.dataplane.nft.contract import A, Table, TableContract

pytestmark = pytest.mark.kernel


@pytest.fixture
def namespace(namespaces: Callable[[str], Namespace]) -> Iterator[Namespace]:
    made = namespaces("nft")
    with inside(made):
        yield made


@pytest.fixture
def table(namespace: Namespace) -> Iterator[Table]:
    with Elements() as elements:
        yield NftTable(NAT, NftRunner(), elements)


class TestNftTable(TableContract):
    pass


def test_a_table_that_lost_a_rule_counts_as_absent(table: Table, namespace: Namespace) -> None:
    table.replace([A])
    namespace.run("nft", "flush", "chain", "inet", "isthmus-cni", "loopback")

    assert table.observe() is None


def test_thousands_of_the_largest_elements_go_in_and_out(table: Table) -> None:
    many = {
        element(
            HOST_PORT[6],
            (IPv6Address(number << 64), Protocol.UDP, 53),
            (IPv6Address(number), 5353),
            comment="x" * 127,
        )
        for number in range(1, 1700)
    }
    table.replace([])
    table.apply(add=many)
    full = table.observe()
    table.apply(delete=many)

    assert full == many
    assert table.observe() == frozenset()


def test_many_threads_at_once_end_with_the_plan(table: Table) -> None:
    publisher = Publisher({Family.INET: table}, NoFlows())
    publisher.resync(lambda: [])
    crowd = [
        pod(f"p{number}", f"10.1.0.{number}/24", masquerade=True, port_mappings=(Port(number),))
        for number in range(2, 82)
    ]

    def come_and_maybe_go(each: Published) -> None:
        publisher.publish(each)
        if each.port_mappings[0].host_port % 2:
            publisher.withdraw(each.who)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(come_and_maybe_go, crowd))

    assert table.observe() == plan(
        each for each in crowd if not each.port_mappings[0].host_port % 2
    )


class NoFlows:
    """Conntrack for ports without old flows."""

    def flush_port(self, protocol: Protocol, port: int, host_ip: IPAddress | None = None) -> None:
        raise AssertionError("TCP has no flows to forget")


@pytest.mark.parametrize("skeleton", [NAT, MAC_GUARD], ids=lambda each: each.family.name)
def test_nft_takes_each_skeleton_again_and_again(namespace: Namespace, skeleton: Skeleton) -> None:
    runner = NftRunner()
    for _ in range(2):
        runner.load(skeleton.script())

    assert namespace.run("nft", "list", "tables").count("isthmus-cni") == 1


@pytest.mark.parametrize("skeleton", [NAT, MAC_GUARD], ids=lambda each: each.family.name)
def test_probing_leaves_nothing(namespace: Namespace, skeleton: Skeleton) -> None:
    with Elements() as elements:
        NftTable(skeleton, NftRunner(), elements).probe()

    assert namespace.run("nft", "list", "tables") == ""


def test_what_nft_lists_loads_again(table: Table, namespace: Namespace) -> None:
    table.replace([A])
    listing = namespace.run("nft", "list", "ruleset")
    namespace.run("nft", "flush", "ruleset")
    NftRunner().load(listing)

    assert table.observe() == {A}


def test_a_refused_script_says_why(namespace: Namespace) -> None:
    with pytest.raises(NftError, match="No such file or directory"):
        NftRunner().load("add chain inet nowhere x")


@pytest.mark.parametrize(
    ("version", "networks"),
    [
        (4, ["10.0.0.0/24", "10.0.1.0/24", "10.0.3.0/32", "0.0.0.0/8", "255.255.255.0/24"]),
        (6, ["fd00::/64", "fd00:0:0:1::/64", "::/128", "ffff::/16"]),
    ],
)
def test_networks_in_a_set_of_one_field_are_read_back_neighbours_and_ends_too(
    namespace: Namespace, version: int, networks: list[str]
) -> None:
    of = MAPS[version].pods
    members = {element(of, [ip_network(each)]) for each in networks}
    with Elements() as elements:
        table = NftTable(skeleton(version), NftRunner(), elements)
        table.replace([])
        table.apply(add=members)
        gone = next(iter(members))

        assert table.observe() == members
        table.apply(delete=[gone])
        assert table.observe() == members - {gone}
        table.replace(members)
        assert table.observe() == members


@pytest.mark.parametrize("version", [4, 6])
def test_exchanging_leaves_nothing_of_before_nor_of_the_table_meanwhile(
    namespace: Namespace, version: int
) -> None:
    base = ip_address("10.0.0.0" if version == 4 else "fd00::")
    before, after = (element(MAPS[version].cluster_ips, [base + number]) for number in (1, 2))
    with Elements() as elements:
        table = NftTable(skeleton(version), NftRunner(), elements)
        table.replace([before])
        table.exchange([after])

        assert table.observe() == {after}
    assert namespace.run("nft", "list", "tables").count("isthmus-services") == 1
