import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.cluster import Pool, Purpose
from ipam.keys import Freeze, write
from ipam.kv import KVError, Put
from ipam.load_balancers import Choice, Demand
from ipam.memory_kv import Faults
from ipam.refusals import Exhausted, Forbidden, Frozen, Refused
from ipam.replica import Change
from ipam.view import View
from tests.unit.ipam.ipamd_cases import FOUR, KEYS, Site, faults, site

LB4 = Pool(
    name="lb4",
    cidr=ip_network("192.0.2.0/30"),
    block_length=32,
    purpose=Purpose.LOAD_BALANCERS,
)
LB6 = replace(LB4, name="lb6", cidr=ip_network("2001:db8::/126"), block_length=128)
WEB = Demand(service="shop/web", families=(4, 6), ports=("TCP/80",))
DNS = replace(WEB, service="shop/dns", ports=("UDP/53",))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        made.begin(FOUR, LB4, LB6)
        yield made


def assign(cluster: Site, demand: Demand, at: int = 0) -> Choice:
    return cluster.do(lambda a: a.assigning.assign(demand), at)


def release(cluster: Site, service: str, at: int = 0) -> None:
    cluster.do(lambda a: a.assigning.release(service), at)


def sound(view: View) -> None:
    """What each address says and what each Service says is the same, and nothing is twice."""
    by_address = {
        (holder.service, record.address)
        for record in view.addresses.values()
        for holder in record.holders
    }
    by_service = {
        (record.service, address)
        for record in view.services.values()
        for address in record.addresses
    }
    assert by_address == by_service
    for record in view.addresses.values():
        ports = [port for holder in record.holders for port in holder.ports]
        assert len(record.holders) == 1 or record.sharing
        assert len(set(ports)) == len(ports)
    for service in view.services.values():
        versions = [address.version for address in service.addresses]
        assert len(set(versions)) == len(versions)


def test_both_families_are_given_in_one_transaction(cluster: Site) -> None:
    before = cluster.store.revision

    choice = assign(cluster, WEB)

    assert [one.version for one in choice.addresses] == [4, 6]
    assert cluster.store.revision == before + 1


def test_what_is_there_already_is_not_written_again(cluster: Site) -> None:
    first = assign(cluster, WEB)
    before = cluster.replicas[1].counts().transactions

    again = assign(cluster, WEB, at=1)

    assert again == first
    assert cluster.replicas[1].counts().transactions == before


def test_of_two_replicas_that_serve_one_service_the_second_finds_what_the_first_gave(
    cluster: Site,
) -> None:
    cluster.follow()

    first = cluster.run(cluster.replicas[0].assigning.assign(WEB))
    second = cluster.run(cluster.replicas[1].assigning.assign(WEB))
    cluster.follow()

    assert first.addresses == second.addresses
    sound(cluster.replicas[0].replica.view)


def test_of_two_replicas_that_want_the_last_address_one_gets_it(cluster: Site) -> None:
    for number in range(3):
        assign(cluster, replace(WEB, service=f"shop/{number}", families=(4,)))
    cluster.follow()

    cluster.run(cluster.replicas[0].assigning.assign(replace(WEB, families=(4,))))

    with pytest.raises(Exhausted):
        cluster.run(cluster.replicas[1].assigning.assign(replace(DNS, families=(4,))))
    cluster.follow()
    sound(cluster.replicas[1].replica.view)


@pytest.mark.parametrize("applied", [True, False])
def test_an_assignment_whose_answer_was_lost_is_read_back(cluster: Site, applied: bool) -> None:
    faults(cluster, 0, Faults(lost=(applied,)))

    choice = assign(cluster, WEB)
    cluster.follow()

    view = cluster.replicas[1].replica.view
    assert view.services["shop/web"].addresses == choice.addresses
    assert len(view.addresses) == 2


def test_what_a_service_leaves_for_another_address_is_free_in_the_same_transaction(
    cluster: Site,
) -> None:
    (had,) = assign(cluster, replace(WEB, families=(4,))).addresses
    other = next(one for one in LB4.cidr if one != had)
    before = cluster.store.revision

    assign(cluster, replace(WEB, families=(4,), addresses=(other,)))
    cluster.follow()

    assert cluster.store.revision == before + 1
    assert set(cluster.replicas[0].replica.view.addresses) == {other}


def test_an_address_that_is_shared_stays_until_the_last_has_left(cluster: Site) -> None:
    web, dns = replace(WEB, sharing="k"), replace(DNS, sharing="k")
    shared = assign(cluster, web).addresses

    assert assign(cluster, dns).addresses == shared
    release(cluster, "shop/web", at=1)
    cluster.follow()
    view = cluster.replicas[0].replica.view
    assert {holder.service for one in view.addresses.values() for holder in one.holders} == {
        "shop/dns"
    }
    release(cluster, "shop/dns")
    release(cluster, "shop/dns")
    cluster.follow()
    assert (dict(view.addresses), dict(view.services)) == ({}, {})


def test_a_pool_whose_addresses_services_have_is_not_deleted(cluster: Site) -> None:
    assign(cluster, WEB)

    with pytest.raises(Forbidden, match="a Service has "):
        cluster.do(lambda a: a.delete_pool("lb4"))
    release(cluster, "shop/web")
    cluster.do(lambda a: a.delete_pool("lb4"))


def test_while_claims_are_frozen_nothing_is_given_or_taken_back(cluster: Site) -> None:
    assign(cluster, WEB)
    cluster.follow()
    replica = cluster.replicas[0].replica
    cluster.run(replica.commit(Change([], [Put(KEYS.frozen, write(Freeze("restored")))])))

    for at in (0, 1):
        with pytest.raises(Frozen, match="restored"):
            cluster.run(cluster.replicas[at].assigning.assign(DNS))
        with pytest.raises(Frozen, match="restored"):
            cluster.run(cluster.replicas[at].assigning.release("shop/web"))


def test_what_others_show_as_theirs_is_given_to_nobody_else(cluster: Site) -> None:
    theirs = ip_address("192.0.2.1")
    got = set()
    for number in range(3):
        demand = replace(WEB, service=f"shop/{number}", families=(4,))
        got |= set(cluster.do(lambda a, d=demand: a.assigning.assign(d, [theirs])).addresses)  # type: ignore[misc]

    assert got == set(LB4.cidr) - {theirs}
    with pytest.raises(Exhausted):
        cluster.do(lambda a: a.assigning.assign(replace(DNS, families=(4,)), [theirs]))
    owner = replace(DNS, families=(4,), shown=(theirs,))
    assert assign(cluster, owner).addresses == (theirs,)


def test_a_store_that_was_wiped_gives_back_what_each_status_shows(tmp_path: Path) -> None:
    first = ("192.0.2.2", "192.0.2.3")
    with site(tmp_path) as cluster:
        cluster.begin(FOUR, LB4)
        shown = [
            replace(WEB, service=f"shop/{one}", families=(4,), shown=(ip_address(one),))
            for one in first
        ]
        for demand in shown:
            others = {one for other in shown if other is not demand for one in other.shown}
            cluster.do(lambda a, d=demand, o=others: a.assigning.assign(d, o))  # type: ignore[misc]
        cluster.follow()

        view = cluster.replicas[0].replica.view
        assert {name: tuple(map(str, one.addresses)) for name, one in view.services.items()} == {
            f"shop/{one}": (one,) for one in first
        }


steps = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d"]),
        st.sampled_from(["assign", "release"]),
        st.sampled_from([("TCP/80",), ("TCP/443",), ("TCP/80", "UDP/53")]),
        st.sampled_from(["", "k"]),
        st.integers(0, 1),
        st.sampled_from([(), (True,), (False,)]),
        st.booleans(),
    ),
    max_size=14,
)


@given(steps)
def test_whatever_two_replicas_do_with_old_views_and_lost_answers_no_address_is_two_services(
    tmp_path_factory: pytest.TempPathFactory, taken: list[tuple[object, ...]]
) -> None:
    with site(tmp_path_factory.mktemp("s")) as cluster:
        cluster.begin(LB4, LB6)
        for name, what, ports, sharing, at, lost, follows in taken:
            demand = replace(WEB, service=f"shop/{name}", ports=ports, sharing=sharing)  # type: ignore[arg-type]
            if follows:
                cluster.follow()
            faults(cluster, at, Faults(lost=lost))  # type: ignore[arg-type]
            assigning = cluster.replicas[at].assigning  # type: ignore[call-overload]
            work = (
                assigning.assign(demand) if what == "assign" else assigning.release(demand.service)
            )
            with contextlib.suppress(Refused, KVError):
                cluster.run(work)
            faults(cluster, at, Faults())  # type: ignore[arg-type]
            sound(cluster.run(cluster.replicas[0].replica.look()))


def test_two_at_once_in_one_replica_do_not_choose_the_same(cluster: Site) -> None:
    async def both() -> list[Choice]:
        assigning = cluster.replicas[0].assigning
        return await asyncio.gather(assigning.assign(WEB), assigning.assign(DNS))

    cluster.follow()
    one, other = cluster.run(both())

    assert not set(one.addresses) & set(other.addresses)
