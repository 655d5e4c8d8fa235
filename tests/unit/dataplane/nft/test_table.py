"""The table itself is in tests/kernel/test_nft_table.py; here what it needs no kernel for."""

import errno
from collections import Counter
from collections.abc import Collection

import pytest

from cni.tables import NAT
from dataplane.errors import NetlinkError, NftError, NftUnavailable
from dataplane.nft.objects import Element, Family, NamedSet
from dataplane.nft.rules import RawChain
from dataplane.nft.table import NftTable
from tests.unit.dataplane.nft.contract import A, B


class Kernel:
    """Elements of a kernel whose table has what the test says."""

    def __init__(self, *, layout: str = "", lost: str = "") -> None:
        self.layout = layout
        self.lost = lost
        self.changes: list[tuple[Collection[Element], Collection[Element]]] = []

    def exists(self, family: Family, table: str, name: str) -> bool:
        return name == self.layout

    def rules(self, family: Family, table: str) -> Counter[str]:
        if not self.layout:
            return Counter()
        rules = Counter({chain.name: len(chain.rules) for chain in NAT.chains})
        return rules - Counter([self.lost])

    def packets(self, family: Family, table: str, chain: str) -> int:
        return {"overflow": 7}.get(chain, 0)

    def add_chain(self, family: Family, table: str, chain: RawChain) -> None:
        raise AssertionError("no chain beyond the skeleton's is expected")

    def observe(self, of: NamedSet) -> set[Element]:
        return {A} if of == A.of else set()

    def apply(self, *, delete: Collection[Element], add: Collection[Element]) -> None:
        self.changes.append((delete, add))


class Scripts:
    """A runner that keeps what it is given."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.loaded: list[str] = []
        self.failure = failure

    def load(self, script: str, *, check: bool = False) -> None:
        if self.failure:
            raise self.failure
        self.loaded.append(f"checked: {script}" if check else script)


def test_a_table_as_made_gives_the_elements_of_all_its_sets() -> None:
    kernel = Kernel(layout=NAT.layout)

    assert NftTable(NAT, Scripts(), kernel).observe() == {A}


@pytest.mark.parametrize(
    "kernel", [Kernel(), Kernel(layout="layout-old"), Kernel(layout=NAT.layout, lost="loopback")]
)
def test_another_layout_or_missing_rules_count_as_absent(kernel: Kernel) -> None:
    assert NftTable(NAT, Scripts(), kernel).observe() is None


def test_a_table_that_vanishes_while_it_is_read_is_absent() -> None:
    class Vanishing(Kernel):
        def observe(self, of: NamedSet) -> set[Element]:
            raise NetlinkError(errno.ENOENT, "dump")

    kernel = Vanishing(layout=NAT.layout)

    assert NftTable(NAT, Scripts(), kernel).observe() is None


def test_replacing_is_one_script_with_the_elements_in_it() -> None:
    runner = Scripts()
    NftTable(NAT, runner, Kernel()).replace([A])

    assert runner.loaded == [NAT.script([A])]


def test_exchanging_lets_another_table_answer_meanwhile() -> None:
    runner, other = Scripts(), NAT.stand_in
    NftTable(NAT, runner, Kernel(layout="layout-old")).exchange([A])

    assert runner.loaded == [
        other.unasked.script([A]),
        other.opening(),
        NAT.script([A]),
        other.closing(),
        other.removal(),
    ]


def test_an_exchange_that_fails_takes_the_other_table_away() -> None:
    class Refusing(Scripts):
        def load(self, script: str, *, check: bool = False) -> None:
            if script == NAT.script([A]):
                raise NftError("too much", script)
            super().load(script, check=check)

    runner = Refusing()

    with pytest.raises(NftError, match="too much"):
        NftTable(NAT, runner, Kernel(layout="layout-old")).exchange([A])
    assert runner.loaded[-1] == NAT.stand_in.removal()


def test_without_an_exchange_cut_off_ending_one_needs_no_nft() -> None:
    NftTable(NAT, Scripts(NftUnavailable("no nft")), Kernel()).end_exchange()


def test_a_refused_table_is_named() -> None:
    runner = Scripts(NftError("Operation not supported", "script"))

    with pytest.raises(NftError, match="table inet isthmus-cni: Operation not supported"):
        NftTable(NAT, runner, Kernel()).replace([A])


def test_changes_go_by_elements_alone() -> None:
    runner, kernel = Scripts(), Kernel()
    NftTable(NAT, runner, kernel).apply(delete=[A], add=[B])

    assert runner.loaded == []
    assert kernel.changes == [([A], [B])]


@pytest.mark.parametrize("kernel", [Kernel(layout="layout-old"), Kernel(layout=NAT.layout)])
def test_a_table_of_any_layout_is_removed_its_rules_first(kernel: Kernel) -> None:
    runner = Scripts()
    NftTable(NAT, runner, kernel).remove()

    assert runner.loaded[:2] == [
        "flush table inet isthmus-cni\n",
        "add table inet isthmus-cni\ndelete table inet isthmus-cni\n",
    ]


def test_removing_what_is_not_there_needs_no_nft() -> None:
    NftTable(NAT, Scripts(NftUnavailable("no nft")), Kernel()).remove()


def test_probing_only_asks() -> None:
    runner = Scripts()
    NftTable(NAT, runner, Kernel()).probe()

    assert runner.loaded == [f"checked: {NAT.script()}"]


def test_the_packets_of_a_chain_are_those_of_the_tables_own() -> None:
    assert NftTable(NAT, Scripts(), Kernel()).packets("overflow") == 7
