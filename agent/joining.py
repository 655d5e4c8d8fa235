"""Put together what a node has beside its own: Kubernetes, ipamd, routes, Services.

Apart from `agent.wiring`, since none of it is there where none is configured, nor loaded.
"""

import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from agent.boot import own_addresses
from agent.config import IpamdConfig
from agent.live import Live
from agent.wiring import NFT_S, Wired
from cni.link_config import HOST_PREFIX
from cni.spec import of as spec_of
from cni.spec import pod_name
from dataplane.conntrack import Conntrack
from dataplane.errors import DataplaneError
from dataplane.fabric import Fabric
from dataplane.nft.elements import Elements
from dataplane.nft.runner import NftRunner
from dataplane.nft.table import NftTable
from dataplane.sysctl import FileLedger, Sysctls
from ipam.holdings import OwnState
from masquerade.names import SKELETON
from masquerade.reconciler import Reconciler as Masquerader
from net.address import IPAddress
from routing.reconciler import Reconciler as Router
from routing.reconciler import clear as remove_routes

if TYPE_CHECKING:
    from agent.announcing import Announcing
    from agent.cluster import Cluster
    from agent.enrolment import Enrolment
    from agent.kubernetes import Kubernetes
    from agent.mesh import Mesh
    from agent.services import Services
    from ipam.tls import TLSFiles
    from proxy.model import NodeView
    from proxy.reconciler import Reconciler as ServiceReconciler

_EXCHANGE_S = 60.0  # for a table of many thousand elements; what is there works meanwhile

log = logging.getLogger(__name__)


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
            families=lambda: wired.blocks.families if wired.blocks else (),
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

    runner = NftRunner(timeout=NFT_S)
    barrier = Barrier(
        {
            each.family: NftTable(each, runner, wired.undo.enter_context(Elements()))
            for each in (ROUTED, BRIDGED)
        }
    )
    files = _files(wired)
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
    table = NftTable(SKELETON, NftRunner(timeout=NFT_S), wired.undo.enter_context(Elements()))
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
    from dataplane import firewall_opening, kube_proxy
    from kube.client import Client
    from proxy.reconciler import Reconciler as ServiceReconciler

    if config.set_conntrack:
        set_conntrack(Sysctls(FileLedger(wired.config.sysctl_ledger)))
    elements = {version: wired.undo.enter_context(Elements()) for version in (4, 6)}
    tables = _service_tables(elements)
    open_firewall: Callable[[], list[str]] = list
    if config.open_firewall:
        open_firewall = partial(firewall_opening.open_for, HOST_PREFIX)
    else:
        _close_firewall(elements[4])
    looking = wired.undo.enter_context(Elements())
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
        conntrack=conntrack,
        others=lambda: kube_proxy.look(looking),
        open_firewall=open_firewall,
        ports=[each.port for each in elements.values()],
        clock=time.monotonic,
        random=Random(),
        interval_s=wired.config.reconcile_interval_s,
    )
    services = Services(config, Client(server.access(), agent="isthmus-agent"), seams)
    if blocks:
        blocks.follow(services.wake)
    return services


def announce(
    wired: Wired, services: "Services | None", kubernetes: "Kubernetes | None"
) -> "Announcing | None":
    """Make the node's part in answering for addresses of Services, where it is configured."""
    config, ipamd, blocks = wired.config.announce, wired.config.ipamd, wired.blocks
    if config is None or ipamd is None or blocks is None:
        return None
    if services is None or kubernetes is None:
        return None
    from agent.announcing import Announcing, Seams, unfit
    from agent.bids import Bids

    bids = Bids(ipamd.node)
    services.follow(bids.told)
    seams = Seams(
        name=ipamd.node,
        peers=lambda: {row.node: row.addresses for row in blocks.table.values() if row.addresses},
        own=_own_addresses(ipamd, kubernetes),
        unfit=lambda: unfit(
            services.unhealthy(),
            is_leaving=services.is_leaving(),
            labels=kubernetes.node.labels,
        ),
        files=_files(wired),
        clock=time.monotonic,
    )
    return Announcing(config, bids, seams)


def _files(wired: Wired) -> "TLSFiles":
    """As whom this node talks to others."""
    from ipam.tls import TLSFiles

    config, own = wired.config.ipamd, wired.config.identity
    assert config
    return TLSFiles(certificate=config.certificate or own, key=config.key or own, ca=config.ca)


def _service_tables(elements: Mapping[int, Elements]) -> dict[int, NftTable]:
    from proxy.tables import skeleton

    runner = NftRunner(timeout=_EXCHANGE_S)
    return {
        version: NftTable(skeleton(version), runner, each) for version, each in elements.items()
    }


def _close_firewall(elements: Elements) -> None:
    """Take what a former agent put into chains of others; no trouble with these is to stop us."""
    from dataplane import firewall_opening
    from proxy.tables import MAPS, TABLE

    try:
        # Where none translated Services, none opened chains: nothing is run.
        if elements.rules(MAPS[4].ways.family, TABLE) and firewall_opening.close_for(HOST_PREFIX):
            log.info("rules of ours are gone from others' chains")
    except DataplaneError as exc:
        log.warning("others' chains are not looked at", extra={"error": str(exc)})


def leave_services() -> None:
    """Take away the tables of an agent that translated Services, if any.

    Raises DataplaneError.
    """
    with Elements() as elements:
        _close_firewall(elements)
        for table in _service_tables({4: elements, 6: elements}).values():
            table.remove()


def leave_clusters() -> None:
    """Take away what an agent with an ipamd made of the cluster's network, if any.

    Raises DataplaneError.
    """
    with closing(Fabric()) as fabric, Elements() as elements:
        remove_routes(fabric)
        NftTable(SKELETON, NftRunner(timeout=NFT_S), elements).remove()
