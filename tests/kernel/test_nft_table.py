"""The kernel keeps the contract that the fake is written to."""

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

import pytest

from cni.publisher import Table
from cni.tables import MAC_GUARD, MASQUERADED, NAT
from dataplane.errors import NftError
from dataplane.nft.elements import Elements
from dataplane.nft.objects import element
from dataplane.nft.runner import NftRunner
from dataplane.nft.table import NftTable
from tests.kernel.conftest import Namespace
from tests.kernel.sockets import inside
from tests.unit.dataplane.nft.contract import A, TableContract

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


def test_thousands_of_elements_go_in_and_out(table: Table) -> None:
    many = {
        element(MASQUERADED[4], [IPv4Address(0x0A000000 + number)], comment=f"net/{number}/eth0")
        for number in range(2500)
    }
    table.replace([])
    table.apply(add=many)
    full = table.observe()
    table.apply(delete=many)

    assert full == many
    assert table.observe() == frozenset()


@pytest.mark.parametrize("skeleton", [NAT, MAC_GUARD], ids=lambda each: each.family.name)
def test_nft_takes_each_skeleton_again_and_again(namespace: Namespace, skeleton: object) -> None:
    runner = NftRunner()
    for _ in range(2):
        runner.load(skeleton.script())  # type: ignore[attr-defined]

    assert namespace.run("nft", "list", "tables").count("isthmus-cni") == 1


def test_what_nft_lists_loads_again(table: Table, namespace: Namespace) -> None:
    table.replace([A])
    listing = namespace.run("nft", "list", "ruleset")
    namespace.run("nft", "flush", "ruleset")
    NftRunner().load(listing)

    assert table.observe() == {A}


def test_a_refused_script_says_why(namespace: Namespace) -> None:
    with pytest.raises(NftError, match="No such file or directory"):
        NftRunner().load("add chain inet nowhere x")
