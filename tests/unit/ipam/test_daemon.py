"""One replica over a store in memory: ready, healthy, asked, and gone."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from ipam.channel import Channels
from ipam.daemon import Daemon
from ipam.daemon_config import DaemonConfig
from ipam.enrolling import enroll
from ipam.memory_kv import MemoryCluster, MemoryKV
from ipam.refusals import NotReady
from ipam.rpc import ipamd_pb2 as pb
from ipam.server import CannotListen
from ipam.signing import make_authority, make_request, now
from ipam.tls import SERVER, BadCredentials, TLSFiles
from kube.config import ServerConfig
from tests.certificates import Authority
from tests.kube_api import NODES, FakeAPI, until

VOUCHED = {
    "audiences": ["isthmus-ipamd"],
    "user": {
        "username": "system:serviceaccount:isthmus:isthmus-agent",
        "extra": {
            "authentication.kubernetes.io/node-name": ["a"],
            "authentication.kubernetes.io/node-uid": ["u-1"],
        },
    },
}
SERVING = b"\x08\x01"


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipam.daemon._LOOK_S", 0.02)


@dataclass
class Replica:
    """A daemon that runs, and what it told whoever started it."""

    config: DaemonConfig
    signer: Authority
    daemon: Daemon
    stopping: asyncio.Event
    told: list[str] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.daemon.port}"

    async def healthy(self) -> None:
        """Return once its health service says that it serves."""
        pem = self.signer.admin().read()
        credentials = grpc.ssl_channel_credentials(pem.ca, pem.key, pem.certificate)
        async with aio.secure_channel(self.endpoint, credentials) as channel:
            watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
            async with asyncio.timeout(10):
                while await watch.read() != SERVING:
                    pass
            watch.cancel()


def config_in(directory: Path, signer: Authority, **more: Any) -> DaemonConfig:
    files = signer.server()
    return DaemonConfig(
        listen="127.0.0.1:0",
        state_dir=directory,
        certificate=files.certificate,
        key=files.key,
        ca=files.ca,
        **more,
    )


def run(directory: Path, play: Callable[[Replica], Awaitable[None]]) -> Replica:
    async def whole() -> Replica:
        signer = Authority(directory)
        config = config_in(directory, signer, drain_s=5)
        ready, stopping, told = asyncio.Event(), asyncio.Event(), []

        def tell(text: str) -> None:
            told.append(text)
            ready.set()

        daemon = Daemon(config, MemoryKV(MemoryCluster()), tell)
        replica = Replica(config, signer, daemon, stopping, told)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(daemon.run(stopping))
            await ready.wait()
            try:
                await play(replica)
            finally:
                stopping.set()
        return replica

    return asyncio.run(whole())


def test_it_says_when_it_serves_and_when_it_goes(tmp_path: Path) -> None:
    async def play(replica: Replica) -> None:
        await replica.healthy()

    replica = run(tmp_path, play)

    assert replica.told == ["READY=1\nSTATUS=serving 127.0.0.1:0", "STOPPING=1"]


def test_the_store_is_asked_through_it(tmp_path: Path) -> None:
    async def play(replica: Replica) -> None:
        await replica.healthy()
        channels = Channels([replica.endpoint], replica.signer.admin())
        made = await channels.call("Init", pb.InitRequest(), within_s=10)
        pool = pb.PoolSpec(name="p", cidr="10.0.0.0/16", block_length=26)
        await channels.call("PutPool", pb.PutPoolRequest(pool=pool, create=True), within_s=10)
        shown = await channels.call("Show", pb.ShowRequest(what="pools"), within_s=10)
        await channels.close()

        assert made.made
        assert '"free": 1024' in shown.json

    run(tmp_path, play)

    assert (tmp_path / "memory.json").exists()


def test_told_to_stop_it_ends_streams_and_goes(tmp_path: Path) -> None:
    async def play(replica: Replica) -> None:
        await replica.healthy()
        admin = Channels([replica.endpoint], replica.signer.admin())
        await admin.call("Init", pb.InitRequest(), within_s=10)
        await admin.close()
        channels = Channels([replica.endpoint], replica.signer.node("a"))
        request = pb.RegisterRequest(node="a", uid="u", boot_id="b", instance="i")
        await channels.call("Register", request, within_s=10)

        async def watch() -> None:
            async with channels.stub() as stub:
                async for _ in stub.Watch(pb.WatchRequest()):
                    replica.stopping.set()

        with pytest.raises(NotReady, match="going away"):
            await watch()
        await channels.close()

    run(tmp_path, play)


def test_what_it_cannot_start_with_is_told(tmp_path: Path) -> None:
    async def start(config: DaemonConfig) -> None:
        await Daemon(config, MemoryKV(MemoryCluster())).run(asyncio.Event())

    config = config_in(tmp_path, Authority(tmp_path))
    elsewhere = DaemonConfig(
        listen="192.0.2.1:9", certificate=config.certificate, key=config.key, ca=config.ca
    )

    with pytest.raises(CannotListen, match=r"cannot listen at 192\.0\.2\.1:9"):
        asyncio.run(start(elsewhere))
    config.key.unlink()
    with pytest.raises(BadCredentials, match=r"server\.key: No such file"):
        asyncio.run(start(config))


def test_a_pod_enrolls_asks_as_its_node_and_drains_when_that_is_deleted(tmp_path: Path) -> None:
    async def play() -> None:
        (tmp_path / "state").mkdir()
        made = make_authority(now())
        (tmp_path / "ca.pem").write_bytes(made.certificate)
        (tmp_path / "ca.key").write_bytes(made.key)
        (tmp_path / "token").write_text("good")
        stopping, ready = asyncio.Event(), asyncio.Event()
        async with FakeAPI(reviews={"good": VOUCHED}) as api, asyncio.TaskGroup() as tasks:
            api.put(NODES, {"metadata": {"name": "a", "uid": "u-1"}})
            config = DaemonConfig(
                listen="127.0.0.1:0",
                enroll_listen="127.0.0.1:0",
                state_dir=tmp_path / "state",
                ca=tmp_path / "ca.pem",
                ca_key=tmp_path / "ca.key",
                kubernetes=ServerConfig(address=api.url, token=tmp_path / "token"),
            )
            daemon = Daemon(config, MemoryKV(MemoryCluster()), lambda _: ready.set())
            tasks.create_task(daemon.run(stopping))
            await ready.wait()

            request = make_request()
            got = await enroll(
                [f"127.0.0.1:{daemon.enroll_port}"],
                request.certificate,
                token=tmp_path / "token",
                ca=config.ca,
                server_name=SERVER,
            )
            (tmp_path / "node.pem").write_bytes(got.certificate + request.key)
            node = TLSFiles(
                certificate=tmp_path / "node.pem", key=tmp_path / "node.pem", ca=config.ca
            )
            admin = TLSFiles(
                certificate=tmp_path / "state" / "admin.pem",
                key=tmp_path / "state" / "admin.key",
                ca=tmp_path / "state" / "ca.pem",
            )
            endpoint = f"127.0.0.1:{daemon.port}"
            asked = Channels([endpoint], node, server_name=SERVER)
            asking = Channels([endpoint], admin, server_name=SERVER)

            async def shown() -> str:
                rows = await asking.call("Show", pb.ShowRequest(what="nodes"), within_s=10)
                return str(rows.json)

            await until(lambda: daemon._authority.replica.synced)
            await asking.call("Init", pb.InitRequest(), within_s=10)
            labels = {"isthmus.dev/node-uid": "u-1"}
            register = pb.RegisterRequest(
                node="a", uid="s", boot_id="b", instance="i", labels=labels
            )
            await asked.call("Register", register, within_s=10)
            api.delete(NODES, "a")
            await until(lambda: daemon._authority.replica.view.nodes["a"].state == "draining")

            assert '"drained_by": "Kubernetes: Node u-1 deleted' in await shown()
            await asked.close()
            await asking.close()
            stopping.set()

    asyncio.run(play())
