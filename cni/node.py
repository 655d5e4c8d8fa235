"""What the verbs work on: one value, made by the agent or by the standalone program."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cni.args import Pod
from cni.departed import Departed
from cni.errors import CNIError, ErrorCode
from cni.host_local import HostLocal
from cni.locks import KeyLocks
from cni.nat import Published
from cni.spool import Spool
from cni.wishes import Wishes
from dataplane import netns, rtnl
from dataplane.links import PodSide
from dataplane.model import Bandwidth, Bridge, Sandbox
from dataplane.netns import Identity
from dataplane.netns import Sandbox as OpenSandbox
from ipam.calls import PoolRow
from ipam.errors import NoFreeAddress
from ipam.leases import Attachment, Leases, Wanted
from net.address import IPAddress, IPInterface, IPNetwork


class Links(Protocol):
    """Links of the host, see dataplane.links.Links."""

    def attach(self, wanted: Sandbox, pod: OpenSandbox) -> None: ...
    def complete(self, wanted: Sandbox, pod: OpenSandbox) -> None: ...
    def detach(self, host_name: str) -> None: ...
    def announce(self, wanted: Sandbox, pod: OpenSandbox, addresses: list[IPAddress]) -> None: ...
    def ensure_bridge(self, wanted: Bridge) -> rtnl.Link: ...
    def find(self, name: str) -> rtnl.Link | None: ...
    def addresses(self, index: int) -> list[IPInterface]: ...
    def every_address(self) -> frozenset[IPAddress]: ...
    def host_routes(self, index: int = 0) -> dict[IPNetwork, int]: ...
    def observe_pod(self, pod: OpenSandbox, ifname: str) -> PodSide | None: ...


class Publications(Protocol):
    """What nftables holds for attachments, see cni.publisher.Publisher."""

    def publish(self, published: Published) -> None: ...
    def withdraw(self, who: Attachment) -> None: ...
    def missing(self, published: Published) -> list[str]: ...


class Host(Protocol):
    """The rest of the kernel that one attachment touches, see dataplane.host.Host."""

    def uplink_mtu(self) -> int: ...
    def enable_forwarding(self, families: frozenset[int]) -> None: ...
    def allow_localhost_mappings(self, interface: str, *, lasting: bool) -> None: ...
    def forget_flows(self, address: IPAddress) -> None: ...
    def shape(self, host_name: str, bandwidth: Bandwidth) -> None: ...
    def unshape(self, host_name: str) -> None: ...
    def sweep_limits(self, alive: Callable[[], Collection[str]]) -> list[str]: ...
    def shaped(self, host_name: str, bandwidth: Bandwidth) -> bool: ...


class Blocks(Protocol):
    """This node's blocks of the cluster's pools, see ipam.blocks.Blocks."""

    def wanted(
        self,
        pools: tuple[str, ...],
        *,
        bridge: str,
        network: str,
        pod: str = "",
        requested: tuple[IPAddress, ...] = (),
    ) -> Wanted: ...
    def exhaustion(self, pools: tuple[str, ...], error: NoFreeAddress) -> NoFreeAddress: ...
    def cut_off(self) -> Sequence[object]: ...
    @property
    def pools(self) -> tuple[PoolRow, ...]: ...


class Pods(Protocol):
    """What Kubernetes knows of this node's pods, see agent.pods.Pods.

    Waits for *within_s* at most.  CNIError 11 where nobody can say what the pod asks for.
    """

    def wishes(self, pod: Pod, *, within_s: float) -> Wishes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Everything a verb may use.

    *namespace* is the host's own; *now* is CLOCK_BOOTTIME in nanoseconds; *seed* is this
    machine's, for MACs that two hosts must not share; *ready* says why ADD cannot be served,
    or nothing; *open_sandbox* opens a namespace by its path, and by descriptor where there is one;
    *kubernetes* None: no API server is; *blocks* None: no ipamd is configured; *host_local* None:
    no other plugin gives addresses.
    """

    leases: Leases
    links: Links
    publications: Publications
    host: Host
    spool: Spool
    namespace: Identity
    boot_id: str
    now: Callable[[], int]
    seed: str = ""
    ready: Callable[[], str] = lambda: ""
    open_sandbox: Callable[[str, int | None], OpenSandbox] = netns.open_sandbox
    blocks: Blocks | None = None
    kubernetes: Pods | None = None
    host_local: HostLocal | None = None
    locks: KeyLocks = field(default_factory=KeyLocks)
    departed: Departed = field(default_factory=Departed)

    @property
    def pools(self) -> tuple[IPNetwork, ...]:
        """All addresses of the cluster's pods, as far as this node knows."""
        return tuple(pool.cidr for pool in self.blocks.pools) if self.blocks else ()


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a verb must have ended, in nanoseconds of *now*."""

    at_ns: int
    now: Callable[[], int]

    def left(self) -> float:
        """Seconds left, not below zero."""
        return max(0.0, (self.at_ns - self.now()) / 1e9)

    def check(self, step: str) -> None:
        """Raise CNIError 11 if there is no time for *step*."""
        if not self.left():
            raise CNIError(ErrorCode.TRY_AGAIN_LATER, "out of time", f"before {step}")
