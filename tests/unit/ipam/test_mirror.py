from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from ipam import mirror
from ipam.calls import Drain, Mirror, MirroredLease
from ipam.keys import MirrorHead
from ipam.kv import Delete
from ipam.memory_kv import Faults, MemoryKV
from ipam.refusals import Exhausted, Forbidden, Stale, Unknown
from tests.unit.ipam.ipamd_cases import KEYS, Site, node, site

LEASES = tuple(
    MirroredLease(
        network="net",
        container_id=f"c{number}",
        ifname="eth0",
        addresses=(ip_address("10.0.0.0") + number,),
        pod=f"ns/pod-{number}",
    )
    for number in range(250)
)
CALL = Mirror(node="a", uid="uid-a", epoch=1, sequence=1, leases=LEASES[:2])


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        made.begin()
        made.register(node("a"))
        yield made


def stored(cluster: Site) -> set[str]:
    prefix = KEYS.leases("a")
    return {key.split("/")[-2] for key in cluster.store.entries if key.startswith(prefix)}


def test_changes_are_stored_and_gone_ones_deleted(cluster: Site) -> None:
    first = cluster.do(lambda a: a.mirror(CALL))
    gone = replace(CALL, sequence=2, leases=(replace(LEASES[0], gone=True), LEASES[5]))
    second = cluster.do(lambda a: a.mirror(gone), 1)

    assert (first, second) == (1, 2)
    assert stored(cluster) == {"c1", "c5"}


def test_late_call_changes_nothing_and_says_how_far_the_mirror_is(cluster: Site) -> None:
    cluster.do(lambda a: a.mirror(replace(CALL, sequence=5)))

    late = cluster.do(lambda a: a.mirror(replace(CALL, sequence=4, leases=LEASES[9:12])))

    assert late == 5
    assert stored(cluster) == {"c0", "c1"}


def test_whole_mirror_in_several_transactions_leaves_nothing_else(cluster: Site) -> None:
    cluster.do(lambda a: a.mirror(CALL))

    whole = replace(CALL, sequence=2, whole=True, leases=LEASES[1:])
    done = cluster.do(lambda a: a.mirror(whole))

    assert done == 2
    assert stored(cluster) == {f"c{number}" for number in range(1, 250)}


def test_no_node_tells_of_more_than_its_blocks_can_have(
    cluster: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "SPARE", 100)
    cluster.claim("a")  # of 64 addresses each
    cluster.do(lambda a: a.mirror(replace(CALL, leases=LEASES[:228])))
    gone = tuple(replace(one, gone=True) for one in LEASES[:2])
    cluster.do(lambda a: a.mirror(replace(CALL, sequence=2, leases=gone)))
    cluster.do(lambda a: a.mirror(replace(CALL, sequence=3, leases=LEASES[228:230])))

    for leases, whole in ((LEASES[230:231], False), (LEASES, True)):
        asked = replace(CALL, sequence=4, whole=whole, leases=leases)
        with pytest.raises(Exhausted, match=r"node a tells of \d+ leases; .* it may have 228"):
            cluster.do(lambda a, asked=asked: a.mirror(asked))  # type: ignore[misc]
    assert len(stored(cluster)) == 228
    assert cluster.do(lambda a: a.mirror(replace(CALL, sequence=4, whole=True))) == 4
    assert cluster.do(lambda a: a.mirror(replace(CALL, sequence=5, leases=LEASES[9:200]))) == 5


@pytest.mark.parametrize("lost", [(True,), (False,), (True, True), (False, True, False)])
def test_lost_answers_are_settled_by_the_head(cluster: Site, lost: tuple[bool, ...]) -> None:
    kv = cluster.replicas[0].replica.kv
    assert isinstance(kv, MemoryKV)
    kv.faults = Faults(lost=lost)

    done = cluster.do(lambda a: a.mirror(replace(CALL, leases=LEASES)))

    assert done == 1
    assert len(stored(cluster)) == 250
    head = KEYS.read(cluster.store.entries[KEYS.mirror("a")])
    assert isinstance(head, MirrorHead)
    assert head == MirrorHead("uid-a", 1, 1, head.leases)
    assert head.leases >= 250


def test_mirror_of_a_node_that_is_not_registered_so_is_refused(cluster: Site) -> None:
    for wrong in ({"node": "b"}, {"uid": "other"}, {"epoch": 2}):
        with pytest.raises(Stale):
            cluster.do(lambda a, w=wrong: a.mirror(replace(CALL, **w)))  # type: ignore[misc]


def test_new_store_of_a_node_begins_its_sequence_anew(cluster: Site) -> None:
    cluster.do(lambda a: a.mirror(replace(CALL, sequence=50)))
    cluster.now += 20
    epoch = cluster.register(node("a", uid="uid-new")).epoch

    done = cluster.do(lambda a: a.mirror(replace(CALL, uid="uid-new", epoch=epoch, whole=True)))

    assert (epoch, done) == (2, 1)


def test_what_a_fenced_node_told_is_forgotten_in_parts(cluster: Site) -> None:
    cluster.do(lambda a: a.mirror(replace(CALL, leases=LEASES)))
    cluster.do(lambda a: a.drain(Drain(node="a", fenced=True, force=True)))
    alive = KEYS.alive("a")
    cluster.run(MemoryKV(cluster.store).commit([], [Delete(alive)]))
    cluster.follow()
    at = cluster.store.entries[KEYS.mirror("a")].mod_revision
    with pytest.raises(Stale, match="told something since"):
        cluster.do(lambda a: a.release_mirror("a", mod_revision=at - 1))
    cluster.do(lambda a: a.release_mirror("a", mod_revision=at))
    with pytest.raises(Unknown, match="forgotten already"):
        cluster.do(lambda a: a.release_mirror("a", mod_revision=at))

    assert stored(cluster) == set()
    assert KEYS.mirror("a") not in cluster.store.entries


def test_what_a_node_told_that_is_not_fenced_is_its_own(cluster: Site) -> None:
    cluster.do(lambda a: a.mirror(CALL))
    at = cluster.store.entries[KEYS.mirror("a")].mod_revision
    with pytest.raises(Forbidden, match="is not fenced: what it told is its own"):
        cluster.do(lambda a: a.release_mirror("a", mod_revision=at))

    assert stored(cluster) == {"c0", "c1"}
