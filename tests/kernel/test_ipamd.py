"""ipamd as it is run: processes, TLS, a real etcd, signals."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from ipam.channel import Channels, IpamdAway
from ipam.kv import KVUnavailable
from ipam.refusals import NotReady
from ipam.rpc import ipamd_pb2 as pb
from ipam.tls import TLSFiles
from tests.certificates import Authority
from tests.kernel.agents import until
from tests.kernel.etcd import Etcd, running
from tests.kernel.ipamds import Site, site

pytestmark = pytest.mark.kernel

POOLS = (("four", "10.9.0.0/16"), ("six", "fd09::/112"))


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    with running(tmp_path / "etcd") as cluster:
        yield cluster


def register(node: str) -> pb.RegisterRequest:
    return pb.RegisterRequest(node=node, uid=f"uid-{node}", boot_id="boot", instance="one")


def claim(node: str, nonce: str = "x") -> pb.ClaimRequest:
    return pb.ClaimRequest(node=node, uid=f"uid-{node}", epoch=1, nonce=nonce, families=[4, 6])


async def join(place: Site, node: str, *endpoints: str) -> list[str]:
    """Register and claim as *node*; the blocks."""
    files = place.signer.node(node)
    await place.ask(files, "Register", register(node), *endpoints)
    granted = await place.ask(files, "Claim", claim(node), *endpoints)
    return [block.cidr for block in granted.blocks]


def test_two_replicas_at_once_give_no_block_twice(tmp_path: Path, etcd: Etcd) -> None:
    with site(tmp_path, etcd, 2) as place:
        place.begin(*POOLS)
        first, second = place.replicas

        async def everyone() -> list[list[str]]:
            joining = [
                join(place, f"n{number}", (first, second)[number % 2].endpoint)
                for number in range(24)
            ]
            return await asyncio.gather(*joining)

        granted = asyncio.run(everyone())
        blocks = [ip_network(cidr) for pair in granted for cidr in pair]
        elsewhere = ("--socket", f"{tmp_path}/none", "--store", f"{tmp_path}/none")
        until(lambda: second.page()["isthmus_ipamd_blocks"] == 48, "the second sees all")

        assert [len(pair) for pair in granted] == [2] * 24
        assert len(set(blocks)) == 48
        found = json.loads(place.isthmus("ipam", "check", "--json", *elsewhere).stdout)["findings"]
        # These nodes are certificates alone: nobody answers for them.
        assert {one["kind"] for one in found} <= {"silent", "forgotten"}
        assert first.page()["isthmus_ipamd_claims_total"] == 12
        assert first.page()['isthmus_ipamd_free_blocks{pool="four"}'] == 1024 - 24


def test_sigterm_lets_calls_end_and_sends_nodes_to_the_other(tmp_path: Path, etcd: Etcd) -> None:
    with site(tmp_path, etcd, 2) as place:
        place.begin(*POOLS)
        first = place.replicas[0]

        async def play() -> tuple[list[int], int]:
            channels = Channels(place.endpoints, place.signer.node("a"))
            await channels.call("Register", register("a"), within_s=10)
            seen: list[int] = []
            try:
                async with channels.stub() as stub:
                    async for update in stub.Watch(pb.WatchRequest()):
                        seen.append(update.revision)
                        first.tell(signal.SIGTERM)
            except NotReady:
                pass
            async with channels.stub() as stub:
                again = await stub.Watch(pb.WatchRequest()).read()
            granted = await channels.call("Claim", claim("a"), within_s=10)
            await channels.close()
            assert again is not None
            return seen, len(granted.blocks)

        seen, blocks = asyncio.run(asyncio.wait_for(play(), 30))
        status = first.wait()

        assert len(seen) == 1
        assert blocks == 2
        assert status == 0
        assert [record["msg"] for record in first.records()][-2:] == ["leaving", "stopped"]


def test_killed_and_started_again_it_goes_on(tmp_path: Path, etcd: Etcd) -> None:
    with site(tmp_path, etcd) as place:
        place.begin(*POOLS)
        (replica,) = place.replicas
        before = asyncio.run(join(place, "a"))
        replica.stop(signal.SIGKILL)
        replica.start()
        until(replica.is_synced, "it follows the store again")
        same = asyncio.run(join(place, "a"))
        other = asyncio.run(join(place, "b"))

        assert before == same
        assert not set(other) & set(before)


def test_without_etcd_it_says_so_and_serves_again_afterwards(tmp_path: Path, etcd: Etcd) -> None:
    with site(tmp_path, etcd, 1, "etcd_timeout_s = 0.5") as place:
        place.begin(*POOLS)
        asyncio.run(join(place, "a"))
        etcd.kill(0)
        with pytest.raises((KVUnavailable, NotReady)) as caught:
            asyncio.run(join(place, "b"))
        away = place.isthmus("ipam", "blocks")
        etcd.start()

        def joins() -> bool:
            try:
                return len(asyncio.run(join(place, "b"))) == 2
            except (KVUnavailable, NotReady):
                return False

        until(joins, "it serves again")

        assert str(caught.value)
        assert away.returncode == 3


def test_a_certificate_is_exchanged_while_it_runs(tmp_path: Path, etcd: Etcd) -> None:
    with site(tmp_path, etcd) as place:
        place.begin(*POOLS)
        (replica,) = place.replicas
        node = place.signer.node("a")

        async def play(successor: Authority) -> list[str]:
            before = Channels(place.endpoints, node)
            await before.call("Register", register("a"), within_s=10)
            _exchange(replica.tls, successor.issue("next", hosts=["127.0.0.1"]))
            # Connections that are there live on; a new one is judged by the new authority.
            await before.call("Register", register("a"), within_s=10)
            await before.close()
            with pytest.raises(IpamdAway):
                await place.ask(node, "Register", register("a"))
            reply = await place.ask(successor.node("a"), "Register", register("a"))
            return [reply.node_state]

        assert asyncio.run(play(Authority(tmp_path / "successor", "the next"))) == ["active"]


def _exchange(old: TLSFiles, new: TLSFiles) -> None:
    for name in ("certificate", "key", "ca"):
        fresh: Path = getattr(new, name)
        there: Path = getattr(old, name)
        (there.parent / "incoming").write_bytes(fresh.read_bytes())
        os.replace(there.parent / "incoming", there)


def test_hostile_callers_change_nothing_and_the_rest_is_served(tmp_path: Path, etcd: Etcd) -> None:
    with site(tmp_path, etcd) as place:
        place.begin(*POOLS)
        before = etcd.ctl("get", "--prefix", "/isthmus/", "--keys-only").stdout

        async def play() -> list[str]:
            failures = []
            foreign = Authority(tmp_path / "foreign", "foreign").admin()
            strangers: list[tuple[TLSFiles, str, Any]] = [
                (place.signer.issue("old", uris=["isthmus:node:a"], days=-1), "a", None),
                (TLSFiles(certificate=foreign.certificate, key=foreign.key, ca=place.signer.file),
                 "a", None),
                (place.signer.node("b"), "a", None),
                (place.signer.issue("nobody", common_name="nobody"), "a", None),
            ]  # fmt: skip
            for files, node, _ in strangers:
                try:
                    await place.ask(files, "Register", register(node))
                except Exception as exc:  # noqa: BLE001 - which one is what is looked at
                    failures.append(type(exc).__name__)
            return failures

        assert asyncio.run(play()) == ["IpamdAway", "IpamdAway", "NotAllowed", "Unidentified"]
        assert etcd.ctl("get", "--prefix", "/isthmus/", "--keys-only").stdout == before
        assert len(asyncio.run(join(place, "a"))) == 2


def test_etcd_is_reached_over_tls_with_a_certificate(tmp_path: Path) -> None:
    with running(tmp_path / "etcd", tls=True) as etcd:
        assert etcd.authority
        assert etcd.server
        lines = (
            f'etcd_ca = "{etcd.authority.file}"',
            f'etcd_certificate = "{etcd.server.certificate}"',
            f'etcd_key = "{etcd.server.key}"',
        )
        with site(tmp_path, etcd, 1, *lines) as place:
            place.begin(*POOLS)

            assert len(asyncio.run(join(place, "a"))) == 2


def test_what_it_cannot_start_with_ends_it_with_the_reason(tmp_path: Path, etcd: Etcd) -> None:
    with site(tmp_path, etcd) as place:
        (running_one,) = place.replicas
        twin = place.add()
        twin.port = running_one.port
        in_use = twin.run()
        broken = place.add()
        broken.tls.key.unlink()
        no_key = broken.run()
        wrong = place.add('colour = "blue"').run()
        double = place.add()
        double.directory = running_one.directory
        shared = double.run()

        assert (in_use.returncode, no_key.returncode, wrong.returncode) == (1, 1, 2)
        assert shared.returncode == 1
        assert f"{running_one.directory}/state is in use by another ipamd" in shared.stderr
        assert f"cannot listen at {running_one.endpoint}" in in_use.stderr
        assert "ipamd2.key: No such file" in no_key.stderr
        assert "unknown key 'colour'" in wrong.stderr
