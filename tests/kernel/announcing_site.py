"""Nodes that announce, as processes on one switch; the switch itself is the client on the link."""

import json
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from announcement.election import winner
from dataplane.announce import ARP, IPV6, advertisement, arp
from dataplane.neighbours import Claim, parse, solicited_node
from net.address import IPAddress
from tests.certificates import Authority
from tests.kernel.agents import ROOT, until
from tests.kernel.conftest import Namespace
from tests.kernel.etcd import Host
from tests.kernel.sockets import Echo, ask, inside
from tests.kernel.switch import Switch, switched

FOUR, SIX = ip_address("10.99.0.100"), ip_address("fd99::100")
PORT = 8080
_CLIENT = {4: "10.99.0.254", 6: "fd99::254"}
_LISTEN_S = 0.4
_WITHIN_S = 90.0
_SOLICITATION = 135


@dataclass
class Node:
    name: str
    host: Host
    port: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def namespace(self) -> Namespace:
        assert self.host.namespace
        return self.host.namespace

    @property
    def mac(self) -> bytes:
        shown = self.namespace.run("cat", "/sys/class/net/uplink/address")
        return bytes.fromhex(shown.strip().replace(":", ""))


@dataclass
class Site:
    switch: Switch
    certificates: Path
    nodes: dict[str, Node] = field(default_factory=dict)
    addresses: tuple[IPAddress, ...] = (FOUR, SIX)

    def start(self, name: str) -> None:
        node = self.nodes[name]
        told = {
            "name": name,
            "certificates": str(self.certificates),
            "addresses": list(map(str, self.addresses)),
            "peers": {one.name: one.host.address for one in self.nodes.values()},
        }
        with inside(node.namespace):
            node.process = subprocess.Popen(
                [sys.executable, "-m", "tests.kernel.announcer", json.dumps(told)], cwd=ROOT
            )

    def signal(self, name: str, number: signal.Signals) -> None:
        process = self.nodes[name].process
        assert process
        process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            process.wait(10)

    def answering(self, address: IPAddress) -> set[str]:
        """The nodes that answer who asks for it now."""
        macs = {node.mac: name for name, node in self.nodes.items()}
        with inside(self.switch.namespace):
            return {macs[mac] for mac in _who_has(address)}

    def until_answered_by(self, holds: Callable[[set[str]], bool], address: IPAddress) -> set[str]:
        """Return who answers once *holds* says so of it, and the second time, too."""
        end = time.monotonic() + _WITHIN_S
        while True:
            found = self.answering(address)
            if holds(found) and holds(self.answering(address)):
                return found
            assert time.monotonic() < end, f"{address} is answered by {found or 'nobody'}"

    def until_right(self, address: IPAddress, *without: str) -> str:
        """Return whose it is among all nodes but these, once that one alone answers."""
        right = self.right(address, *without)
        self.until_answered_by(lambda found: found == {right}, address)
        return right

    def right(self, address: IPAddress, *without: str) -> str:
        right = winner(address, self.nodes.keys() - set(without))
        assert right
        return right

    def until_reached(self, address: IPAddress, name: str) -> None:
        """Return once a client on the link reaches that node, by what its kernel knows."""

        def reached() -> str:
            said = ask(self.switch.namespace, str(address), PORT, timeout=1.0)
            return (said or "").partition(" ")[0]

        until(lambda: reached() == name, f"{name} is reached", timeout=_WITHIN_S)

    def cut_link(self, one: str, other: str) -> None:
        """Let no frame pass between two, ARP included; both still reach the client."""
        self._each("add", one, other)

    def heal_link(self, one: str, other: str) -> None:
        self._each("delete", one, other)

    def _each(self, verb: str, one: str, other: str) -> None:
        for here, there in ((one, other), (other, one)):
            pair = f"{{ {self.nodes[here].port} . {self.nodes[there].port} }}"
            self.switch.namespace.run("nft", verb, "element", "bridge", "cut", "links", pair)


_CUTS = """
table bridge cut {
  set links { type ifname . ifname; }
  chain forward { type filter hook forward priority 0; iifname . oifname @links drop; }
}
"""


@contextmanager
def site(namespaces: Callable[[str], Namespace], tmp_path: Path, *names: str) -> Iterator[Site]:
    switch = switched(namespaces("switch"))
    switch.namespace.run("ip", "address", "add", f"{_CLIENT[6]}/64", "dev", "switch", "nodad")
    switch.namespace.run("nft", _CUTS)
    authority = Authority(tmp_path / "certificates")
    made = Site(switch, tmp_path / "certificates")
    with ExitStack() as undo:
        for number, name in enumerate(names, 1):
            authority.node(name)
            namespace = namespaces(name)
            host = switch.plug(namespace)
            made.nodes[name] = Node(name, host, f"port{number}")
            # As where Services are translated: the kernel does not answer for them on the link.
            namespace.run("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1")
            for address in (f"{FOUR}/32", f"{SIX}/128"):
                nodad = ("nodad",) if ":" in address else ()
                namespace.run("ip", "address", "add", address, "dev", "lo", *nodad)
            namespace.run("ip", "address", "add", f"fd99::{number}/64", "dev", "uplink", "nodad")
            undo.enter_context(Echo(namespace, name, PORT))
        undo.callback(_end, made)
        for name in names:
            made.start(name)
        yield made


def _end(made: Site) -> None:
    for node in made.nodes.values():
        if node.process and node.process.poll() is None:
            node.process.kill()
            node.process.wait(10)


def _who_has(address: IPAddress) -> set[bytes]:
    """The MACs that answer within a moment; asked in this thread's namespace, of all."""
    kind = ARP if isinstance(address, IPv4Address) else IPV6
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK) as asking:
        asking.bind(("switch", kind))
        asking.send(question(address, asking.getsockname()[4]))
        found: set[bytes] = set()
        end = time.monotonic() + _LISTEN_S
        while (left := end - time.monotonic()) > 0:
            if select.select([asking], [], [], left)[0]:
                frame = asking.recv(2048)
                said = parse(frame)
                is_to_us = frame[:6] == asking.getsockname()[4]
                if isinstance(said, Claim) and said.address == address and is_to_us:
                    found.add(said.mac)
        return found


def question(address: IPAddress, mac: bytes) -> bytes:
    """The frame by which the client asks who has it."""
    if isinstance(address, IPv4Address):
        return arp(mac, IPv4Address(_CLIENT[4]), 1, to=b"\xff" * 6, target=address)
    group = solicited_node(address)
    # A solicitation has the form of an advertisement: another type, and whose address it asks for.
    frame = bytearray(
        advertisement(mac, address, 0, to=b"\x33\x33" + group.packed[-4:], target=group)
    )
    frame[22:38] = IPv6Address(_CLIENT[6]).packed
    frame[54], frame[78] = _SOLICITATION, 1
    frame[56:58] = bytes(2)
    frame[56:58] = _checksum(bytes(frame[22:54]) + b"\0\0\0\x20\0\0\0\x3a" + bytes(frame[54:]))
    return bytes(frame)


def _checksum(data: bytes) -> bytes:
    total = sum(int.from_bytes(data[at : at + 2]) for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2)
