"""What becomes of ipamd when etcd is not what it was: see the table in docs/ipamd.md."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from ipam.kv import KVUnavailable, OutOfSpace
from ipam.refusals import Frozen, NotReady, Refused
from ipam.rpc import ipamd_pb2 as pb
from tests.kernel.agents import until
from tests.kernel.etcd import V36, Etcd, running
from tests.kernel.ipamds import Site, site

pytestmark = pytest.mark.kernel

POOL = ("four", "10.9.0.0/16")


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    with running(tmp_path / "etcd", programs=V36) as cluster:
        yield cluster


@pytest.fixture
def place(tmp_path: Path, etcd: Etcd) -> Iterator[Site]:
    with site(tmp_path, etcd, 1, "etcd_timeout_s = 0.5") as made:
        made.begin(POOL)
        yield made


async def ask(place: Site, node: str, method: str, request: object) -> object:
    return await place.ask(place.signer.node(node), method, request)


def register(place: Site, node: str, **fields: object) -> pb.RegisterReply:
    asked = pb.RegisterRequest(node=node, uid=f"uid-{node}", boot_id="boot", instance="one")
    for name, value in fields.items():
        setattr(asked, name, value)
    reply = asyncio.run(ask(place, node, "Register", asked))
    assert isinstance(reply, pb.RegisterReply)
    return reply


def claim(place: Site, node: str, nonce: str = "x") -> str:
    asked = pb.ClaimRequest(node=node, uid=f"uid-{node}", epoch=1, nonce=nonce, families=[4])
    reply = asyncio.run(ask(place, node, "Claim", asked))
    assert isinstance(reply, pb.ClaimReply)
    return str(reply.blocks[0].cidr)


def is_frozen(place: Site) -> bool:
    try:
        return bool(register(place, "watcher").frozen)
    except (KVUnavailable, Refused):
        return False


def claims_again(place: Site, node: str) -> str:
    found: list[str] = []

    def claims() -> bool:
        try:
            found.append(claim(place, node, nonce="again"))
        except (KVUnavailable, NotReady, OutOfSpace):
            return False
        return True

    until(claims, f"{node} gets a block")
    return found[0]


@pytest.mark.parametrize("bump", [0, 1_000_000], ids=["revision goes back", "revision is raised"])
def test_restored_snapshot_freezes_claims_until_an_operator_confirms(
    place: Site, etcd: Etcd, bump: int
) -> None:
    register(place, "a")
    register(place, "b")
    claim(place, "a")
    snapshot = etcd.snapshot()
    claim(place, "b")

    etcd.restore(snapshot, bump=bump)
    until(lambda: is_frozen(place), "claims are frozen")

    with pytest.raises(Frozen, match="went back"):
        claim(place, "a", nonce="other")
    assert "frozen" in place.isthmus("ipam", "check").stdout
    place.must("ipam", "init", "--recover")
    assert claims_again(place, "a")


def test_wiped_store_freezes_claims_until_an_operator_confirms(place: Site, etcd: Etcd) -> None:
    before = register(place, "a").generation
    claim(place, "a")

    etcd.wipe()
    etcd.start()
    until(lambda: is_frozen(place), "claims are frozen")

    refused = place.isthmus("ipam", "init")
    assert refused.returncode == 1
    assert f"generation {before} is remembered" in refused.stderr
    place.must("ipam", "init", "--recover")
    place.must("ipam", "pools", "create", *POOL)
    assert ip_network(claims_again(place, "watcher")).prefixlen == 26


def test_another_cluster_at_the_same_endpoint_freezes_claims(place: Site, etcd: Etcd) -> None:
    register(place, "a")
    claim(place, "a")
    snapshot = etcd.snapshot()

    etcd.token = "another"
    etcd.restore(snapshot, bump=1_000_000)
    until(lambda: is_frozen(place), "claims are frozen")

    with pytest.raises(Frozen, match="this is etcd cluster"):
        claim(place, "a", nonce="other")


def test_one_endpoint_of_another_cluster_is_left_alone(tmp_path: Path, etcd: Etcd) -> None:
    with running(tmp_path / "other") as other, site(tmp_path, etcd, 1) as place:
        place.begin(POOL)
        (replica,) = place.replicas
        register(place, "a")
        replica.stop()
        place.replicas[0] = replica = replace(
            replica, etcd=(*other.urls, *etcd.urls, *etcd.urls), process=None
        )
        replica.start()
        until(replica.is_synced, "it follows its own store")

        assert claim(place, "a")
        assert other.ctl("get", "--prefix", "/isthmus", "--keys-only").stdout == ""


def test_full_database_refuses_claims_by_its_name_and_goes_on_when_there_is_room(
    tmp_path: Path,
) -> None:
    with (
        running(tmp_path / "etcd", quota_bytes=4 << 20, programs=V36) as etcd,
        site(tmp_path, etcd, 1) as place,
    ):
        place.begin(POOL)
        register(place, "a")
        fill(etcd)

        with pytest.raises(OutOfSpace, match="database is full"):
            claim(place, "a")
        assert place.must("ipam", "nodes", "--json")
        revision = json.loads(etcd.ctl("endpoint", "status", "-w", "json").stdout)
        etcd.ctl("compact", str(revision[0]["Status"]["header"]["revision"]))
        etcd.ctl("defrag")
        etcd.ctl("alarm", "disarm")
        assert claims_again(place, "a")


def fill(etcd: Etcd) -> None:
    """Put what is not ours, until there is no room."""
    for _ in range(200):
        if etcd.ctl("put", "/elsewhere", "x" * 100_000, check=False).returncode:
            return
    raise AssertionError("there is room for ever")
