"""One replica of ipamd, from its configuration to its leave."""

import asyncio
import logging
import random
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ipam.authority import Authority
from ipam.daemon_config import DaemonConfig
from ipam.daemon_metrics import Collector
from ipam.errors import IPAMError
from ipam.etcd import EtcdKV
from ipam.health import Health
from ipam.kubernetes import NodeWatch
from ipam.kv import KV
from ipam.memory import DaemonMemory, kept_from_others
from ipam.pages import serve
from ipam.server import Edge, bind, make_server, server_credentials
from ipam.services import ServiceWatch
from ipam.tls import TLSFiles
from kube.client import Client
from kube.events import Recorder

if TYPE_CHECKING:
    from ipam.own_identity import OwnIdentity

log = logging.getLogger(__name__)

_LOOK_S = 1.0
Tell = Callable[[str], None]


def main(config: DaemonConfig, tell: Tell) -> int:
    """Run until SIGTERM or SIGINT; returns the exit status: 0, or 1 for trouble.

    *tell* says to whoever started us how we are, as sd_notify(3) does.
    """
    try:
        asyncio.run(_run(config, tell))
    except (IPAMError, OSError) as exc:
        log.error("ipamd cannot run", extra={"error": str(exc)})
        return 1
    return 0


async def _run(config: DaemonConfig, tell: Tell) -> None:
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    with kept_from_others(config.state_dir):
        remembered = DaemonMemory(config.memory).load()
        kv = EtcdKV(config.etcd(), cluster_id=remembered.cluster_id if remembered else 0)
        try:
            await Daemon(config, kv, tell).run(stopping)
        finally:
            await kv.close()


class Daemon:
    """The edge, the authority behind it, and what is told of them."""

    def __init__(self, config: DaemonConfig, kv: KV, tell: Tell = lambda text: None) -> None:
        self._config = config
        self._tell = tell
        self._authority = Authority(
            kv,
            cluster=config.cluster,
            memory=DaemonMemory(config.memory),
            clock=time.monotonic,
            random=random.Random(),
        )
        self._edge = Edge(self._authority)
        self._own = _own_identity(config)
        self._client = _client(config)
        self.enroll_port = 0
        self._health = Health()
        self.port = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Serve until *stopping*, then drain.  Raises BadCredentials, CannotListen, OSError."""
        config = self._config
        credentials = server_credentials(self._files())
        server = make_server(self._edge, self._health, max_calls=config.max_calls)
        self.port = bind(server, config.listen, credentials)
        if config.metrics_address:
            serve(config.metrics_address, Collector(self._authority.counts), ready=self._unready)
        await server.start()
        enrolment = self._enrolment()
        try:
            if enrolment:
                await enrolment.start()
            async with asyncio.TaskGroup() as tasks:
                work = [tasks.create_task(each) for each in self._work()]
                self._tell(f"READY=1\nSTATUS=serving {config.listen}")
                log.info("serving", extra={"listen": config.listen, "port": self.port})
                await stopping.wait()
                await self._leave(server)
                for task in work:
                    task.cancel()
        finally:
            await server.stop(0)
            if enrolment:
                await enrolment.stop(0)
            if self._client:
                self._client.close()
        log.info("stopped")

    def _work(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What goes on while it serves."""
        yield self._authority.run()
        yield self._look()
        if self._own:
            yield self._own.run()
        if self._client:
            replica = self._authority.replica
            yield NodeWatch(
                self._client,
                self._authority,
                lambda: replica.view if replica.synced else None,
                random=random.Random(),
            ).run()
            recorder = Recorder(self._client, host=socket.gethostname(), clock=time.monotonic)
            yield recorder.run()
            yield ServiceWatch(
                self._client,
                self._authority.assigning,
                lambda: replica.view if replica.synced and not replica.frozen else None,
                tell=recorder.tell,
                random=random.Random(),
            ).run()

    def _files(self) -> TLSFiles:
        """What to serve with.  Raises BadCredentials."""
        if self._own is None:
            return self._config.tls
        self._own.renew()
        return self._own.files

    def _enrolment(self) -> Any:
        """The server of the port that needs no certificate; None where nobody can be enrolled."""
        config = self._config
        if self._own is None or self._client is None:
            return None
        from ipam import enrolment

        server = enrolment.make_server(
            enrolment.Enrolment(
                enrolment.Kubernetes(self._client, config.enroll_audience),
                self._own.signer,
                enrolment.Terms(
                    account=config.enroll_account, life=timedelta(days=config.certificate_days)
                ),
            )
        )
        credentials = server_credentials(self._own.files, of_both=False)
        self.enroll_port = bind(server, config.enroll_listen, credentials)
        return server

    def _unready(self) -> str:
        return "" if self._authority.replica.synced else "the store is not followed"

    async def _leave(self, server: Any) -> None:
        """Send nodes to another replica, and let calls in work end."""
        self._tell("STOPPING=1")
        log.info("leaving", extra={"at_most_s": self._config.drain_s})
        await self._health.set(serving=False)
        self._edge.leave()
        await server.stop(self._config.drain_s)

    async def _look(self) -> None:
        """Say healthy while this replica follows the store, and not until then."""
        said = False
        while True:
            synced = self._authority.replica.synced
            if synced != said:
                log.info("following the store" if synced else "the store is lost")
                await self._health.set(serving=synced)
                said = synced
            await asyncio.sleep(_LOOK_S)


def _own_identity(config: DaemonConfig) -> "OwnIdentity | None":
    if config.ca_key is None:
        return None
    from ipam.own_identity import OwnIdentity

    return OwnIdentity(
        config.state_dir,
        ca=config.ca,
        ca_key=config.ca_key,
        hosts=config.hosts,
        clock=time.monotonic,
    )


def _client(config: DaemonConfig) -> Client | None:
    return Client(config.kubernetes.access(), agent="isthmus-ipamd") if config.kubernetes else None
