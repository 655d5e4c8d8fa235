"""Plain pods: what is left of a pod's network when nobody keeps it.

A pod is a namespace with one veth to its node, which has a route to it.  Nodes reach each other's
pods by a route, or through a VXLAN link whose neighbours are programmed.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from tools.kind.progress import run

SERVER, NEAR, FAR = "10.251.1.1", "10.251.1.2", "10.251.2.1"
TRIP = Path(__file__).parents[1] / "build/bench/trip"
ROOM_FOR_VXLAN = 50  # bytes of a packet's headers: IPv4, UDP, VXLAN, Ethernet
_VNI, _PORT = 9, 4790  # whoever else has VXLAN there has the usual ones

# Every node of a cluster tracks connections: without it Services have no answers, and what leaves
# has no address to come back to.  Two chains that are given a flow's first packet, and do nothing.
TRACKED = """table inet plain-tracked {
    chain arriving { type nat hook prerouting priority dstnat; }
    chain leaving {
        type nat hook postrouting priority srcnat; ip daddr 255.255.255.255 masquerade;
    }
}
"""


@dataclass(frozen=True, slots=True)
class Node:
    """A node, by the address that others have a route to; *run* runs a program there."""

    run: Callable[..., str]
    address: str

    def ip(self, *commands: str) -> None:
        for command in commands:
            self.run("ip", *command.split())


@contextmanager
def nodes() -> Iterator[tuple[Node, Node]]:
    """Two nodes that are namespaces of this machine, their links on one bridge."""
    mark = token_hex(3)
    wire, *names = (f"plain-{one}-{mark}" for one in ("wire", "n1", "n2"))
    with ExitStack() as undo:
        for name in (wire, *names):
            run("ip", "netns", "add", name)
            undo.callback(run, "ip", "netns", "delete", name)
        _in(wire).ip("link add br0 type bridge", "link set br0 up")
        made = [_in(name, f"192.0.2.{number}") for number, name in enumerate(names, 1)]
        for number, (name, node) in enumerate(zip(names, made, strict=True), 1):
            _in(wire).ip(
                f"link add w{number} type veth peer name eth0 netns {name}",
                f"link set w{number} master br0 up",
            )
            node.ip("link set lo up", f"address add {node.address}/24 dev eth0", "link set eth0 up")
            node.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        first, second = made
        yield first, second


@contextmanager
def pods(first: Node, second: Node, *, vxlan: bool) -> Iterator[dict[str, str]]:
    """Pods "server" and "near" on *first*, and "far" on *second*: their namespaces, by name."""
    mark = token_hex(3)
    names = {name: f"plain-{name}-{mark}" for name in ("server", "near", "far")}
    mtu = 1500 - ROOM_FOR_VXLAN * vxlan
    places = ((first, "server", SERVER), (first, "near", NEAR), (second, "far", FAR))
    with ExitStack() as undo:
        for node, name, address in places:
            _pod(node, names[name], address, mtu, undo)
        for number, (node, other) in enumerate(((first, second), (second, first)), 1):
            _lead(node, other, number, undo, vxlan=vxlan)
        yield names


def _lead(node: Node, other: Node, number: int, undo: ExitStack, *, vxlan: bool) -> None:
    """Have *node*, the *number*th of two, reach the pods of *other*."""
    peer = 3 - number
    if not vxlan:
        node.ip(f"route add 10.251.{peer}.0/24 via {other.address}")
        undo.callback(node.ip, f"route delete 10.251.{peer}.0/24")
        return
    mac = f"02:00:00:00:00:0{peer}"
    link = f"type vxlan id {_VNI} dstport {_PORT} local {node.address} nolearning"
    node.ip(f"link add plain-vx address 02:00:00:00:00:0{number} {link}")
    undo.callback(node.ip, "link delete plain-vx")
    node.ip(
        f"link set plain-vx mtu {1500 - ROOM_FOR_VXLAN} up",
        f"neighbour add 10.251.{peer}.0 lladdr {mac} dev plain-vx",
        f"route add 10.251.{peer}.0/24 via 10.251.{peer}.0 dev plain-vx onlink",
    )
    node.run(*f"bridge fdb append {mac} dev plain-vx dst {other.address}".split())


def _pod(node: Node, name: str, address: str, mtu: int, undo: ExitStack) -> None:
    node.ip(f"netns add {name}")
    undo.callback(node.ip, f"netns delete {name}")
    link = f"plain{address.rpartition('.')[2]}"
    node.ip(f"link add {link} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {name}")
    undo.callback(node.ip, f"link delete {link}")  # with its namespace it goes some time later
    node.ip(
        f"address add 169.254.1.1/32 dev {link}",
        f"link set {link} up",
        f"route add {address} dev {link}",
        f"-n {name} link set lo up",
        f"-n {name} link set eth0 up",
        f"-n {name} address add {address}/32 dev eth0",
        f"-n {name} route add 169.254.1.1 dev eth0",
        f"-n {name} route add default via 169.254.1.1",
    )


def _in(namespace: str, address: str = "") -> Node:
    def there(*argv: str, stdin: str = "") -> str:
        # Not `ip netns exec`: what that mounts, as for a namespace that is made, is gone after it.
        return run("nsenter", f"--net=/run/netns/{namespace}", *argv, stdin=stdin)

    return Node(there, address)


def build_trip() -> None:
    source = Path(__file__).with_name("trip.c")
    TRIP.parent.mkdir(parents=True, exist_ok=True)
    run("musl-gcc", "-static", "-O2", "-s", "-Wall", "-Wextra", "-o", TRIP, source)
