"""Put the parts together: the one place that knows which real thing is behind which seam."""

import fcntl
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from agent.boot import boot_id, machine_id, now_ns, own_addresses
from agent.config import AgentConfig, IpamdConfig
from agent.live import Live
from agent.reconciler import Reconciler
from agent.search import Search
from cni.node import Node
from cni.publisher import Publisher
from cni.spec import link_name, pod_key, pod_name
from cni.spec import of as spec_of
from cni.spool import Spool
from cni.tables import MAC_GUARD, NAT
from dataplane.conntrack import Conntrack
from dataplane.fabric import Fabric
from dataplane.host import Host
from dataplane.links import Links
from dataplane.netns import own_identity
from dataplane.nft.elements import Elements
from dataplane.nft.objects import Family
from dataplane.nft.runner import NftRunner
from dataplane.nft.table import NftTable
from dataplane.sysctl import FileLedger, Sysctls
from ipam.allocator import Allocator
from ipam.blocks import Blocks
from ipam.errors import StoreDamaged, StoreUnavailable
from ipam.holdings import OwnState
from ipam.sqlite import SQLiteStore, open_store, start_over
from ipam.store import UnusableStore
from masquerade.names import SKELETON
from masquerade.reconciler import Reconciler as Masquerader
from net.address import IPAddress
from routing.reconciler import Reconciler as Router
from routing.reconciler import clear as remove_routes

if TYPE_CHECKING:
    from agent.cluster import Cluster
    from agent.enrolment import Enrolment
    from agent.kubernetes import Kubernetes
    from agent.mesh import Mesh
    from agent.services import Services
    from proxy.model import NodeView
    from proxy.reconciler import Reconciler as ServiceReconciler

log = logging.getLogger(__name__)

_LOCK_PAUSE_S = 0.02

_NFT_S = 12.0  # an ADD that waits for it has twenty


class StateLocked(Exception):
    """Another agent, or a standalone program, works on the same state directory."""


@dataclass(slots=True)
class Wired:
    """A node ready to reconcile and then to serve; `close` gives everything back."""

    config: AgentConfig
    node: Node
    leases: Allocator
    links: Links
    host: Host
    reconciler: Reconciler
    undo: ExitStack = field(default_factory=ExitStack)
    left_alone: bool = False
    blocks: Blocks | None = None

    def close(self) -> None:
        self.undo.close()

    def mend_store(self) -> None:
        """Give the allocator a new file where there is none any more, or a damaged one.

        All that is held is in memory, where it was read from the links if need be.  A file
        that is there but could not be opened may hold more than that: it is left alone.
        """
        if not self.leases.degraded:
            return
        path = self.config.database
        if path.exists() and not self.leases.damaged:
            return  # full or read-only: it goes on by itself when the disk does
        search = self.reconciler.search
        forgot = self.left_alone or search.owed
        try:
            search.owe()  # until memory is in the new file, or else with what memory lacks
            self.leases.rewrite(lambda: start_over(path)).result()
            if not forgot:
                search.end()
        except (StoreUnavailable, OSError) as exc:
            log.error("no usable store, ADD is refused", extra={"error": str(exc)})
            return
        if forgot:
            self.reconciler.owe_search()
        self.leases.resume()
        self.left_alone = False
        log.warning("store written anew", extra={"path": str(path)})

    def can_begin_anew(self) -> bool:
        """Whether the store that could not be opened at the start, and was left alone, now can.

        What it holds is merged with nothing: a new life of this program begins with it.
        """
        if not self.left_alone:
            return False
        try:
            open_store(self.config.database).close()
        except StoreUnavailable:
            return False
        return True


def wire(config: AgentConfig, *, boot: str = "") -> Wired:
    """Lock the state directory and build the node over it; *boot* "" is the kernel's.

    Raises StateLocked, OSError for a directory that cannot be made, DataplaneError.  A store
    that cannot be used does not stop an agent: DEL and repairs go on, ADD is refused.
    """
    undo = ExitStack()
    with undo:
        config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        was_here = config.lock.exists()
        undo.callback(os.close, lock_state(config.lock))
        boot = boot or boot_id()
        search = Search(config.lost)
        store = _store(config.database, search, was_here)
        leases = Allocator(store, boot_id=boot, now=now_ns, cooldown_s=config.cooldown_s)
        undo.callback(leases.close)
        if isinstance(store, UnusableStore):
            leases.suspend(store.reason)
        blocks = _blocks(config, leases, store, boot)
        links = Links()
        host = Host(Sysctls(FileLedger(config.sysctl_ledger)), links.host)
        publisher = _publisher(undo)
        node = Node(
            leases=leases,
            links=links,
            publications=publisher,
            host=host,
            spool=_spool(config.spool_dir),
            namespace=own_identity(),
            boot_id=boot,
            now=now_ns,
            seed=machine_id(),
            ready=lambda: _not_ready(config, leases, blocks),
            blocks=blocks,
        )
        reconciler = Reconciler(node, leases, links, publisher.resync, config.grace_s, search)
        left_alone = isinstance(store, UnusableStore)
        return Wired(
            config, node, leases, links, host, reconciler, undo.pop_all(), left_alone, blocks
        )
    raise AssertionError("unreachable")


def wire_within(config: AgentConfig, wait_s: float) -> Wired:
    """`wire`, after waiting up to *wait_s* seconds for whoever has the lock.

    A standalone call holds it for a moment; another agent for life.  Raises what `wire` does.
    """
    until, pause = now_ns() + int(wait_s * 1e9), threading.Event()
    while True:
        try:
            return wire(config)
        except StateLocked:
            if now_ns() >= until:
                raise
            pause.wait(_LOCK_PAUSE_S)


def lock_state(path: Path) -> int:
    """Take the lock on the state directory; it is held as long as the descriptor is open.

    Raises StateLocked.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(fd)
        raise StateLocked(
            f"{path} is locked: another isthmus agent or standalone program is at work"
        ) from exc
    return fd


def _store(path: Path, search: Search, was_here: bool) -> SQLiteStore | UnusableStore:
    """Open the store; *was_here*: there was one, so that a file which is not there was lost."""
    try:
        if was_here and not path.exists():
            search.owe()
        return _open(path, search)
    except StoreUnavailable as exc:
        log.error("no usable store, ADD is refused", extra={"error": str(exc)})
        return UnusableStore(str(exc))


def _open(path: Path, search: Search) -> SQLiteStore:
    """Open the store; a file that is not ours or is damaged is kept aside, never overwritten."""
    try:
        return open_store(path)
    except StoreDamaged as exc:
        log.error(
            "store damaged: kept aside, and rebuilt from the links", extra={"error": str(exc)}
        )
        search.owe()
        return start_over(path)


def _spool(directory: Path) -> Spool:
    spool = Spool(directory)
    spool.tidy(time.time())
    return spool


def _publisher(undo: ExitStack) -> Publisher:
    runner = NftRunner(timeout=_NFT_S)
    nat, guard = undo.enter_context(Elements()), undo.enter_context(Elements())
    conntrack = undo.enter_context(Conntrack())
    tables = {
        Family.INET: NftTable(NAT, runner, nat),
        Family.BRIDGE: NftTable(MAC_GUARD, runner, guard),
    }
    return Publisher(tables, conntrack)


def _blocks(
    config: AgentConfig, leases: Allocator, store: SQLiteStore | UnusableStore, boot: str
) -> Blocks | None:
    """What the node has of the cluster's pools, where an ipamd is configured.

    Here already: without the agent's talk with ipamd a standalone program gives from it too.
    """
    if config.ipamd is None:
        return None
    blocks = Blocks(
        leases,
        store.load(),
        boot_id=boot,
        new_uid=lambda: secrets.token_hex(16),
        pod_of=lambda record: pod_key(record.who, spec_of(record).pod),
        clock=time.monotonic,
    )
    blocks.link_of = lambda record: link_name(spec_of(record))
    leases.join(blocks)
    return blocks


def introduce(wired: Wired, changed: Callable[[], None]) -> "Kubernetes | None":
    """Make the node's part in Kubernetes, where it is configured; verbs ask it from now on.

    *changed* is called when our Node is another than it was.
    """
    config = wired.config.kubernetes
    if config is None:
        return None
    from agent.kubernetes import Kubernetes, Surroundings
    from kube.client import Client

    kubernetes = Kubernetes(
        config,
        Client(config.access(), agent="isthmus-agent"),
        wired.config.kubernetes_said,
        Surroundings(
            unready=lambda: unable(wired),
            blocks=lambda: wired.blocks.holdings.blocks if wired.blocks else (),
            changed=changed,
            clock=time.monotonic,
            random=Random(),
        ),
    )
    wired.node = replace(wired.node, kubernetes=kubernetes.pods)
    return kubernetes


def unable(wired: Wired) -> str:
    """Why no pod should come: ADD cannot be served, or there is no address to give."""
    blocks = wired.blocks
    if (reason := wired.node.ready()) or blocks is None:
        return reason
    if any(block.state is OwnState.ACTIVE and block.default for block in blocks.holdings.blocks):
        return ""
    why = blocks.outlook().get("", "") or blocks.trouble
    return f"this node has no block of addresses{': ' if why else ''}{why}"


def enroll(
    wired: Wired, kubernetes: "Kubernetes | None", renewed: Callable[[], None]
) -> "Enrolment | None":
    """Make what gets this node's certificate, where that is by a token."""
    config = wired.config.ipamd
    if config is None or config.token is None:
        return None
    from agent.enrolment import Enrolment
    from ipam import enrolling

    def endpoints() -> Sequence[str]:
        if kubernetes and not config.endpoints:
            return kubernetes.enroll_endpoints()
        return [f"{one.rpartition(':')[0]}:{config.enroll_port}" for one in config.endpoints]

    token, ca, server_name = config.token, config.ca, config.server_name
    return Enrolment(
        wired.config.identity,
        config.node,
        lambda request: enrolling.enroll(
            endpoints(), request, token=token, ca=ca, server_name=server_name
        ),
        random=Random(),
        renewed=renewed,
    )


def _own_labels(
    config: IpamdConfig, kubernetes: "Kubernetes | None"
) -> Callable[[], Mapping[str, str]]:
    """By which pools choose this node: those of its Node, and those in the configuration."""

    def find() -> Mapping[str, str]:
        return {**kubernetes.labels(), **config.labels} if kubernetes else config.labels

    return find


def _own_addresses(
    config: IpamdConfig, kubernetes: "Kubernetes | None"
) -> Callable[[], tuple[IPAddress, ...]]:
    """By what other nodes reach this one: as configured, as its Node says, or as it looks."""

    def find() -> tuple[IPAddress, ...]:
        known = kubernetes.addresses() if kubernetes else ()
        return config.addresses or known or own_addresses(config.endpoints)

    return find


def join(wired: Wired, kubernetes: "Kubernetes | None" = None) -> "Cluster | None":
    """Make the talk with ipamd, where one is configured; to be run in an event loop."""
    config, blocks = wired.config.ipamd, wired.blocks
    if config is None or blocks is None:
        return None
    # Before gRPC is loaded: its C core would write beside our log.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Here, since it takes 20 MB and 0.1 s.
    from agent.barrier import BRIDGED, ROUTED, Barrier
    from agent.cluster import Cluster
    from agent.talk import Identity, Surroundings, Talk
    from ipam.client import Client
    from ipam.tls import TLSFiles

    runner = NftRunner(timeout=_NFT_S)
    barrier = Barrier(
        {
            each.family: NftTable(each, runner, wired.undo.enter_context(Elements()))
            for each in (ROUTED, BRIDGED)
        }
    )
    own = wired.config.identity
    files = TLSFiles(certificate=config.certificate or own, key=config.key or own, ca=config.ca)
    endpoints = config.endpoints or (kubernetes.endpoints if kubernetes else ())
    return Cluster(
        Talk(
            blocks=blocks,
            leases=wired.leases,
            ipamd=Client(endpoints, files, server_name=config.server_name),
            who=Identity(
                node=config.node,
                instance=secrets.token_hex(8),
                labels=_own_labels(config, kubernetes),
                addresses=_own_addresses(config, kubernetes),
            ),
            around=Surroundings(
                enforce=barrier.enforce,
                pod_of=lambda record: pod_name(spec_of(record).pod),
                clock=time.monotonic,
                random=Random(),
                kept=kubernetes.pod_cidrs if kubernetes else tuple,
            ),
        )
    )


def weave(
    wired: Wired, cluster: "Cluster | None", live: Live, kubernetes: "Kubernetes | None" = None
) -> "Mesh | None":
    """Make the node's part in the cluster's network, where an ipamd is configured.

    Routes that an agent with other settings made are gone then.  Raises DataplaneError.
    """
    config, blocks = wired.config, wired.blocks
    if config.ipamd is None or blocks is None or cluster is None:
        return None
    from agent.mesh import Mesh, Seams

    fabric = Fabric()
    wired.undo.callback(fabric.close)
    table = NftTable(SKELETON, NftRunner(timeout=_NFT_S), wired.undo.enter_context(Elements()))
    if config.routing is None:
        remove_routes(fabric)
    ipamd = config.ipamd
    router = None
    if config.routing:
        router = Router(
            config.routing,
            fabric,
            node=ipamd.node,
            own=_own_addresses(ipamd, kubernetes),
            clock=time.monotonic,
        )
    seams = Seams(
        in_sync=lambda: cluster.in_sync,
        doubt=lambda: cluster.doubt,
        settings=lambda: live.masquerade,
        complaint=lambda: live.complaint,
        limit_mtu=wired.host.limit_mtu,
        readdressed=cluster.renew,
        clock=time.monotonic,
        random=Random(),
        interval_s=config.reconcile_interval_s,
    )
    return Mesh(blocks, router, Masquerader(table), seams)


def translate_services(wired: Wired, kubernetes: "Kubernetes | None") -> "Services | None":
    """Make the node's part in Services, where it is configured."""
    config, server = wired.config.services, wired.config.kubernetes
    if config is None or server is None or kubernetes is None:
        return None
    from agent.conntrack_settings import set_conntrack
    from agent.services import Seams, Services
    from kube.client import Client
    from proxy.reconciler import Reconciler as ServiceReconciler

    if config.set_conntrack:
        set_conntrack(Sysctls(FileLedger(wired.config.sysctl_ledger)))
    tables = _service_tables(wired.undo)
    conntrack = wired.undo.enter_context(Conntrack())
    blocks = wired.blocks

    def make(view: "NodeView") -> "ServiceReconciler":
        return ServiceReconciler(tables, view, conntrack)

    seams = Seams(
        name=server.node,
        node=lambda: kubernetes.node,
        pools=lambda: tuple(pool.cidr for pool in blocks.pools) if blocks else (),
        make=make,
        leaving=kubernetes.is_leaving,
        clock=time.monotonic,
        random=Random(),
        interval_s=wired.config.reconcile_interval_s,
    )
    services = Services(config, Client(server.access(), agent="isthmus-agent"), seams)
    if blocks:
        blocks.follow(services.wake)
    return services


def _service_tables(undo: ExitStack) -> dict[int, NftTable]:
    from proxy.tables import skeleton

    runner = NftRunner(timeout=_NFT_S)
    return {
        version: NftTable(skeleton(version), runner, undo.enter_context(Elements()))
        for version in (4, 6)
    }


def leave_services() -> None:
    """Take away the tables of an agent that translated Services, if any.

    Raises DataplaneError.
    """
    with ExitStack() as undo:
        for table in _service_tables(undo).values():
            table.remove()


def leave_clusters() -> None:
    """Take away what an agent with an ipamd made of the cluster's network, if any.

    Raises DataplaneError.
    """
    with closing(Fabric()) as fabric, Elements() as elements:
        remove_routes(fabric)
        NftTable(SKELETON, NftRunner(timeout=_NFT_S), elements).remove()


def _not_ready(config: AgentConfig, leases: Allocator, blocks: Blocks | None) -> str:
    """Why an ADD cannot be served, from memory alone."""
    if reason := leases.degraded:
        return f"addresses cannot be made durable: {reason}"
    if blocks is not None and (reason := blocks.unserved):
        return reason
    if config.status_counts_addresses:
        full = [str(usage.ranges) for usage in leases.usage() if usage.held >= usage.size]
        if full:
            return f"no free address in {', '.join(full)}"
    return ""
