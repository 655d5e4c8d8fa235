"""A node without a kernel: the seams of cni.node over values, and the real allocator.

`FakeKernel.broken` names a step that fails once, before or after it has taken effect: the
failure matrix of a verb is this list of steps.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Self

from cni.attachment import host_name
from cni.dispatch import serve
from cni.nat import Published
from cni.node import Deadline, Node
from cni.request import Request, Response
from cni.spool import Spool
from dataplane import rtnl
from dataplane.errors import DataplaneError, InvalidNamespace
from dataplane.links import PodSide, exists
from dataplane.model import Bandwidth, Bridge, Sandbox
from dataplane.netns import Identity
from ipam.allocator import Allocator
from ipam.leases import Attachment, Record
from net.address import IPAddress, IPInterface, IPNetwork
from tests.unit.ipam.cases import BOOT, SECOND, Clock, FragileStore

BLUE, GREEN = "/run/netns/no-such-blue", "/run/netns/no-such-green"
WHO = Attachment("shop", "c1", "eth0")

Document = dict[str, Any]


@dataclass
class FakePod:
    """An open sandbox; *interfaces* outlive it, as those of a namespace do."""

    path: str
    cookie: int
    interfaces: dict[str, PodSide] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return


def link(name: str, index: int, **more: Any) -> rtnl.Link:
    usual: Document = {
        "kind": "veth",
        "mac": "02:00:00:00:00:01",
        "mtu": 1500,
        "up": False,
        "promiscuous": False,
        "alias": "",
        "master": 0,
        "group": 0,
        "peer": 0,
    }
    return rtnl.Link(index=index, name=name, **(usual | more))


class FakeKernel:
    """Links, nftables, limits and the rest of one host, as far as an attachment needs them."""

    def __init__(self) -> None:
        self.links: dict[str, rtnl.Link] = {}
        self.pods: dict[str, FakePod] = {}
        self.held_addresses: dict[int, list[IPInterface]] = {}
        self.routes: dict[IPNetwork, int] = {}
        self.published: dict[Attachment, Published] = {}
        self.limits: dict[str, Bandwidth] = {}
        self.forwarding: set[int] = set()
        self.localhost: set[str] = set()
        self.forgotten: list[IPAddress] = []
        self.announced: list[IPAddress] = []
        self.mtu = 1500
        self.broken = ""
        self.before = False
        self.steps: list[str] = []
        self.bridges_forgotten = self.host_forgotten = 0
        self._last = 1

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        self.steps.append(name)
        fails, self.broken = self.broken == name, "" if self.broken == name else self.broken
        if fails and self.before:
            raise DataplaneError(f"{name} refused")
        yield
        if fails:
            raise DataplaneError(f"{name} cut off")

    def _index(self) -> int:
        self._last += 1
        return self._last

    def open_sandbox(self, path: str, handle: int | None = None) -> FakePod:
        try:
            return self.pods[path]
        except KeyError:
            raise InvalidNamespace(f'failed to open netns "{path}": No such file') from None

    def attach(self, wanted: Sandbox, pod: FakePod) -> None:
        veth = wanted.veth
        with self._step("attach"):
            if veth.pod_name in pod.interfaces:
                raise exists(veth)
            master = self.ensure_bridge(wanted.bridge).index if wanted.bridge else 0
            outer, inner = self._index(), self._index()
            self.links[veth.host_name] = link(
                veth.host_name,
                outer,
                mac=veth.host_mac,
                mtu=veth.mtu,
                peer=inner,
                master=master,
                hairpin=wanted.port.hairpin,
                isolated=wanted.port.isolated,
            )
            pod.interfaces[veth.pod_name] = pod_side(wanted, inner, outer)

    def complete(self, wanted: Sandbox, pod: FakePod) -> None:
        with self._step("complete"):
            self.repair(wanted)

    def repair(self, wanted: Sandbox) -> None:
        name = wanted.veth.host_name
        master = self.ensure_bridge(wanted.bridge).index if wanted.bridge else 0
        self.links[name] = replace(
            self.links[name], up=True, alias=wanted.veth.alias, master=master
        )
        index = self.links[name].index
        self.held_addresses[index] = list(wanted.host_addresses)
        self.routes |= dict.fromkeys(wanted.host_routes, index)

    def detach(self, host_name: str) -> None:
        with self._step("detach"):
            gone = self.links.pop(host_name, None)
            if gone is None:
                return
            for pod in self.pods.values():
                for name, side in list(pod.interfaces.items()):
                    if side.link.index == gone.peer:
                        del pod.interfaces[name]
            self.held_addresses.pop(gone.index, None)
            self.limits.pop(host_name, None)
            self.routes = {dst: i for dst, i in self.routes.items() if i != gone.index}

    def announce(self, wanted: Sandbox, pod: FakePod, addresses: list[IPAddress]) -> None:
        with self._step("announce"):
            self.announced += addresses

    def ensure_bridge(self, wanted: Bridge) -> rtnl.Link:
        found = self.links.get(wanted.name)
        index = found.index if found else self._index()
        self.links[wanted.name] = link(
            wanted.name,
            index,
            kind="bridge",
            mac=wanted.mac,
            up=True,
            promiscuous=wanted.promiscuous,
        )
        present = self.held_addresses.setdefault(index, [])
        present += [address for address in wanted.addresses if address not in present]
        return self.links[wanted.name]

    def forget_bridges(self) -> None:
        self.bridges_forgotten += 1

    def find(self, name: str) -> rtnl.Link | None:
        return self.links.get(name)

    def all(self) -> list[rtnl.Link]:
        return list(self.links.values())

    def addresses(self, index: int) -> list[IPInterface]:
        return self.held_addresses.get(index, [])

    def every_address(self) -> frozenset[IPAddress]:
        self.steps.append("every_address")
        return frozenset(one.ip for held in self.held_addresses.values() for one in held)

    def host_routes(self, index: int = 0) -> dict[IPNetwork, int]:
        return {dst: to for dst, to in self.routes.items() if index in (0, to)}

    def observe_pod(self, pod: FakePod, ifname: str) -> PodSide | None:
        return pod.interfaces.get(ifname)

    def publish(self, published: Published) -> None:
        with self._step("publish"):
            self.published[published.who] = published

    def withdraw(self, who: Attachment) -> None:
        with self._step("withdraw"):
            self.published.pop(who, None)

    def missing(self, published: Published) -> list[str]:
        same = self.published.get(published.who) == published
        return [] if same else [f"nft elements of {published.who}"]

    def resync(self, published: Callable[[], Iterable[Published]]) -> int:
        with self._step("resync"):
            wanted = {each.who: each for each in published()}
            changed = wanted.keys() ^ self.published.keys()
            self.published = wanted
            return len(changed)

    def forget(self) -> None:
        self.host_forgotten += 1

    def uplink_mtu(self) -> int:
        return self.mtu

    def enable_forwarding(self, families: frozenset[int]) -> None:
        with self._step("enable_forwarding"):
            self.forwarding |= families

    def allow_localhost_mappings(self, interface: str, *, lasting: bool) -> None:
        with self._step("allow_localhost_mappings"):
            self.localhost.add(interface)

    def forget_flows(self, address: IPAddress) -> None:
        with self._step("forget_flows"):
            self.forgotten.append(address)

    def shape(self, host_name: str, bandwidth: Bandwidth) -> None:
        with self._step("shape"):
            self.limits[host_name] = bandwidth

    def unshape(self, host_name: str) -> None:
        with self._step("unshape"):
            self.limits.pop(host_name, None)

    def sweep_limits(self, alive: Callable[[], Collection[str]]) -> list[str]:
        with self._step("sweep_limits"):
            stale = sorted(self.limits.keys() - set(alive()))
            for name in stale:
                del self.limits[name]
        return stale

    def shaped(self, host_name: str, bandwidth: Bandwidth) -> bool:
        return self.limits.get(host_name) == bandwidth


def pod_side(wanted: Sandbox, index: int, peer: int) -> PodSide:
    """What the kernel shows of the pod's end after it was made as *wanted*."""
    return PodSide(
        link(
            wanted.veth.pod_name,
            index,
            mac=wanted.veth.pod_mac,
            mtu=wanted.veth.mtu,
            up=wanted.enabled,
            peer=peer,
        ),
        tuple(
            rtnl.Address(index=index, address=address, scope=0, tentative=False, failed=False)
            for address in wanted.addresses
        ),
        tuple(
            rtnl.KernelRoute(
                dst=route.dst,
                via=route.via,
                index=index,
                table=route.table or rtnl.MAIN_TABLE,
                protocol=3,
                kind=rtnl.UNICAST,
                priority=route.priority,
            )
            for route in wanted.pod_routes
        ),
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a runtime reads: exit status and the one document, if any."""

    status: int
    document: Document | None

    @property
    def code(self) -> int:
        return 0 if self.document is None else int(self.document.get("code", 0))

    @property
    def msg(self) -> str:
        return "" if self.document is None else str(self.document.get("msg", ""))

    @property
    def details(self) -> str:
        return "" if self.document is None else str(self.document.get("details", ""))

    @property
    def addresses(self) -> list[str]:
        assert self.document is not None

        return [ip["address"] for ip in self.document.get("ips", [])]


def answer(response: Response) -> Answer:
    return Answer(response.status, json.loads(response.stdout) if response.stdout else None)


class World:
    """A node with two sandboxes, and the runtime that asks it."""

    def __init__(self, directory: Path, *, cooldown_s: float = 30.0) -> None:
        self.kernel = FakeKernel()
        self.clock = Clock()
        self.store = FragileStore()
        self.ready = ""
        self.leases = Allocator(self.store, boot_id=BOOT, now=self.clock, cooldown_s=cooldown_s)
        self.kernel.pods = {BLUE: FakePod(BLUE, 11), GREEN: FakePod(GREEN, 22)}
        self.node = Node(
            leases=self.leases,
            links=self.kernel,
            publications=self.kernel,
            host=self.kernel,
            spool=Spool(directory / "spool"),
            namespace=Identity(0, 1),
            boot_id=BOOT,
            now=self.clock,
            seed="machine",
            ready=lambda: self.ready,
            open_sandbox=self.kernel.open_sandbox,
        )

    def close(self) -> None:
        self.store.go.set()
        self.leases.close()

    def conf(self, **keys: object) -> Document:
        """A plain bridge network with one IPv4 range; a key of None is left out."""
        usual: Document = {
            "cniVersion": "1.1.0",
            "name": "shop",
            "type": "isthmus",
            "ipam": {"type": "isthmus", "subnet": "10.9.0.0/24"},
        }
        return {key: value for key, value in (usual | keys).items() if value is not None}

    def request(
        self,
        verb: str,
        conf: Document | bytes,
        *,
        container_id: str = "c1",
        ifname: str = "eth0",
        netns: str = BLUE,
        args: str = "",
        path: str = "/no/such/bin",
        program: str = "isthmus",
        started_ns: int | None = None,
        boot_id: str = BOOT,
        **more: Any,
    ) -> Request:
        return Request(
            program=program,
            environment={
                "CNI_COMMAND": verb,
                "CNI_CONTAINERID": container_id,
                "CNI_NETNS": netns,
                "CNI_IFNAME": ifname,
                "CNI_ARGS": args,
                "CNI_PATH": path,
            },
            stdin=conf if isinstance(conf, bytes) else json.dumps(conf).encode(),
            started_ns=self.clock.ns if started_ns is None else started_ns,
            boot_id=boot_id,
            **more,
        )

    def call(self, verb: str, conf: Document | bytes | None = None, **more: Any) -> Answer:
        """One call, a millisecond after the last one."""
        self.clock.ns += SECOND // 1000
        return answer(serve(self.request(verb, conf or self.conf(), **more), self.node))

    def add(self, conf: Document | bytes | None = None, **more: Any) -> Answer:
        return self.call("ADD", conf, **more)

    def deadline(self, seconds: float = 20) -> Deadline:
        return Deadline(self.clock.ns + int(seconds * SECOND), self.clock)

    def made(self, conf: Document | None = None, **more: Any) -> Document:
        """The result of an ADD that has to succeed."""
        found = self.add(conf, **more)
        assert found.status == 0, found
        assert found.document is not None

        return found.document

    def record(self, who: Attachment = WHO) -> Record:
        found = self.leases.find(who)
        assert found is not None

        return found

    def link(self, who: Attachment = WHO) -> rtnl.Link | None:
        return self.kernel.links.get(host_name(who))

    def traces(self) -> Document:
        """All that an attachment can leave behind."""
        kernel = self.kernel
        return {
            "links": [name for name in kernel.links if name != "cni0"],
            "routes": list(kernel.routes),
            "published": list(kernel.published),
            "limits": list(kernel.limits),
            "pods": [name for pod in kernel.pods.values() for name in pod.interfaces],
        }


NO_TRACE: Document = {"links": [], "routes": [], "published": [], "limits": [], "pods": []}

SUBNET = IPv4Network("10.9.0.0/24")
DUAL: Document = {
    "type": "isthmus",
    "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd09::/64"}]],
}
