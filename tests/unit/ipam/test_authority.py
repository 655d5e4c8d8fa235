import logging
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from ipam.calls import Drain, Held, Init, Update
from ipam.memory import DaemonMemory
from ipam.memory_kv import MemoryKV
from ipam.refusals import (
    Forbidden,
    Frozen,
    Invalid,
    NotReady,
    SecondBoot,
)
from tests.unit.ipam.ipamd_cases import KEYS, Site, node, release, site


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        made.begin()
        yield made


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"epoch": 1 << 62}, "epoch 4611686018427387904"),
        ({"epoch": -1}, "epoch -1"),
        ({"counter": -1}, "counter -1"),
        ({"addresses": (ip_address("192.0.2.1"),) * 17}, "17 addresses listed; 16 at most"),
        ({"addresses": (ip_address("::"),)}, ":: is no node's"),
        ({"addresses": (ip_address("224.0.0.1"),)}, "224.0.0.1 is no node's"),
        ({"labels": {f"k{n}": "v" for n in range(257)}}, "257 labels listed; 256 at most"),
    ],
)
def test_node_cannot_register_with_what_would_burden_all_others(
    cluster: Site, fields: dict[str, object], fault: str
) -> None:
    with pytest.raises(Invalid, match=fault):
        cluster.register(node("a", **fields))

    assert KEYS.node("a") not in cluster.store.entries


def test_node_that_is_not_heard_of_is_counted_until_it_is_fenced(cluster: Site) -> None:
    authority = cluster.replicas[0]
    cluster.register(node("a"))
    cluster.do(lambda a: a.tick())
    assert authority.counts().oldest_unheard_s == 0.0
    for _ in range(4):
        cluster.now += 100
        cluster.do(lambda a: a.tick())

    assert authority.counts().oldest_unheard_s == 200.0
    cluster.do(lambda a: a.drain(Drain(node="a", fenced=True, by="me")))
    cluster.do(lambda a: a.tick())
    assert authority.counts().oldest_unheard_s == 0.0


def test_foreign_key_is_reported_left_alone_and_not_given(
    cluster: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ipam.auditing.WITHIN_S", 0.0)  # of the two nodes none answers
    monkeypatch.setattr("ipam.authority.AGAIN_S", 0.0)
    in_the_way = KEYS.block(ip_network("10.0.0.0/25"))
    cluster.run(put(cluster, in_the_way, b"by hand"))
    cluster.register(node("a"))
    cluster.register(node("b"))

    got = [cluster.claim(name).blocks[0].cidr for name in ("a", "b")]
    found = cluster.do(lambda a: a.check())

    assert sorted(map(str, got)) == ["10.0.0.128/26", "10.0.0.192/26"]
    assert [one.subject for one in found if one.kind == "foreign"] == [in_the_way]
    assert cluster.store.entries[in_the_way].value == b"by hand"


@pytest.mark.parametrize("what", ["record", "block"])
def test_what_somebody_edited_of_a_node_stays_and_its_node_keeps_what_it_has(
    cluster: Site, what: str
) -> None:
    generation = cluster.register(node("a")).generation
    held = cluster.claim("a").blocks
    key = KEYS.node("a") if what == "record" else KEYS.block(held[0].cidr)
    cluster.run(put(cluster, key, b"by hand"))

    again = node("a", epoch=1, generation=generation, blocks=held)
    told = cluster.register(again)
    cluster.do(lambda a: a.init(Init(recover=True)))
    after = cluster.register(again, at=1)

    assert (told.lost, after.lost) == ((), ())
    assert "edited" in told.frozen
    assert "edited" in after.frozen
    assert cluster.store.entries[key].value == b"by hand"


async def put(cluster: Site, key: str, value: bytes) -> None:
    from ipam.kv import Put

    await MemoryKV(cluster.store).commit([], [Put(key, value)])


def test_fenced_node_loses_what_was_freed_and_keeps_what_was_not(cluster: Site) -> None:
    cluster.register(node("a"))
    first = cluster.claim("a", "1").blocks
    cluster.now += 20
    cluster.do(lambda a: a.drain(Drain(node="a", fenced=True, by="alice")))
    early = cluster.register(node("a", epoch=1, blocks=first))
    cluster.now += 20
    cluster.do(lambda a: a.drain(Drain(node="a", fenced=True, by="alice")))
    cluster.rest()

    late = cluster.register(node("a", epoch=2, blocks=early.blocks))

    assert (early.epoch, early.lost, len(early.blocks)) == (2, (), 2)
    assert (late.epoch, late.blocks) == (3, ())
    assert late.lost == tuple(held.cidr for held in first)
    assert not late.frozen


def test_second_live_boot_of_a_node_is_refused_and_a_restart_is_not(cluster: Site) -> None:
    cluster.register(node("a"))

    cluster.register(node("a", instance="2", epoch=1))
    with pytest.raises(SecondBoot, match="a copied disk"):
        cluster.register(node("a", boot_id="other", epoch=1), at=1)
    cluster.now += 20

    assert cluster.register(node("a", boot_id="other", epoch=1), at=1).epoch == 1


def test_second_boot_is_told_in_the_log_once_and_counted_each_time(
    cluster: Site, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.register(node("a"))

    for _ in range(3):
        with pytest.raises(SecondBoot):
            cluster.register(node("a", uid="copy", boot_id="other"))

    assert caplog.text.count("refused: node a is alive with store") == 1
    assert cluster.replicas[0].counts().second_boots == 3


def test_another_store_under_the_same_name_waits_for_the_fence(cluster: Site) -> None:
    cluster.register(node("a"))
    cluster.claim("a")
    cluster.now += 20
    anew = node("a", uid="uid-new")

    with pytest.raises(Forbidden, match="isthmus ipam drain a --fenced"):
        cluster.register(anew)
    cluster.do(lambda a: a.drain(Drain(node="a", fenced=True)))

    assert cluster.register(anew).epoch == 3


def test_register_checks_what_it_is_told(cluster: Site) -> None:
    many = Held(cidr=ip_network("10.0.0.0/26"), pool="four", epoch=1, revision=1)
    for wrong in ({"uid": ""}, {"epoch": -1}, {"blocks": (many,) * 200}, {"node": "a/b"}):
        with pytest.raises(Invalid):
            cluster.register(replace(node("a"), **wrong))


def test_rolled_back_store_freezes_claims_until_recovery(cluster: Site) -> None:
    cluster.register(node("a"))
    old = cluster.store.snapshot()
    held = cluster.claim("a").blocks
    cluster.follow()

    cluster.store.restore(old, bump=1000)
    for authority in cluster.replicas:
        cluster.run(authority.replica.resync())
    with pytest.raises(Frozen, match="claim counter went back"):
        cluster.claim("a", "2")
    told = cluster.register(node("a", epoch=1, blocks=held))
    cluster.do(lambda a: a.init(Init(recover=True)))
    after = cluster.register(node("a", epoch=1, blocks=held))

    assert told.frozen
    assert [b.cidr for b in after.blocks] == [b.cidr for b in held]
    assert not after.frozen
    assert len(cluster.claim("a", "3").blocks) == 2


def test_node_that_misses_its_own_record_freezes_claims_everywhere(cluster: Site) -> None:
    cluster.register(node("a"))
    mine = Held(cidr=ip_network("10.0.0.64/26"), pool="four", epoch=1, revision=3)

    told = cluster.register(node("a", epoch=1, blocks=(mine,)))

    assert "node a misses its block 10.0.0.64/26" in told.frozen
    assert [block.cidr for block in told.blocks] == [mine.cidr]
    with pytest.raises(Frozen):
        cluster.claim("a", at=1)


def test_that_claims_froze_is_an_error_in_the_log_once_whoever_finds_it_too(
    cluster: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name in ("a", "b"):
        cluster.register(node(name))
    for name in ("a", "b"):
        cluster.register(node(name, epoch=1, generation="another"))

    assert [
        (record.levelname, record.getMessage().split(":")[1].split()[1])
        for record in caplog.records
        if "claims are frozen" in record.message
    ] == [("ERROR", "a"), ("INFO", "b")]


def test_wiped_store_is_noticed_and_plain_init_refused(cluster: Site) -> None:
    generation = cluster.register(node("a")).generation
    held = cluster.claim("a").blocks
    cluster.store.wipe(cluster_id=2)
    for authority in cluster.replicas:
        cluster.run(authority.replica.resync())

    told = cluster.register(node("a", epoch=1, blocks=held, generation=generation))
    cluster.follow()
    with pytest.raises(Forbidden, match="--recover"):
        cluster.do(lambda a: a.init(Init(if_new=True)))
    asserted = set(cluster.replicas[0].replica.view.blocks)
    cluster.do(lambda a: a.init(Init(recover=True)))
    back = cluster.register(node("a", epoch=1, blocks=held, generation=generation))

    assert asserted == {block.cidr for block in held}
    assert "the store's generation is none" in told.frozen
    assert [block.cidr for block in back.blocks] == [block.cidr for block in held]
    assert not back.frozen
    assert back.generation != generation


def test_replica_without_memory_grants_once_all_nodes_have_spoken(cluster: Site) -> None:
    cluster.register(node("a"))
    cluster.register(node("b"))
    fresh = cluster.replica("new")
    cluster.replicas[0] = fresh

    cluster.register(node("a", epoch=1))
    with pytest.raises(Frozen, match="remembers nothing"):
        cluster.claim("a")
    cluster.register(node("b", epoch=1))

    assert len(cluster.claim("a").blocks) == 2


def test_replica_without_memory_trusts_one_that_grants(cluster: Site) -> None:
    cluster.register(node("a"), at=1)
    cluster.replicas[0] = cluster.replica("new")
    cluster.follow()

    cluster.claim("a", "1", at=1)

    assert len(cluster.claim("a", "2").blocks) == 2


def test_unsynced_replica_says_that_it_is_not_ready(tmp_path: Path) -> None:
    with site(tmp_path) as made, pytest.raises(NotReady):
        made.run(made.replicas[0].register(node("a")))


def test_watch_gives_the_table_then_what_changes(cluster: Site) -> None:
    cluster.register(node("a", addresses=(ip_address("192.0.2.1"),)))
    cluster.claim("a")
    authority = cluster.replicas[0]
    cluster.follow()
    authority.replica.feed.flush()

    async def two_updates() -> list[object]:
        stream = authority.watch("a")
        whole = await anext(stream)
        await authority.release(release(authority, "a", *whole_blocks))
        authority.replica.feed.flush()
        update = await anext(stream)
        await stream.aclose()
        return [whole, update]

    whole_blocks = [cluster.replicas[0].replica.view.held(b) for b in blocks_of(cluster)]
    whole, update = cluster.run(two_updates())

    assert whole.whole  # type: ignore[attr-defined]
    assert {a for row in whole.rows for a in row.addresses} == {ip_address("192.0.2.1")}  # type: ignore[attr-defined]
    assert {row.addresses for row in update.rows} == {()}  # type: ignore[attr-defined]


def test_a_stream_ends_when_claims_freeze_before_it_brings_what_is_left(cluster: Site) -> None:
    cluster.register(node("a"))
    cluster.claim("a")
    cluster.follow()
    authority = cluster.replicas[0]

    async def brought() -> list[Update]:
        async with aclosing(authority.watch("a")) as stream:
            first = await anext(stream)
            cluster.store.wipe(cluster_id=2)
            await authority.replica.resync()
            return [first, *[update async for update in stream]]

    (whole,) = cluster.run(brought())

    assert len(whole.rows) == 2


def blocks_of(cluster: Site) -> list[object]:
    return list(cluster.replicas[0].replica.view.blocks.values())


def test_counts_say_what_is_free(cluster: Site) -> None:
    cluster.register(node("a"))
    cluster.claim("a")

    counts = cluster.replicas[0].counts()

    assert (counts.claims, counts.nodes, counts.blocks) == (1, 1, 2)
    assert counts.free == {"four": 3, "six": 3}


def test_a_state_dir_that_is_gone_is_found_and_counted_until_it_is_back(cluster: Site) -> None:
    path = cluster.folder / "gone" / "memory"
    cluster.replicas[0].replica._memory = DaemonMemory(path)

    found = cluster.do(lambda a: a.check())
    counted = cluster.replicas[0].counts().forgetful
    path.parent.mkdir()
    mended = cluster.do(lambda a: a.check())

    assert [one.subject for one in found if str(path) in one.text] == ["ipamd"]
    assert counted
    assert not any(one.subject == "ipamd" for one in mended)
    assert not cluster.replicas[0].counts().forgetful
