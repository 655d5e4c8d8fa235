"""What a table of nft promises, whether it is the kernel's or the fake."""

from ipaddress import ip_address, ip_network
from typing import Protocol as Seam

import pytest

from cni import publisher
from cni.tables import ANY_HOST_PORT, HAIRPIN, LOCAL, MASQUERADED
from dataplane.errors import NetlinkError
from dataplane.nft.objects import Element, Protocol, element

A = element(MASQUERADED[4], [ip_address("10.0.0.1")], comment="net/a/eth0")
B = element(MASQUERADED[4], [ip_address("10.0.0.2")], comment="net/b/eth0")
SIX = element(MASQUERADED[6], [ip_address("fd00::1")])


def port(number: int, pod: str, comment: str = "") -> Element:
    key, data = (Protocol.TCP, number), (ip_address(pod), 80)
    return element(ANY_HOST_PORT[4], key, data, comment=comment)


def subnets(one: str, other: str) -> Element:
    return element(LOCAL[4], [ip_network(one), ip_network(other)])


class Table(publisher.Table, Seam):
    """What writes elements, and the one thing more that a table can."""

    def remove(self) -> None: ...


class TableContract:
    """Subclasses give a fixture `table`: one whose table is not there yet."""

    def test_an_absent_table_is_told_from_an_empty_one(self, table: Table) -> None:
        absent = table.observe()
        table.replace([])

        assert absent is None
        assert table.observe() == frozenset()

    def test_what_was_put_is_observed(self, table: Table) -> None:
        everything = {
            A,
            SIX,
            port(80, "10.0.0.1", "net/a/eth0"),
            subnets("10.0.0.0/8", "10.0.0.0/8"),
        }
        everything.add(element(HAIRPIN[6], [ip_network("fd00::/64"), ip_address("fd00::1")]))
        table.replace(everything)

        assert table.observe() == everything

    def test_replacing_leaves_nothing_of_before(self, table: Table) -> None:
        table.replace([A])
        table.replace([B])

        assert table.observe() == {B}

    def test_changes_are_added_and_deleted(self, table: Table) -> None:
        table.replace([A])
        table.apply(delete=[A], add=[B, SIX])

        assert table.observe() == {B, SIX}

    def test_changing_an_absent_table_is_refused_as_absent(self, table: Table) -> None:
        with pytest.raises(NetlinkError) as refused:
            table.apply(add=[A])

        assert refused.value.absent
        assert table.observe() is None

    def test_a_refused_deletion_leaves_all_as_it_was(self, table: Table) -> None:
        table.replace([A])

        with pytest.raises(NetlinkError) as refused:
            table.apply(delete=[B], add=[SIX])

        assert refused.value.absent
        assert table.observe() == {A}

    def test_adding_what_is_there_is_no_error_but_another_value_is(self, table: Table) -> None:
        table.replace([A, port(80, "10.0.0.1")])
        table.apply(add=[A, port(80, "10.0.0.1")])

        with pytest.raises(NetlinkError):
            table.apply(add=[port(80, "10.0.0.2")])

        assert table.observe() == {A, port(80, "10.0.0.1")}

    def test_a_key_can_change_hands_in_one_transaction(self, table: Table) -> None:
        before, after = port(80, "10.0.0.1", "net/a/eth0"), port(80, "10.0.0.2", "net/b/eth0")
        table.replace([before])
        table.apply(delete=[before], add=[after])

        assert table.observe() == {after}

    def test_overlapping_intervals_are_refused(self, table: Table) -> None:
        table.replace([subnets("10.0.0.0/8", "10.0.0.0/8")])

        with pytest.raises(NetlinkError):
            table.apply(add=[subnets("10.1.0.0/16", "10.1.0.0/16")])

        table.apply(add=[subnets("192.168.0.0/16", "10.0.0.0/8")])

    def test_a_large_interval_can_make_room_for_a_smaller(self, table: Table) -> None:
        large, small = (subnets(net, net) for net in ("10.0.0.0/8", "10.1.0.0/16"))
        table.replace([large])
        table.apply(delete=[large], add=[small])

        assert table.observe() == {small}

    def test_a_removed_table_is_absent_and_removing_it_again_no_error(self, table: Table) -> None:
        table.replace([A])
        table.remove()
        table.remove()

        assert table.observe() is None
