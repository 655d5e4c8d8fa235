"""Attach a sandbox to the host and take it off again, with as few messages as it takes."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from dataplane import bridge, ipv6, rtnl
from dataplane.announce import announce
from dataplane.errors import DataplaneError, NetlinkError
from dataplane.model import Bridge, Route, Sandbox, Veth
from dataplane.netlink import Netlink
from dataplane.netns import Sandbox as OpenSandbox
from dataplane.netns import entered
from net.address import IPAddress, IPInterface, IPNetwork

_PAUSE_S = 0.001


class InterfaceExists(DataplaneError):
    """The sandbox has an interface of the wanted name, and it is not ours to replace."""


@dataclass(frozen=True, slots=True)
class PodSide:
    """What the sandbox shows under one interface name."""

    link: rtnl.Link
    addresses: tuple[rtnl.Address, ...]
    routes: tuple[rtnl.KernelRoute, ...]


class Links:
    """The links of one host; thread-safe, with a netlink socket a thread."""

    def __init__(self, connect: Callable[[], Netlink] = Netlink) -> None:
        self._connect = connect
        self._local = threading.local()
        self._bridges = bridge.Bridges()
        self._remover = LinkRemover(self.host)

    def host(self) -> Netlink:
        """This thread's socket in the host's namespace."""
        found: Netlink | None = getattr(self._local, "netlink", None)
        if found is None:
            found = self._local.netlink = self._connect()
        return found

    def attach(self, wanted: Sandbox, pod: OpenSandbox) -> None:
        """Make the pair and give the pod side what *wanted* says; the host side stays down.

        Raises InterfaceExists where the sandbox has the name already, NetlinkError, or
        DataplaneError for a bridge that cannot serve.  What was made before stays: `detach`
        undoes all of it by the host side's name.
        """
        self._make_pair(wanted, pod)
        self._configure_pod(wanted, pod, pod.netlink.index_of(wanted.veth.pod_name))

    def complete(self, wanted: Sandbox, pod: OpenSandbox) -> None:
        """Open the host side, and last of all write the alias that says it is complete."""
        host = self.host()
        index = host.index_of(wanted.veth.host_name)
        if wanted.port.hairpin or wanted.port.isolated:
            host.transact([rtnl.set_port(index, wanted.port)])
        if wanted.bridge and wanted.bridge.vlan_filtering:
            host.transact(rtnl.port_vlans(index, wanted.port))
        host.transact(self._host_side(wanted, index))
        # Asking for a link makes the kernel finish what its link watch still has to do, so
        # both sides can send from here on (net/core/rtnetlink.c, rtnl_getlink).
        pod.netlink.get(rtnl.get_link(name=wanted.veth.pod_name))
        if wanted.dad:
            settle(pod, pod.netlink.index_of(wanted.veth.pod_name))

    def detach(self, host_name: str) -> None:
        """Delete the pair by the name of its host side; absent is fine.

        Blocks until it is gone.  Deletions that come together share the kernel's grace
        periods.
        """
        self._remover.remove(host_name)

    def announce(self, wanted: Sandbox, pod: OpenSandbox, addresses: list[IPAddress]) -> None:
        """Tell neighbours that *addresses* are at this MAC now."""
        with entered(pod.fd):
            announce(wanted.veth.pod_name, wanted.veth.pod_mac, addresses)

    def ensure_bridge(self, wanted: Bridge) -> rtnl.Link:
        """The bridge as it is after it was made, or brought, to be as *wanted*."""
        return self._bridges.ensure(self.host(), wanted)

    def forget_bridges(self) -> None:
        """Look at every bridge anew before it is next used: something about links changed."""
        self._bridges.forget()

    def find(self, name: str) -> rtnl.Link | None:
        """The link of that name on the host, or None."""
        try:
            return rtnl.parse_link(self.host().get(rtnl.get_link(name=name)))
        except NetlinkError as exc:
            if exc.absent:
                return None
            raise

    def all(self) -> list[rtnl.Link]:
        """Every link of the host."""
        return [rtnl.parse_link(payload) for _, payload in self.host().dump(rtnl.get_link())]

    def addresses(self, index: int) -> list[IPInterface]:
        try:
            listed = self.host().dump(rtnl.list_addresses(index))
        except NetlinkError as exc:
            if exc.absent:
                return []
            raise
        return [
            found.address
            for found in rtnl.parse_addresses(listed)
            if found.index == index  # a kernel before 4.20 lists those of every link
        ]

    def every_address(self) -> frozenset[IPAddress]:
        """All addresses of the host."""
        listed = self.host().dump(rtnl.list_addresses())
        return frozenset(found.address.ip for found in rtnl.parse_addresses(listed))

    def host_routes(self, index: int = 0) -> dict[IPNetwork, int]:
        """Our routes to pods by destination, with the link each leads to; of one link if given."""
        routes = [
            rtnl.parse_route(payload)
            for family in (2, 10)
            for _, payload in self.host().dump(
                rtnl.list_routes(family, protocol=rtnl.ROUTE_PROTOCOL)
            )
        ]
        return {
            route.dst: route.index
            for route in routes
            if route.protocol == rtnl.ROUTE_PROTOCOL and index in (0, route.index)
        }

    def repair(self, wanted: Sandbox) -> None:
        """Bring the host side, and the bridge it sits on, back to what they should be."""
        index = self.host().index_of(wanted.veth.host_name)
        if wanted.bridge:
            master = self.ensure_bridge(wanted.bridge).index
            self.host().transact(
                [rtnl.set_link(index, master=master), rtnl.set_port(index, wanted.port)]
            )
        self.host().transact(
            self._host_side(wanted, index),
            tolerate=lambda exc: exc.exists,
        )

    def observe_pod(self, pod: OpenSandbox, ifname: str) -> PodSide | None:
        """The sandbox's interface *ifname* with its addresses and routes, or None."""
        try:
            link = rtnl.parse_link(pod.netlink.get(rtnl.get_link(name=ifname)))
        except NetlinkError as exc:
            if exc.absent:
                return None
            raise
        addresses = list(rtnl.parse_addresses(pod.netlink.dump(rtnl.list_addresses())))
        routes = [
            rtnl.parse_route(payload)
            for family in (2, 10)
            for _, payload in pod.netlink.dump(rtnl.list_routes(family))
        ]
        return PodSide(
            link,
            tuple(found for found in addresses if found.index == link.index),
            tuple(found for found in routes if found.index == link.index),
        )

    def _make_pair(self, wanted: Sandbox, pod: OpenSandbox) -> None:
        """Send the one message that makes both ends, after a look at what is in its way."""
        for last in (False, True):
            master = self.ensure_bridge(wanted.bridge).index if wanted.bridge else 0
            try:
                self.host().transact([rtnl.new_veth(wanted.veth, pod.fd, master)])
            except NetlinkError as exc:
                if last:
                    raise
                if exc.exists:
                    self._clear_leftover(wanted, pod)
                elif master:
                    self.forget_bridges()  # deleted since we looked
                else:
                    raise
            else:
                return

    def _clear_leftover(self, wanted: Sandbox, pod: OpenSandbox) -> None:
        """Remove the half-made pair of an ADD that was cut off, and nothing else."""
        pod_side = self.observe_pod(pod, wanted.veth.pod_name)
        ours = self.find(wanted.veth.host_name)
        foreign = pod_side and (ours is None or pod_side.link.peer != ours.index)
        if foreign or (ours and ours.alias):
            raise exists(wanted.veth)
        if ours:
            self.detach(ours.name)

    def _configure_pod(self, wanted: Sandbox, pod: OpenSandbox, index: int) -> None:
        if any(address.version == 6 for address in wanted.addresses):
            with entered(pod.fd):
                ipv6.allow(wanted.veth.pod_name)
        messages = [rtnl.new_address(index, a, dad=wanted.dad) for a in wanted.addresses]
        if wanted.enabled:
            messages.append(rtnl.set_link(index, flags=rtnl.UP))
        first_route = len(messages)
        messages += [rtnl.new_route(index, route) for route in wanted.pod_routes]
        # A route that another plugin's interface brought is as good as ours.
        try:
            pod.netlink.transact(messages, tolerate=lambda e: e.exists and e.index >= first_route)
        except NetlinkError as exc:
            if exc.index < first_route:
                raise
            raise _refused_route(wanted.pod_routes[exc.index - first_route], exc) from exc

    @staticmethod
    def _host_side(wanted: Sandbox, index: int) -> list[bytes]:
        messages = [rtnl.without_link_local(index)]
        messages += [
            rtnl.new_address(index, address, scope=rtnl.SCOPE_HOST if address.version == 4 else 0)
            for address in wanted.host_addresses
        ]
        up = rtnl.finish_link(index, wanted.veth.alias)
        if not wanted.host_routes:
            return [*messages, up]
        raised = rtnl.set_link(index, flags=rtnl.UP)
        routes = [rtnl.replace_host_route(index, dst) for dst in wanted.host_routes]
        return [*messages, raised, *routes, up]


def _refused_route(route: Route, exc: NetlinkError) -> DataplaneError:
    via = f" via {route.via}" if route.via else ""
    hint = "; a gateway must be in a subnet of the interface" if route.via else ""
    return DataplaneError(f"route {route.dst}{via} is refused: {exc.reason}{hint}")


def exists(veth: Veth) -> InterfaceExists:
    """The refusal of a name that is taken, in the reference's words."""
    return InterfaceExists(
        f'container veth name ("{veth.pod_name}") peer provided ("{veth.host_name}") already exists'
    )


class LinkRemover:
    """Deletes links so that callers who come together wait for one deletion.

    Whoever finds nobody deleting does it for all who are waiting: one veth costs 11 ms of
    grace periods, 32 of one group 19 ms together.  Where the last deletion was shared, the next
    waits for those who are still coming; a lone one never waits.
    """

    def __init__(self, host: Callable[[], Netlink], *, pause_s: float = _PAUSE_S) -> None:
        self._host = host
        self._pause_s = pause_s
        self._changed = threading.Condition()
        self._waiting: list[_Removal] = []
        self._deleting = False
        self._shared = False

    def remove(self, name: str) -> None:
        mine = _Removal(name)
        with self._changed:
            self._waiting.append(mine)
            while self._deleting and not mine.done:
                self._changed.wait()
            if mine.done:
                batch = []
            else:
                self._deleting = True
                if self._shared:
                    self._gather()
                batch, self._waiting = self._waiting, []
                self._shared = len(batch) > 1
        if batch:
            self._run(batch)
        if mine.failure:
            raise mine.failure

    def _gather(self) -> None:
        """Wait while others come, one within each pause: at most for as many as there are turns."""
        come = 0
        while come < len(self._waiting):
            come = len(self._waiting)
            self._changed.wait(self._pause_s)

    def _run(self, batch: list["_Removal"]) -> None:
        failure: DataplaneError | None = DataplaneError("the deletion was not finished")
        try:
            self._delete(batch)
            failure = None
        except DataplaneError as exc:
            failure = exc
        finally:
            with self._changed:
                for removal in batch:
                    removal.done, removal.failure = True, failure
                self._deleting = False
                self._changed.notify_all()

    def _delete(self, batch: list["_Removal"]) -> None:
        host, names = self._host(), sorted({removal.name for removal in batch})
        host.transact([rtnl.condemn_link(name) for name in names], tolerate=_absent)
        if len(names) > 1 and self._only_ours(host, set(names)):
            host.transact([rtnl.delete_group()], tolerate=_absent)
        else:
            host.transact([rtnl.delete_link(name) for name in names], tolerate=_absent)

    @staticmethod
    def _only_ours(host: Netlink, names: set[str]) -> bool:
        """Whether the group holds nothing else: the kernel deletes all that is in it."""
        links = (rtnl.parse_group(payload) for _, payload in host.dump(rtnl.get_link()))
        return {name for name, group in links if group == rtnl.DELETE_GROUP} <= names


class _Removal:
    def __init__(self, name: str) -> None:
        self.name = name
        self.done = False
        self.failure: DataplaneError | None = None


def _absent(exc: NetlinkError) -> bool:
    return exc.absent


def settle(pod: OpenSandbox, index: int, *, timeout: float = 5.0) -> None:
    """Wait until no address of link *index* is tentative, for at most *timeout* seconds.

    Raises DataplaneError where duplicate address detection failed or did not end.
    """
    deadline = threading.Event()
    timer = threading.Timer(timeout, deadline.set)
    timer.start()
    try:
        while True:
            found = list(rtnl.parse_addresses(pod.netlink.dump(rtnl.list_addresses())))
            mine = [address for address in found if address.index == index]
            duplicate = [str(address.address) for address in mine if address.failed]
            if duplicate:
                raise DataplaneError(f"duplicate address detected: {', '.join(duplicate)}")
            if not any(address.tentative for address in mine):
                return
            if deadline.wait(0.02):
                raise DataplaneError("duplicate address detection did not end")
    finally:
        timer.cancel()
