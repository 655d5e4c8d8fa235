from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.cluster import (
    AddressRecord,
    Config,
    Holder,
    Pool,
    PoolState,
    Purpose,
    ServiceRecord,
    Settings,
)
from ipam.keys import Keys, alone, write
from ipam.kv import Entry, Listing
from ipam.load_balancers import Demand, choose, demand_of, is_ours, is_settled, without
from ipam.refusals import Exhausted, Forbidden, Invalid, Refused, Unknown
from ipam.view import View
from kube.objects import Service
from net.address import IPAddress

KEYS = Keys("c")
LB = Purpose.LOAD_BALANCERS
FOUR = Pool(name="four", cidr=ip_network("192.0.2.0/30"), block_length=32, purpose=LB)
SIX = Pool(name="six", cidr=ip_network("2001:db8::/126"), block_length=128, purpose=LB)
BLUE = Pool(name="blue", cidr=ip_network("198.51.100.0/30"), block_length=32, purpose=LB, order=9)
PODS = Pool(name="pods", cidr=ip_network("10.0.0.0/16"), block_length=26)
CONFIG = Config(pools=(PODS, FOUR, SIX, BLUE))
WEB = Demand(service="shop/web", families=(4,), ports=("TCP/80",))
DNS = Demand(service="shop/dns", families=(4,), ports=("UDP/53",))


def view_of(*records: AddressRecord, config: Config = CONFIG, foreign: str = "") -> View:
    """A store in which these records are, and those of their Services that go with them."""
    had: dict[str, list[IPAddress]] = {}
    for record in records:
        for holder in record.holders:
            had.setdefault(holder.service, []).append(record.address)
    contents = {KEYS.config: write(config)}
    contents |= {KEYS.address(record.address): write(record) for record in records}
    contents |= {
        KEYS.service(name): write(ServiceRecord(name, tuple(addresses)))
        for name, addresses in had.items()
    }
    if foreign:
        contents[foreign] = b"edited"
    view = View(KEYS)
    view.replace(Listing(tuple(map(_entry, contents.items())), 7))
    return view


def _entry(item: tuple[str, bytes]) -> Entry:
    key, value = item
    return Entry(key=key, value=value, create_revision=5, mod_revision=5, version=1)


def held(address: str, *demands: Demand, sharing: str = "", pool: str = "four") -> AddressRecord:
    holders = tuple(Holder(one.service, one.ports) for one in demands)
    return AddressRecord(address=ip_address(address), pool=pool, sharing=sharing, holders=holders)


def chosen(demand: Demand, *records: AddressRecord, **more: Any) -> list[str]:
    choice = choose(demand, view_of(*records, **more), 0)
    return [str(one) for one in choice.addresses]


def service(annotations: dict[str, str] | None = None, **spec: Any) -> Service:
    ports = [{"port": 80, "protocol": "TCP"}]
    return msgspec.convert(
        {
            "metadata": {
                "name": "web",
                "namespace": "shop",
                "labels": {"tier": "front"},
                "annotations": annotations,
            },
            "spec": {"type": "LoadBalancer", "ports": ports, "ipFamilies": ["IPv4"], **spec},
        },
        Service,
    )


@pytest.mark.parametrize(
    ("spec", "settings", "pools", "ours"),
    [
        ({"loadBalancerClass": "isthmus.dev/lb"}, Settings(), (), True),
        ({"loadBalancerClass": "isthmus.dev/lb"}, Settings(cloud_controller=True), (FOUR,), True),
        ({"loadBalancerClass": "example.com/lb"}, Settings(), (FOUR,), False),
        ({}, Settings(), (FOUR,), True),
        ({}, Settings(), (PODS,), False),
        ({}, Settings(cloud_controller=True), (FOUR,), False),
        ({"type": "ClusterIP"}, Settings(), (FOUR,), False),
        ({"type": "NodePort", "loadBalancerClass": "isthmus.dev/lb"}, Settings(), (FOUR,), False),
    ],
)
def test_a_service_is_ours_by_its_class_or_where_nobody_else_gives_addresses(
    spec: dict[str, Any], settings: Settings, pools: tuple[Pool, ...], ours: bool
) -> None:
    assert is_ours(service(**spec), Config(pools=pools, settings=settings)) is ours


def test_what_a_service_asks_for_is_read() -> None:
    asked = demand_of(
        service(
            {
                "isthmus.dev/pool": "blue, six",
                "isthmus.dev/address": "198.51.100.2,2001:db8::2",
                "isthmus.dev/sharing-key": "k",
            },
            ipFamilies=["IPv6", "IPv4"],
            ipFamilyPolicy="RequireDualStack",
            ports=[{"port": 443}, {"port": 53, "protocol": "UDP"}, {"port": 443}],
        )
    )

    assert asked == Demand(
        service="shop/web",
        families=(6, 4),
        needs_all=True,
        ports=("TCP/443", "UDP/53"),
        pools=("blue", "six"),
        addresses=(ip_address("198.51.100.2"), ip_address("2001:db8::2")),
        sharing='["shop", "k"]',
        labels={"tier": "front", "kubernetes.io/metadata.name": "shop"},
    )


def test_the_deprecated_field_asks_for_an_address_where_no_annotation_does() -> None:
    by_field = service(loadBalancerIP="192.0.2.1")
    by_both = service({"isthmus.dev/address": "192.0.2.2"}, loadBalancerIP="192.0.2.1")

    assert demand_of(by_field).addresses == (ip_address("192.0.2.1"),)
    assert demand_of(by_both).addresses == (ip_address("192.0.2.2"),)


@pytest.mark.parametrize(
    ("annotations", "spec", "message"),
    [
        ({"isthmus.dev/address": "192.0.2"}, {}, "isthmus.dev/address: '192.0.2' is no address"),
        ({"isthmus.dev/address": "2001:db8::1"}, {}, "of none of the Service's ipFamilies"),
        ({"isthmus.dev/address": "192.0.2.1,192.0.2.2"}, {}, "one address of each family"),
        ({"isthmus.dev/address": "fe80::1%eth0"}, {"ipFamilies": ["IPv6"]}, "has a zone"),
        ({}, {"loadBalancerIP": "web.example"}, "spec.loadBalancerIP: 'web.example' is no"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_by_its_name(
    annotations: dict[str, str], spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(Invalid, match=message):
        demand_of(service(annotations, **spec))


def test_of_policy_local_who_shares_has_to_have_the_same_pods() -> None:
    def sharing(**spec: Any) -> str:
        return demand_of(service({"isthmus.dev/sharing-key": "k"}, **spec)).sharing

    one = sharing(externalTrafficPolicy="Local", selector={"app": "one"})

    assert one == sharing(externalTrafficPolicy="Local", selector={"app": "one"})
    assert one != sharing(externalTrafficPolicy="Local", selector={"app": "two"})
    assert one != sharing(externalTrafficPolicy="Cluster", selector={"app": "one"})


def test_a_service_gets_an_address_of_each_family_in_its_order() -> None:
    both = chosen(replace(WEB, families=(6, 4)))

    assert [ip_address(one) in pool.cidr for one, pool in zip(both, (SIX, FOUR), strict=True)]


def test_what_a_service_has_it_keeps_in_a_pool_that_gives_nothing_new() -> None:
    disabled = Config(pools=(replace(FOUR, state=PoolState.DISABLED), BLUE))

    assert chosen(WEB, held("192.0.2.3", WEB), config=disabled) == ["192.0.2.3"]


def test_what_its_status_shows_and_nobody_has_a_service_gets_again() -> None:
    shows = replace(WEB, shown=(ip_address("192.0.2.2"),))

    assert chosen(shows) == ["192.0.2.2"]
    assert chosen(shows, held("192.0.2.2", DNS)) != ["192.0.2.2"]
    assert ip_address(chosen(replace(shows, pools=("blue",)))[0]) in BLUE.cidr


def test_pools_are_asked_in_their_order_and_by_their_labels() -> None:
    first = replace(BLUE, order=-1)
    for_front = replace(first, selector={"tier": "front"})

    assert ip_address(chosen(WEB)[0]) in FOUR.cidr
    assert ip_address(chosen(WEB, config=Config(pools=(FOUR, first)))[0]) in BLUE.cidr
    assert ip_address(chosen(WEB, config=Config(pools=(FOUR, for_front)))[0]) in FOUR.cidr
    front = replace(WEB, labels={"tier": "front"})
    assert ip_address(chosen(front, config=Config(pools=(FOUR, for_front)))[0]) in BLUE.cidr


def test_a_service_that_asks_for_another_address_changes_to_it() -> None:
    wants = replace(WEB, addresses=(ip_address("192.0.2.0"),))

    assert chosen(wants, held("192.0.2.3", WEB)) == ["192.0.2.0"]


def test_services_of_one_key_share_an_address_until_their_ports_clash() -> None:
    there = held("192.0.2.3", WEB, sharing="k")

    assert chosen(replace(DNS, sharing="k"), there) == ["192.0.2.3"]
    assert chosen(replace(DNS, sharing="other"), there) != ["192.0.2.3"]
    assert chosen(DNS, there) != ["192.0.2.3"]
    assert chosen(replace(DNS, sharing="k", ports=("TCP/80",)), there) != ["192.0.2.3"]


def test_who_begins_to_clash_leaves_the_address_that_it_shares() -> None:
    there = held("192.0.2.3", WEB, DNS, sharing="k")
    clashes = replace(DNS, sharing="k", ports=("TCP/80",))

    assert chosen(clashes, there) != ["192.0.2.3"]
    assert chosen(replace(DNS, sharing="k", ports=("TCP/81",)), there) == ["192.0.2.3"]


@pytest.mark.parametrize(
    ("demand", "kind", "message"),
    [
        (replace(WEB, pools=("red",)), Unknown, "no pool red for Services; there are: blue, four"),
        (replace(WEB, pools=("pods",)), Unknown, "no pool pods for Services"),
        (replace(WEB, pools=("six",)), Exhausted, "no pool of six for Services has IPv4"),
        (replace(WEB, addresses=(ip_address("203.0.113.1"),)), Invalid, "is in no pool"),
        (
            replace(WEB, pools=("blue",), addresses=(ip_address("192.0.2.1"),)),
            Invalid,
            "192.0.2.1 is in no pool for Services that suits",
        ),
        (
            replace(WEB, addresses=(ip_address("192.0.2.3"),)),
            Forbidden,
            "192.0.2.3 is shop/dns's, which does not share it so",
        ),
    ],
)
def test_who_gets_none_is_told_why(demand: Demand, kind: type[Refused], message: str) -> None:
    with pytest.raises(kind, match=message):
        choose(demand, view_of(held("192.0.2.3", DNS)), 0)


def test_a_port_that_clashes_with_what_is_asked_for_is_named() -> None:
    wants = replace(WEB, sharing="k", addresses=(ip_address("192.0.2.3"),))
    there = held("192.0.2.3", replace(DNS, ports=("TCP/80",)), sharing="k")

    with pytest.raises(Forbidden, match="is shared with shop/dns, which has TCP/80 too"):
        choose(wants, view_of(there), 0)


def test_a_reserved_address_is_not_given_to_who_asks_for_it_either() -> None:
    config = Config(pools=(replace(FOUR, reservations=(ip_network("192.0.2.1/32"),)),))

    with pytest.raises(Invalid, match="is reserved in pool four"):
        choose(replace(WEB, addresses=(ip_address("192.0.2.1"),)), view_of(config=config), 0)


def test_an_exhausted_pool_is_named() -> None:
    config = Config(pools=(replace(FOUR, cidr=ip_network("192.0.2.3/32")),))

    with pytest.raises(Exhausted, match=r"no free address of IPv4 in four \(192.0.2.3/32\)"):
        choose(WEB, view_of(held("192.0.2.3", DNS), config=config), 0)


def test_of_two_families_one_is_better_than_none_unless_both_are_required() -> None:
    config = Config(pools=(FOUR,))
    both = replace(WEB, families=(4, 6))

    choice = choose(both, view_of(config=config), 0)

    assert [one.version for one in choice.addresses] == [4]
    assert choice.lacks == "no pool for Services has IPv6, is active, and selects it"
    with pytest.raises(Exhausted):
        choose(replace(both, needs_all=True), view_of(config=config), 0)


def test_without_a_pool_for_services_that_is_said() -> None:
    with pytest.raises(Exhausted, match="no pool for Services: isthmus ipam pools create"):
        choose(WEB, view_of(config=Config(pools=(PODS,))), 0)


def test_what_cannot_be_read_is_left_alone() -> None:
    address = ip_address("192.0.2.1")
    config = Config(pools=(replace(FOUR, cidr=ip_network("192.0.2.0/31")),))
    unread = view_of(config=config, foreign=KEYS.address(address))

    assert choose(replace(WEB, shown=(address,)), unread, 0).addresses != (address,)
    with pytest.raises(Forbidden, match="or its record cannot be read"):
        choose(replace(WEB, addresses=(address,)), unread, 0)
    with pytest.raises(Forbidden, match="its record in the store cannot be read"):
        choose(WEB, view_of(foreign=KEYS.service("shop/web")), 0)
    with pytest.raises(Forbidden, match="the configuration in the store cannot be read"):
        choose(WEB, view_of(foreign=KEYS.config), 0)


def test_what_others_show_is_not_given_while_it_is_kept_for_them() -> None:
    view = view_of(config=Config(pools=(replace(FOUR, cidr=ip_network("192.0.2.0/31")),)))
    kept = ip_address("192.0.2.0")
    view.begin_claim([alone(kept)])

    assert choose(WEB, view, 0).addresses == (ip_address("192.0.2.1"),)
    with pytest.raises(Forbidden, match="is shown by another Service"):
        choose(replace(WEB, addresses=(kept,)), view, 0)


def test_what_the_store_says_already_is_settled() -> None:
    before, after = view_of(), view_of(held("192.0.2.3", WEB))

    assert not is_settled(choose(WEB, before, 0), WEB, before)
    assert is_settled(choose(WEB, after, 0), WEB, after)
    other_port = replace(WEB, ports=("TCP/81",))
    assert not is_settled(choose(other_port, after, 0), other_port, after)


def test_the_last_who_leaves_an_address_leaves_nothing() -> None:
    shared = held("192.0.2.3", DNS, WEB, sharing="k")

    rest = without(shared, "shop/web")

    assert rest == held("192.0.2.3", DNS, sharing="k")
    assert rest is not None
    assert without(rest, "shop/dns") is None


demands = st.builds(
    Demand,
    service=st.sampled_from(["shop/a", "shop/b", "shop/c", "shop/d", "shop/e"]),
    families=st.sampled_from([(4,), (6,), (4, 6), (6, 4)]),
    ports=st.sets(st.sampled_from(["TCP/80", "TCP/443", "UDP/53"]), min_size=1).map(
        lambda ports: tuple(sorted(ports))
    ),
    needs_all=st.booleans(),
    pools=st.sampled_from([(), ("blue",), ("four", "six")]),
    addresses=st.sampled_from([(), (ip_address("192.0.2.1"),), (ip_address("2001:db8::1"),)]),
    sharing=st.sampled_from(["", "k", "l"]),
)


@given(st.lists(demands, max_size=25), st.integers(0, 1 << 96))
def test_no_address_is_anybodys_beside_another_who_does_not_share_it(
    asked: list[Demand], seed: int
) -> None:
    records: dict[IPAddress, AddressRecord] = {}
    for demand in asked:
        view = view_of(*records.values())
        try:
            choice = choose(demand, view, seed)
        except Refused:
            continue
        left = {one: without(record, demand.service) for one, record in records.items()}
        records = {one: record for one, record in left.items() if record}
        records |= {record.address: record for record in choice.records}
        versions = [one.version for one in choice.addresses]
        assert versions == [one for one in demand.families if one in versions]
        assert len(versions) == len(demand.families) or not demand.needs_all
        for record in records.values():
            ports = [port for holder in record.holders for port in holder.ports]
            assert len(record.holders) == 1 or record.sharing
            assert len(set(ports)) == len(ports)
