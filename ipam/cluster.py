"""Who holds which block or address of which pool: the records of cluster IPAM, as values.  Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from net.address import IPAddress, IPNetwork

SCHEMA = 1

NODE_UID = "isthmus.dev/node-uid"
"""The label by which an agent says which Node of Kubernetes its machine is."""
KUBERNETES = "Kubernetes"
"""Who drains and fences by Kubernetes' word."""


class PoolState(StrEnum):
    """ACTIVE gives blocks; DISABLED gives none; DRAINING gives none and wants its own back."""

    ACTIVE = "active"
    DISABLED = "disabled"
    DRAINING = "draining"


class Purpose(StrEnum):
    """Whose addresses a pool has: pods', block by block, or Services', one by one."""

    PODS = "pods"
    LOAD_BALANCERS = "load-balancers"


class NodeState(StrEnum):
    """DRAINING: gets no blocks, and gives back what is empty.  FENCED: off, or cut off."""

    ACTIVE = "active"
    DRAINING = "draining"
    FENCED = "fenced"


class BlockState(StrEnum):
    """In this order, each by one guarded transaction; after QUARANTINED the key is deleted."""

    ACTIVE = "active"
    DRAINING = "draining"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Addresses cut into aligned blocks of *block_length*; given to nodes whose labels match.

    Of several pools for one node and family the lowest *order* is asked first.  *masquerade*:
    what its pods send out of the cluster goes out with the address of their node.
    For load balancers a block is one address, and the labels are a Service's.
    """

    name: str
    cidr: IPNetwork
    block_length: int
    selector: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    reservations: tuple[IPNetwork, ...] = ()
    state: PoolState = PoolState.ACTIVE
    order: int = 0
    masquerade: bool = True
    purpose: Purpose = Purpose.PODS


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Of the whole cluster.

    *blocks_per_node*: of each family, at most.
    *node_deletion_fences*: a deleted Node object means that the machine is gone.
    *unconfirmed_boots*: agents may serve after a boot before ipamd confirmed their epoch.
    *silence_s*: how long a node is not heard of before its blocks start draining; 0 never.
    *quarantine_s*: how long a quarantined block rests, by the replica's own clock.
    *cloud_controller*: another gives addresses to Services of type LoadBalancer without a class.
    """

    blocks_per_node: int = 32
    node_deletion_fences: bool = False
    unconfirmed_boots: bool = False
    silence_s: float = 0.0
    quarantine_s: float = 60.0
    cloud_controller: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    pools: tuple[Pool, ...] = ()
    settings: Settings = Settings()

    def pools_for(self, purpose: Purpose) -> tuple[Pool, ...]:
        return tuple(pool for pool in self.pools if pool.purpose is purpose)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """*uid* is made once with the node's own store; *epoch* goes up each time it was fenced.

    *fenced_by*, *drained_by*: who and when.
    *wiped*: whoever fenced it says that its store is gone.  *unconfirmed*: it was told once
    that it may serve after a boot that nobody confirmed, and may not have heard otherwise.
    """

    name: str
    uid: str
    epoch: int
    boot_id: str
    addresses: tuple[IPAddress, ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    state: NodeState = NodeState.ACTIVE
    fenced_by: str = ""
    drained_by: str = ""
    wiped: bool = False
    unconfirmed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block and its owner; *nonce* tells a claim whose answer was lost that it was ours."""

    cidr: IPNetwork
    pool: str
    node: str
    uid: str
    epoch: int
    nonce: str
    state: BlockState = BlockState.ACTIVE

    @property
    def is_pinned(self) -> bool:
        """Whether it waits for its node, which never had it: that takes it when it registers."""
        return not self.uid and not self.epoch


@dataclass(frozen=True, slots=True)
class Holder:
    """A Service that has an address (namespace/name), and what it answers there ("TCP/80")."""

    service: str
    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRecord:
    """One address for load balancers, and the Services that share it; *sharing* "": one alone."""

    address: IPAddress
    pool: str
    sharing: str
    holders: tuple[Holder, ...]


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """The addresses of one Service (namespace/name)."""

    service: str
    addresses: tuple[IPAddress, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """*generation* is made by `isthmus ipam init`, and a new one by each recovery."""

    generation: str
    previous: tuple[str, ...] = ()
    schema: int = SCHEMA
