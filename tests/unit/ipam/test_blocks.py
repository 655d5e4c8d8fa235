"""What a node gives from its blocks, and what it does not, over the real allocator."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from ipam.allocator import Allocator
from ipam.blocks import DEMAND_S, Blocks
from ipam.calls import PoolRow, Update
from ipam.errors import NoFreeAddress, NotServed, PoolOfAnotherLink, StoreUnavailable
from ipam.holdings import Holdings, OwnBlock, OwnState
from ipam.leases import Lease, Record
from ipam.store import Snapshot
from net.address import IPNetwork
from tests.unit.ipam.cases import BOOT, Clock, FragileStore, record, who
from tests.unit.ipam.contract import ROW

FOUR, MORE, SIX = map(ip_network, ("10.1.0.0/29", "10.1.0.8/29", "fd00::/126"))


def block(cidr: IPNetwork, state: OwnState = OwnState.ACTIVE, **more: object) -> OwnBlock:
    usual: dict[str, object] = {"cidr": cidr, "pool": "p", "epoch": 1, "revision": 3}
    return OwnBlock(state=state, **(usual | more))  # type: ignore[arg-type]


OWN = Holdings(uid="u", epoch=1, generation="g", confirmed_boot=BOOT, blocks=(block(FOUR),))


class Site:
    """One node's allocator and blocks over a store; `begin` starts them anew."""

    def __init__(self, store: FragileStore) -> None:
        self.store = store
        self.now = 0.0
        self.woken = 0
        self.link: str | None = None
        self.begin()

    def begin(self, boot_id: str = BOOT) -> None:
        stored = self.store.load()
        self.leases = Allocator(self.store, boot_id=boot_id, now=Clock())
        self.blocks = Blocks(
            self.leases,
            stored,
            boot_id=boot_id,
            new_uid=lambda: "fresh",
            pod_of=lambda one: one.spec.partition("pod:")[2],
            clock=lambda: self.now,
        )
        self.blocks.link_of = lambda record: self.link
        self.leases.join(self.blocks)

        def wake() -> None:
            self.woken += 1

        self.blocks.wake = wake

    def adopt(self, *blocks: OwnBlock, **more: object) -> None:
        own = replace(OWN, blocks=blocks, **more)  # type: ignore[arg-type]
        self.blocks.adopt(own).result()

    def give(self, number: int, *pools: str, routed: bool = True, pod: str = "") -> list[str]:
        wanted = self.blocks.wanted(pools, bridge="" if routed else "cni0", pod=pod)
        leases = self.leases.reserve(who(number), wanted)
        self.hold(number, leases, pod)
        return [str(lease.address.ip) for lease in leases]

    def hold(self, number: int, leases: tuple[Lease, ...], pod: str) -> None:
        held = record(who(number), *(str(lease.address) for lease in leases))
        self.leases.hold(replace(held, spec=f"pod:{pod}")).result()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site(FragileStore())
    yield site
    site.leases.close()


def test_a_node_that_never_registered_says_so(site: Site) -> None:
    with pytest.raises(NotServed, match="this node has not registered with ipamd"):
        site.blocks.wanted(())
    site.blocks.trouble = "no ipamd answers"
    with pytest.raises(NotServed, match=r"registered with ipamd: no ipamd answers \(for 0 s\)"):
        site.blocks.wanted(())


def test_the_uid_is_made_once(site: Site) -> None:
    site.blocks.begin().result()
    uid = site.blocks.holdings.uid
    site.leases.close()
    site.store.closed = False
    site.begin()

    assert (uid, site.blocks.holdings.uid, site.blocks.is_durable) == ("fresh", "fresh", True)


@pytest.mark.parametrize(
    ("routed", "given"),
    [
        (True, ["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]),
        (False, ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]),
    ],
)
def test_all_of_a_block_but_its_ends_is_given_and_on_a_bridge_not_the_first(
    site: Site, routed: bool, given: list[str]
) -> None:
    site.adopt(block(FOUR))

    assert [site.give(n, routed=routed)[0] for n in range(len(given))] == given
    with pytest.raises(NoFreeAddress):
        site.give(99, routed=routed)


@pytest.mark.parametrize(("first", "second"), [("", "cni1"), ("cni0", ""), ("cni0", "cni1")])
def test_a_pool_is_on_one_link_as_long_as_somebody_has_an_address_of_it(
    site: Site, first: str, second: str
) -> None:
    site.adopt(block(FOUR), block(MORE, pool="q", default=False))
    site.blocks.wanted((), bridge=first)
    site.blocks.wanted((), bridge=second, network="two")  # nobody is there yet
    site.blocks.wanted((), bridge=first)
    site.give(1, routed=not first)
    site.link = first

    for _ in range(2):
        with pytest.raises(PoolOfAnotherLink) as refused:
            site.blocks.wanted((), bridge=second, network="two")
    site.blocks.wanted((), bridge=first, network="three")
    site.blocks.wanted(("q",), bridge=second, network="two")
    site.leases.release(who(1)).result()
    site.blocks.wanted((), bridge=second, network="two")
    modes = [f"({'bridge ' + each if each else 'routed'})" for each in (second, first)]

    assert [part for part in str(refused.value).split() if part in {"two", who(1).network}] == [
        "two",
        who(1).network,
    ]
    assert all(mode in str(refused.value) for mode in modes)


def test_after_a_restart_the_records_tell_on_which_link_a_pool_is(site: Site) -> None:
    site.adopt(block(FOUR))
    site.give(1, routed=False)
    site.leases.close()
    site.store.closed = False
    site.begin()
    site.link = "cni0"

    with pytest.raises(PoolOfAnotherLink, match=r"pool p: network .* \(bridge cni0\) has some"):
        site.blocks.wanted((), network="two")
    assert site.give(2, routed=False) == ["10.1.0.3"]


def test_one_address_of_each_family_that_the_node_has_blocks_of(site: Site) -> None:
    site.adopt(block(FOUR), block(SIX, pool="q"), block(MORE, pool="r", default=False))

    assert site.give(1) == ["10.1.0.1", "fd00::1"]
    assert site.give(2, "r") == ["10.1.0.9"]
    assert site.give(3, "r", "q") == ["10.1.0.10", "fd00::2"]


def test_a_pool_by_name_has_all_blocks_of_it(site: Site) -> None:
    site.adopt(block(FOUR), block(MORE))

    wanted = site.blocks.wanted(("p",))

    assert [str(one) for one in wanted.range_sets] == [f"{FOUR}, {MORE}"]


def test_reserved_addresses_are_not_given(site: Site) -> None:
    reserved = (ip_network("10.1.0.0/30"), ip_network("10.1.0.5"))
    site.adopt(block(FOUR, reserved=reserved))

    assert site.give(1) == ["10.1.0.4"]


def test_blocks_that_are_not_active_give_nothing(site: Site) -> None:
    site.adopt(block(FOUR, OwnState.DRAINING), block(MORE))
    first = site.give(1)
    site.adopt(block(FOUR, OwnState.LOST), block(MORE, OwnState.RETURNING))

    assert first == ["10.1.0.9"]
    with pytest.raises(NotServed) as caught:
        site.give(2)
    assert str(caught.value) == (
        "no usable IPv4 block: 10.1.0.0/29 is lost, 10.1.0.8/29 is returning"
    )


def test_a_family_whose_blocks_are_all_drained_is_not_left_out(site: Site) -> None:
    site.adopt(block(FOUR, OwnState.DRAINING), block(SIX))

    with pytest.raises(NotServed, match="no usable IPv4 block"):
        site.give(1)


def test_a_pool_without_a_block_is_asked_for(site: Site) -> None:
    site.adopt(block(FOUR))
    site.blocks.explain("blue", "ipamd refused it")
    woken = site.woken

    with pytest.raises(NotServed, match="this node has no block of pool blue: ipamd refused it"):
        site.give(1, "blue")
    assert site.blocks.demanded == {"blue"}
    assert site.woken == woken + 1


def test_a_demand_ends_unless_an_add_repeats_it(site: Site) -> None:
    site.adopt(block(FOUR), block(MORE, pool="green", default=False))
    for pool in ("blue", "red"):
        with pytest.raises(NotServed):
            site.give(1, pool)
    site.now += DEMAND_S / 2
    with pytest.raises(NotServed):
        site.give(1, "red")
    site.give(2, "green")
    site.now += DEMAND_S / 2
    site.give(3, "green")  # from a source that is known already

    assert site.blocks.demanded == {"red", "green"}
    site.now += DEMAND_S / 2
    assert site.blocks.demanded == {"green"}


def test_exhaustion_names_block_pool_and_what_is_done_about_it(site: Site) -> None:
    site.adopt(block(SIX), block(FOUR, pool="q"))
    error = NoFreeAddress("no free address in fd00::/126: all 3 are held")

    plain = site.blocks.exhaustion((), error)
    site.blocks.explain("", "ipamd refused another block: no free block")
    site.blocks.explain("blue", "unrelated")

    assert str(plain) == f"{error} (blocks of pool p): another block is being asked for"
    assert str(site.blocks.exhaustion((), error)) == (
        f"{error} (blocks of pool p): ipamd refused another block: no free block"
    )
    assert site.blocks.exhausted == 2


def test_a_new_boot_waits_for_ipamd_unless_the_cluster_never_fences(site: Site) -> None:
    site.adopt(block(FOUR))
    site.leases.close()
    site.store.closed = False
    site.begin("boot-2")

    with pytest.raises(NotServed, match="was started anew, and waits for ipamd"):
        site.give(1)
    assert site.blocks.problems() == [
        "no ADD is served from blocks: this node was started anew, and waits for ipamd"
    ]
    site.adopt(block(FOUR), unconfirmed_boots=True)
    assert site.give(1) == ["10.1.0.1"]


def test_a_block_is_used_once_it_is_durable_and_lost_at_once(site: Site) -> None:
    site.adopt(block(FOUR))
    site.store.full = True

    with pytest.raises(StoreUnavailable):
        site.adopt(block(FOUR), block(MORE))
    before = site.blocks.holdings.blocks
    lost = replace(OWN, blocks=(block(FOUR, OwnState.LOST),))
    failed = site.blocks.adopt(lost, at_once=True)

    assert before == (block(FOUR),)
    assert site.blocks.holdings == lost
    assert not site.blocks.is_durable
    with pytest.raises(StoreUnavailable):
        failed.result()


def test_pods_of_a_lost_block_are_named(site: Site) -> None:
    site.adopt(block(FOUR), block(MORE))
    site.give(1)
    site.adopt(block(FOUR, OwnState.LOST), block(MORE))
    site.give(2)

    assert site.blocks.lost() == (block(FOUR, OwnState.LOST),)
    assert [one.who for one, _ in site.blocks.cut_off()] == [who(1)]
    assert site.blocks.problems() == [
        f"{who(1)} has an address in 10.1.0.0/29, which is no longer this node's: "
        "its traffic is dropped"
    ]


def test_a_named_pod_has_its_former_address_again(site: Site) -> None:
    site.adopt(block(FOUR), block(SIX))
    first = site.give(1, pod="db-0")
    other = site.give(2, pod="db-1")
    site.leases.release(who(1)).result()
    site.leases.release(who(2)).result()

    assert site.give(3, pod="db-1") == other
    assert site.give(4, pod="db-0") == first


def test_a_former_address_that_is_anothers_or_of_no_block_is_not_waited_for(site: Site) -> None:
    site.adopt(block(FOUR))
    first = site.give(1, pod="db-0")
    again = site.give(2, pod="db-0")
    site.leases.release(who(2)).result()
    site.adopt(block(MORE))

    assert (first, again) == (["10.1.0.1"], ["10.1.0.2"])
    assert site.give(3, pod="db-0") == ["10.1.0.9"]


def test_former_addresses_are_written_behind_and_survive(site: Site) -> None:
    site.adopt(block(FOUR))
    given = {number: site.give(number, pod=f"db-{number}") for number in range(3)}
    saved = site.blocks.save()
    assert saved is not None
    saved.result()
    for number in range(3):
        site.leases.release(who(number)).result()
    site.leases.close()
    site.store.closed = False
    site.begin()

    assert site.give(9, pod="db-2") == given[2]
    assert site.blocks.save() is not None
    assert site.blocks.save() is None


def test_the_table_is_kept_and_written_behind(site: Site) -> None:
    other = replace(ROW, cidr=MORE)
    site.blocks.streamed(Update(revision=1, whole=True, rows=(ROW, other)))
    site.blocks.streamed(Update(revision=2, rows=(replace(ROW, node="m"),), gone=(MORE,)))
    saved = site.blocks.save()
    assert saved is not None
    saved.result()
    site.leases.close()
    site.store.closed = False
    site.begin()

    assert site.blocks.table == {ROW.cidr: replace(ROW, node="m")}
    site.blocks.streamed(Update(revision=3, whole=True))
    assert site.blocks.table == {}


def test_what_whole_tables_lack_is_remembered_until_they_are_trusted(site: Site) -> None:
    site.blocks.streamed(Update(revision=1, whole=True, rows=(ROW,)))
    site.blocks.streamed(Update(revision=2, whole=True))
    lost = site.blocks.remembered
    site.blocks.trust_table()

    assert (lost, site.blocks.remembered) == ((ROW,), ())


def test_the_pools_are_kept_with_the_table(site: Site) -> None:
    pool = PoolRow(name="p", cidr=ip_network("10.0.0.0/16"), masquerade=False)
    site.blocks.streamed(Update(revision=1, whole=True, with_pools=True, pools=(pool,)))
    site.blocks.streamed(Update(revision=2))
    saved = site.blocks.save()
    assert saved is not None
    saved.result()
    site.leases.close()
    site.store.closed = False
    site.begin()

    assert site.blocks.pools == (pool,)
    assert site.blocks.save() is None


def test_whoever_follows_is_told_of_the_table_and_of_our_own_blocks(site: Site) -> None:
    seen: list[tuple[int, int]] = []
    site.blocks.follow(
        lambda: seen.append((len(site.blocks.table), len(site.blocks.holdings.blocks)))
    )
    site.blocks.streamed(Update(revision=1, rows=(ROW,)))
    site.adopt(block(FOUR))

    assert seen == [(1, 0), (1, 1)]


def test_what_changed_waits_for_the_mirror_in_order(site: Site) -> None:
    site.adopt(block(FOUR))
    for number in range(3):
        site.now = float(number)
        site.give(number)
    site.now = 10.0
    lag = site.blocks.lag_s()
    taken = site.blocks.take_dirty(2)
    site.give(0)
    site.blocks.put_back(taken)

    assert lag == 10.0
    assert taken == {who(0): 0.0, who(1): 1.0}
    assert site.blocks.waiting == 3
    assert site.blocks.take_dirty(9) == {who(0): 0.0, who(1): 1.0, who(2): 2.0}
    assert site.blocks.lag_s() == 0.0


@pytest.mark.parametrize("lose", [lambda found: Snapshot(), lambda found: found])
def test_a_store_written_anew_has_all_of_it(
    site: Site, lose: Callable[[Snapshot], Snapshot]
) -> None:
    site.adopt(block(FOUR))
    site.give(1, pod="db-0")
    site.blocks.streamed(Update(revision=1, whole=True, rows=(ROW,)))
    saved = site.blocks.save()
    assert saved is not None
    saved.result()
    whole = site.store.load()
    fresh = FragileStore()
    if lose(whole) is whole:
        fresh = site.store
    site.leases.rewrite(lambda: fresh).result()

    assert replace(fresh.load(), history=()) == replace(whole, history=())


def test_an_attachment_of_no_pod_is_not_remembered(site: Site) -> None:
    site.adopt(block(FOUR))
    site.give(1)

    assert site.blocks.pod_of(Record(who=who(1), boot_id="", started_ns=0, sandbox="",
                                     netns_cookie=0, spec="pod:x")) == "x"  # fmt: skip
    assert site.blocks.save() is None
    assert site.blocks.wanted((), pod="").preferred == ()
    assert ip_address("10.1.0.1") in {
        one.ip for found in site.leases.records() for one in found.addresses
    }


def test_a_block_that_was_given_back_and_is_granted_anew_is_given_from(site: Site) -> None:
    site.adopt(block(FOUR))
    barred = site.leases.bar(FOUR)
    site.adopt(block(FOUR, OwnState.RETURNING))
    site.adopt(block(FOUR, revision=9))

    assert barred
    assert site.give(1) == ["10.1.0.1"]


def test_addresses_of_another_plugin_in_a_pool_and_in_no_block_of_ours_are_told(
    site: Site,
) -> None:
    pool = PoolRow(name="p", cidr=ip_network("10.1.0.0/16"), masquerade=False)
    site.blocks.streamed(Update(revision=1, whole=True, with_pools=True, pools=(pool,)))
    site.adopt(block(FOUR))
    site.blocks.is_former = lambda one: one.who == who(2)
    for number, address in ((1, "10.1.9.9/32"), (2, "10.1.0.2/32"), (2, "10.1.9.7/32")):
        site.leases.hold(record(who(number), address)).result()

    (problem,) = site.blocks.problems()
    assert problem.startswith(f"10.1.9.7 is in use here ({who(2)}), in a pool, and in no block")
