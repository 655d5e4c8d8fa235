import errno
import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.nat import Published, plan
from cni.publisher import Publisher
from dataplane.errors import DataplaneError, NetlinkError, NftUnavailable
from dataplane.nft.objects import Element, Family, Protocol
from net.address import IPAddress
from tests.unit.cni.published import Port, pod, published, who
from tests.unit.dataplane.nft.fake import FakeTable

A = pod("a", "10.1.0.2/24", masquerade=True)
B = pod("b", "10.1.0.3/24", masquerade=True)
GUARDED = pod("g", mac_spoof_check=True)


class Flows:
    """Conntrack that remembers what it was told to forget."""

    def __init__(self) -> None:
        self.flushed: list[tuple[Protocol, int, IPAddress | None]] = []
        self.failure: DataplaneError | None = None

    def flush_port(self, protocol: Protocol, port: int, host_ip: IPAddress | None = None) -> None:
        if self.failure:
            raise self.failure
        self.flushed.append((protocol, port, host_ip))


class Host:
    """Both tables, conntrack, and a publisher over them."""

    def __init__(self, *stored: Published) -> None:
        self.nat, self.guard, self.flows = FakeTable(), FakeTable(), Flows()
        self.publisher = Publisher(
            {Family.INET: self.nat, Family.BRIDGE: self.guard}, self.flows, stored
        )

    @property
    def elements(self) -> frozenset[Element]:
        return (self.nat.elements or frozenset()) | (self.guard.elements or frozenset())


def test_no_table_is_made_before_something_is_wanted_of_it() -> None:
    host = Host()
    host.publisher.withdraw(who("nobody"))
    host.publisher.publish(pod("plain"))
    none_yet = host.nat.elements
    host.publisher.publish(A)

    assert none_yet is None
    assert host.nat.elements == plan([A])
    assert host.guard.elements is None


def test_what_is_published_is_there_until_it_is_withdrawn() -> None:
    host = Host()
    for each in (A, B, GUARDED):
        host.publisher.publish(each)
    all_three = host.elements
    host.publisher.withdraw(A.who)
    host.publisher.withdraw(A.who)

    assert all_three == plan([A, B, GUARDED])
    assert host.elements == plan([B, GUARDED])


def test_publishing_again_replaces_what_was_there() -> None:
    host = Host(A)
    host.publisher.publish(pod("a", port_mappings=(Port(80),)))

    assert host.elements == plan([pod("a", port_mappings=(Port(80),))])


def test_the_first_change_after_a_start_clears_leftovers_and_completes_what_is_stored() -> None:
    host = Host(A)
    host.nat.replace(plan([pod("left", "10.1.0.9/24", masquerade=True)]))
    host.publisher.publish(B)

    assert host.elements == plan([A, B])


def test_nothing_of_others_is_taken_away_before_it_is_known_who_is_there() -> None:
    table = FakeTable()
    others = plan([B, pod("c", "10.1.0.4/24", port_mappings=(Port(80),))])
    table.replace(others)
    publisher = Publisher({Family.INET: table}, Flows())
    late = pod("a", "10.1.0.2/24", started=2, port_mappings=(Port(80),))
    publisher.publish(late)
    unsure = table.elements
    publisher.resync(lambda: [late])

    assert unsure is not None
    assert plan([late]) <= unsure
    assert {each for each in others if each.of.name != "hostport4_any"} <= unsure
    assert table.elements == plan([late])


def test_resync_mends_whatever_it_finds() -> None:
    host = Host()
    host.publisher.publish(A)
    host.nat.elements = plan([GUARDED])
    changed = host.publisher.resync(lambda: [A, B])
    again = host.publisher.resync(lambda: [A, B])

    assert host.elements == plan([A, B])
    assert changed > 0
    assert again == 0


def test_changes_while_the_store_is_read_are_kept() -> None:
    host = Host(A)

    def read() -> list[Published]:
        host.publisher.publish(B)
        host.publisher.withdraw(A.who)
        return [A]

    host.publisher.resync(read)

    assert host.elements == plan([B])


@pytest.mark.parametrize("vanished", [None, frozenset()], ids=["table", "elements"])
def test_a_change_finds_out_that_somebody_flushed_and_puts_all_back(
    vanished: frozenset[Element] | None,
) -> None:
    host = Host(A)
    host.publisher.publish(B)
    host.nat.elements = vanished
    host.publisher.withdraw(B.who)

    assert host.elements == plan([A])


def test_a_refused_publish_leaves_the_attachment_as_it_was() -> None:
    host = Host(A)
    host.publisher.resync(lambda: [A])
    host.nat.failures = [NetlinkError(errno.ENOMEM, "add")] * 2

    with pytest.raises(NetlinkError):
        host.publisher.publish(pod("a", port_mappings=(Port(80),)))
    host.publisher.publish(B)

    assert host.elements == plan([A, B])


def test_a_change_that_failed_once_is_tried_again_from_what_the_kernel_has() -> None:
    host = Host(A)
    host.publisher.resync(lambda: [A])
    host.nat.late = [NetlinkError(errno.ENOBUFS, "answer lost")]
    host.publisher.publish(B)

    assert host.elements == plan([A, B])


def test_a_withdrawal_that_failed_is_made_good_by_the_next_change() -> None:
    host = Host(A, B)
    host.publisher.resync(lambda: [A, B])
    host.nat.failures = [NetlinkError(errno.ENOMEM, "delete")] * 2

    with pytest.raises(NetlinkError):
        host.publisher.withdraw(A.who)
    host.publisher.publish(GUARDED)

    assert host.elements == plan([B, GUARDED])


def test_without_nft_the_caller_is_told_and_nothing_is_kept() -> None:
    host = Host()
    host.nat.failures = [NftUnavailable("install nftables")]

    with pytest.raises(NftUnavailable, match="install nftables"):
        host.publisher.publish(A)
    host.publisher.publish(B)

    assert host.elements == plan([B])


def test_a_port_no_element_can_be_made_of_is_the_callers_error() -> None:
    host = Host(A)

    with pytest.raises(ValueError, match="70000 is no port"):
        host.publisher.publish(pod("b", port_mappings=(Port(70000),)))
    host.publisher.publish(B)

    assert host.elements == plan([A, B])


def test_old_flows_of_a_udp_port_are_forgotten_when_it_comes_and_when_it_goes() -> None:
    host = Host()
    dns = pod("d", port_mappings=(Port(53, protocol="udp", host_ip=ip_address("192.0.2.1")),))
    host.publisher.publish(A)
    before = list(host.flows.flushed)
    host.publisher.publish(dns)
    host.publisher.withdraw(dns.who)

    assert before == []
    assert host.flows.flushed == [(Protocol.UDP, 53, ip_address("192.0.2.1"))] * 2


def test_flows_that_cannot_be_forgotten_fail_nobody() -> None:
    host = Host()
    host.flows.failure = NetlinkError(errno.ENOBUFS, "conntrack")
    dns = pod("d", port_mappings=(Port(53, protocol="udp"),))
    host.publisher.publish(dns)

    assert host.elements == plan([dns])


def test_check_tells_what_is_missing_and_nothing_else() -> None:
    host = Host(A, B)
    host.publisher.resync(lambda: [A, B])
    complete = host.publisher.missing(A)
    host.nat.elements = plan([B])
    incomplete = host.publisher.missing(A)
    host.nat.elements = None
    gone = host.publisher.missing(A)

    assert complete == []
    assert incomplete == ['nft element masq4 { 10.1.0.2 comment "net/a/eth0" } is missing']
    assert gone == ["nft table inet isthmus-cni is not as made"]
    assert host.publisher.missing(pod("plain")) == []


def test_a_port_that_a_later_attachment_took_is_not_missing() -> None:
    early, late = (
        pod(name, started=at, port_mappings=(Port(80),)) for name, at in (("a", 1), ("b", 2))
    )
    host = Host()
    host.publisher.resync(lambda: [early, late])

    assert host.publisher.missing(early) == []


class SlowTable(FakeTable):
    """The first change waits until the test has sent the others."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.go_on = threading.Event(), threading.Event()

    def apply(self, *, delete: Collection[Element] = (), add: Collection[Element] = ()) -> None:
        self.started.set()
        assert self.go_on.wait(10)
        super().apply(delete=delete, add=add)


class Counted(Publisher):
    """Tells when so many callers wait."""

    def waiting(self) -> int:
        with self._queue:
            return len(self._waiting)


def burst(*rest: Published) -> tuple[SlowTable, list[BaseException | None], Counted]:
    """Publish A, and *rest* while A is being committed; returns what each of *rest* raised."""
    table = SlowTable()
    publisher = Counted({Family.INET: table}, Flows())
    publisher.resync(lambda: [pod("z", "10.1.0.99/24", masquerade=True)])
    table.transactions = 0
    with ThreadPoolExecutor(len(rest) + 1) as pool:
        first = pool.submit(publisher.publish, A)
        assert table.started.wait(10)
        others = [pool.submit(publisher.publish, each) for each in rest]
        while publisher.waiting() < len(rest):
            pass
        table.go_on.set()
        first.result(10)
        failures = [each.exception(10) for each in others]
    return table, failures, publisher


def test_a_burst_of_callers_is_one_transaction_more() -> None:
    crowd = [pod(f"p{number}", f"10.1.0.{number}/24", masquerade=True) for number in range(10, 18)]
    table, failures, _ = burst(*crowd)

    assert failures == [None] * 8
    assert table.transactions == 2
    assert plan([A, *crowd]) <= (table.elements or frozenset())


def test_in_a_burst_only_the_caller_with_the_bad_wish_is_refused() -> None:
    good = [pod(f"p{number}", f"10.1.0.{number}/24", masquerade=True) for number in (10, 11)]
    bad = pod("bad", port_mappings=(Port(70000),))
    table, failures, _ = burst(good[0], bad, good[1])

    assert [type(each) for each in failures] == [type(None), ValueError, type(None)]
    assert plan([A, *good]) <= (table.elements or frozenset())


@given(st.lists(st.tuples(published, st.sampled_from(["stay", "go", "fail", "late"])), max_size=12))
def test_after_any_history_the_kernel_has_the_plan(steps: list[tuple[Published, str]]) -> None:
    host, held = Host(), {}
    for each, fate in steps:
        if fate == "go":
            host.publisher.withdraw(each.who)
            held.pop(each.who, None)
            continue
        lost = NetlinkError(errno.ENOBUFS, "lost")
        host.nat.failures = [lost, lost] if fate == "fail" else []
        host.nat.late = [lost] if fate == "late" else []
        try:
            host.publisher.publish(each)
        except DataplaneError:
            assert fate == "fail" or host.nat.elements is not None
        else:
            held[each.who] = each
        host.nat.failures, host.nat.late = [], []
    host.publisher.withdraw(who("nobody", "nowhere"))

    assert host.elements == plan(held.values())
