"""Put the parts together: the one place that knows which real thing is behind which seam."""

import fcntl
import logging
import os
import secrets
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agent.boot import boot_id, machine_id, now_ns
from agent.config import AgentConfig
from agent.reconciler import Reconciler
from agent.search import Search
from cni.host_local import HostLocal
from cni.node import Node
from cni.publisher import Publisher
from cni.spec import link_name, pod_key
from cni.spec import of as spec_of
from cni.spool import Spool
from cni.tables import MAC_GUARD, NAT
from dataplane.conntrack import Conntrack
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
from ipam.sqlite import SQLiteStore, open_store, start_over
from ipam.store import UnusableStore

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)

_LOCK_PAUSE_S = 0.02

NFT_S = 12.0
"""For one run of nft: an ADD that waits for it has twenty."""


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
        store = _store(config, search, was_here)
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
            host_local=HostLocal(config.host_local) if config.host_local else None,
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


def _store(config: AgentConfig, search: Search, was_here: bool) -> SQLiteStore | UnusableStore:
    """Open the store; *was_here*: there was one, so that a file which is not there was lost.

    Where there was none, another plugin may have been.
    """
    path = config.database
    try:
        if not path.exists() and (was_here or config.host_local):
            search.owe(is_first=not was_here)
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
    runner = NftRunner(timeout=NFT_S)
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
    blocks.is_former = lambda record: spec_of(record).former
    leases.join(blocks)
    return blocks


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
