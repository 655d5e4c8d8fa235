"""What agents and operators ask of ipamd, and what it answers, as values.  Pure.

The wire form is ipamd.proto; field comments there hold here too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from ipam.cluster import BlockState, NodeState, Pool
from net.address import IPAddress, IPNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One block of a node.

    *revision* is when its key was made: it tells this grant of the block from every other.
    No address in *reserved* is for pods.  In an agent's mouth DRAINING means that it is giving
    the block back.
    """

    cidr: IPNetwork
    pool: str
    epoch: int
    revision: int
    state: BlockState = BlockState.ACTIVE
    reserved: tuple[IPNetwork, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """Packets to *cidr* go to one of *addresses*, those of the node that has it."""

    cidr: IPNetwork
    node: str
    epoch: int
    addresses: tuple[IPAddress, ...]
    state: BlockState


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRow:
    """Addresses of the cluster's pods; *masquerade* what they send out of it, out of all pools."""

    name: str
    cidr: IPNetwork
    masquerade: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What changed in the table up to *revision*; *whole*: the rows are all there are.

    *with_pools*: the pools are all there are; without it they did not change.  *audit* asks
    for an Audit of that name.
    """

    revision: int
    whole: bool = False
    rows: tuple[TableRow, ...] = ()
    gone: tuple[IPNetwork, ...] = ()
    with_pools: bool = False
    pools: tuple[PoolRow, ...] = ()
    audit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """*epoch* 0 and *generation* "": the node's own store has none yet.

    *instance* is of this run of the agent, *boot_id* of the kernel, *uid* of the node's store.
    """

    node: str
    uid: str
    boot_id: str
    instance: str
    epoch: int = 0
    generation: str = ""
    counter: int = 0
    addresses: tuple[IPAddress, ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    blocks: tuple[Held, ...] = ()
    table: tuple[TableRow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """*lost* are blocks that the agent thought its own; *frozen* says why claims wait, or "".

    Only an answer that is not frozen confirms a new boot: the store may have forgotten a fence.
    """

    epoch: int
    generation: str
    counter: int
    node_state: NodeState
    blocks: tuple[Held, ...] = ()
    lost: tuple[IPNetwork, ...] = ()
    unconfirmed_boots: bool = False
    frozen: str = ""
    pools: tuple[Pool, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One block for each of *families*, all or none; *pool* "" is by selector and order.

    A repeated *nonce* is answered with what it got the first time.
    """

    node: str
    uid: str
    epoch: int
    nonce: str
    families: tuple[int, ...] = (4, 6)
    pool: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    blocks: tuple[Held, ...]
    counter: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """*blocks* are empty, and these grants of them are not used again from before this is sent.

    That holds whatever comes back: a copy of this call may still be under way.
    """

    node: str
    uid: str
    epoch: int
    generation: str
    blocks: tuple[Held, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """This run of the agent ends: the machine may be started anew at once."""

    node: str
    uid: str
    instance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MirroredLease:
    """*pod* is namespace/name, or ""."""

    network: str
    container_id: str
    ifname: str
    addresses: tuple[IPAddress, ...] = ()
    pod: str = ""
    gone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Changes up to *sequence*, which only grows; *whole*: these leases are all there are."""

    node: str
    uid: str
    epoch: int
    sequence: int
    whole: bool = False
    leases: tuple[MirroredLease, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What is in a node's own store: blocks but for lost ones, leases with addresses of blocks.

    *problems* are what the node itself finds wrong.
    """

    node: str
    uid: str
    epoch: int
    audit: str
    blocks: tuple[Held, ...] = ()
    leases: tuple[MirroredLease, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Init:
    """*if_new*: no error if it was done before; *recover*: what is in the store is right."""

    if_new: bool = False
    recover: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Initialized:
    generation: str
    made: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """*by* says who and when, for the record."""

    node: str
    fenced: bool = False
    wiped: bool = False
    undo: bool = False
    force: bool = False
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """*node* is to have block *cidr*; *pool* is one that is yet to be made, "" the one there is."""

    node: str
    cidr: IPNetwork
    pool: str = ""
    undo: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    state: NodeState
    blocks: tuple[IPNetwork, ...]


class FindingKind(StrEnum):
    DUPLICATE = "duplicate"
    LEAK = "leak"
    ORPHAN = "orphan"
    OVERLAP = "overlap"
    LAG = "lag"
    FOREIGN = "foreign"
    FORGOTTEN = "forgotten"
    FROZEN = "frozen"
    SILENT = "silent"
    TROUBLE = "trouble"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """*mend* is the guarded call that --fix would make, at *mod_revision*; "": a person has to."""

    kind: FindingKind
    subject: str
    text: str
    mend: str = ""
    mod_revision: int = 0
