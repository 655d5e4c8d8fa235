"""What the agent made in the kernel, taken away: links, tables, settings (docs/ownership.md).

Works on the network namespace of the calling thread.  Everything is recognised by marks of our
own; what does not carry one stays.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import closing, suppress
from functools import partial
from itertools import product
from pathlib import Path

from agent.barrier import TABLE as LOST
from cni.attachment import bridge
from cni.link_config import HOST_PREFIX
from cni.spec import BridgeSpec, Spec
from cni.tables import TABLE
from dataplane import firewall_opening
from dataplane.errors import DataplaneError
from dataplane.fabric import Fabric
from dataplane.fabric_model import Programmed
from dataplane.links import Links
from dataplane.netlink import Netlink
from dataplane.nft.runner import NftRunner
from dataplane.programs import run
from dataplane.rtnl import DELETE_GROUP, Link
from dataplane.sysctl import FileLedger, Sysctls
from masquerade.names import TABLE as MASQUERADE
from proxy.tables import TABLE as SERVICES
from routing.reconciler import clear

_TABLES = (
    *product(("inet", "bridge"), (TABLE, LOST)),
    ("inet", MASQUERADE),
    *product(("ip", "ip6"), (SERVICES,)),
)
_ALIAS = "isthmus/"


def remove_leftovers(ledger: Path, *, seed: str) -> tuple[list[str], list[str]]:
    """Remove all that is ours; returns what was removed, and what could not be and why.

    *seed* is the one from which our bridges have their MACs.
    """
    removed: list[str] = []
    faults: list[str] = []
    with Netlink() as host:
        for what, remove in _steps(Links(lambda: host), seed):
            try:
                remove()
                removed.append(what)
            except DataplaneError as exc:
                faults.append(f"{what}: {exc}")
    recorded = FileLedger(ledger)
    if former := recorded.recorded():
        faults += Sysctls().restore(former)
        removed.append(f"changes of {', '.join(sorted(former))}")
        recorded.forget()
    return removed, faults


def is_own_veth(link: Link) -> bool:
    """A host side that is complete, or one that was being deleted: both marks are ours alone."""
    return link.name.startswith(HOST_PREFIX) and (
        link.alias.startswith(_ALIAS) or link.group == DELETE_GROUP
    )


def is_own_bridge(link: Link, everything: Collection[Link], *, seed: str) -> bool:
    """A bridge that has the MAC we would give it, and no port any more."""
    return not any(other.master == link.index for other in everything) and _has_our_mac(link, seed)


def is_used_bridge(link: Link, everything: Collection[Link], *, seed: str) -> bool:
    """A bridge that we made, or that has a port of ours: not one that somebody else left."""
    return _has_our_mac(link, seed) or any(
        other.master == link.index and is_own_veth(other) for other in everything
    )


def _has_our_mac(link: Link, seed: str) -> bool:
    made = bridge(Spec(bridge=BridgeSpec(name=link.name)), seed=seed)
    return link.kind == "bridge" and made is not None and made.mac == link.mac


def _steps(links: Links, seed: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is there to be removed; bridges are looked at when their ports are gone."""
    for link in filter(is_own_veth, links.all()):
        yield f"link {link.name}", partial(links.detach, link.name)
    everything = links.all()
    for link in everything:
        if is_own_bridge(link, everything, seed=seed):
            yield f"bridge {link.name}", partial(links.detach, link.name)
    yield from _routes()
    for family, table in _TABLES:
        if run(["nft", "list", "table", family, table]).status == 0:
            delete = partial(NftRunner().load, f"delete table {family} {table}\n")
            yield f"table {family} {table}", delete
    with suppress(DataplaneError):  # chains that cannot be read have none of ours
        if firewall_opening.is_open_for(HOST_PREFIX):
            yield "rules in others' chains", partial(firewall_opening.close_for, HOST_PREFIX)


def _routes() -> Iterator[tuple[str, Callable[[], None]]]:
    """Routes to other nodes, and the tunnels they lead through."""
    with closing(Fabric()) as fabric:
        around, programmed = fabric.observe(())
        tunnels = [link.name for link in around.tunnels if link.ours]
        if tunnels or programmed != Programmed():
            yield " ".join(["routes to other nodes", *tunnels]), partial(clear, fabric)
