#!/usr/bin/env python3
"""How soon another node answers for an address of a load balancer, and for how long two do.

    bench/failover.py        QUICK=1 for a short run

Nodes are namespaces on one bridge with an announcing process each; the bridge is the client, and
asks by ARP twenty times a second.  The answer is a table, as docs/specification.md has it.
"""

import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from figures import Figure, Table, circumstances  # noqa: E402

from dataplane.announce import ARP  # noqa: E402
from dataplane.neighbours import Claim, parse  # noqa: E402
from tests.kernel.announcing_site import FOUR, Site, question, site  # noqa: E402
from tests.kernel.conftest import Namespace  # noqa: E402
from tests.kernel.sockets import inside  # noqa: E402

ROUNDS = 3 if os.environ.get("QUICK") else 10
PROMISE = "3,000 ms"
_EVERY_S, _TOGETHER_S, _FOR_S, _BACK_S = 0.05, 0.1, 6.0, 5.0

Work = Callable[["Site", "Client", str], float]


class Client:
    """Asks all the time, and keeps when whose answer came."""

    def __init__(self, at: Site) -> None:
        self._names = {node.mac: name for name, node in at.nodes.items()}
        self.heard: list[tuple[float, str]] = []
        with inside(at.switch.namespace):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            self._socket.bind(("switch", ARP))
        self._socket.settimeout(0.2)
        self._mac: bytes = self._socket.getsockname()[4]
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._ask, self._hear)]

    def __enter__(self) -> "Client":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _ask(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self._socket.send(question(FOUR, self._mac))

    def _hear(self) -> None:
        while not self._ended.is_set():
            try:
                frame = self._socket.recv(2048)
            except TimeoutError:
                continue
            said = parse(frame)
            if isinstance(said, Claim) and said.address == FOUR and frame[:6] == self._mac:
                self.heard.append((time.monotonic(), self._names[said.mac]))

    def first(self, since: float, *but: str) -> float:
        """How long after *since* another answered first."""
        while True:
            for at, name in list(self.heard):
                if at > since and name not in but:
                    return at - since
            time.sleep(0.01)

    def both(self, since: float) -> list[float]:
        """When after *since* two answered within a moment."""
        time.sleep(_FOR_S)
        heard = [one for one in self.heard if one[0] > since]
        return [
            b[0] - since
            for a, b in itertools.pairwise(heard)
            if a[1] != b[1] and b[0] - a[0] < _TOGETHER_S
        ]


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))
    table = Table()
    three: list[tuple[str, Work]] = [
        ("its agent is killed (kill -9)", killed),
        ("its link is down", link_down),
        ("its agent ends in order", ended),
        ("its agent hangs (SIGSTOP)", stopped),
        ("it is cut off, until it is silent", cut_off),
    ]
    with made("a", "b", "c") as at:
        for what, work in three:
            rounds = tuple(1000 * measured(at, work) for _ in range(ROUNDS))
            table.add("another answers", f"{what}, of 3 nodes", Figure(rounds), promise=PROMISE)
    rounds = ()
    for _ in range(ROUNDS):  # each time with other MACs: the higher answers on
        with made("a", "b") as at:
            rounds += (1000 * measured(at, apart),)
    what = "heartbeats do not pass, of 2 nodes"
    table.add("two answered, at most for", what, Figure(rounds), promise=PROMISE)
    print(table.text())
    print(f"\n{circumstances()}")
    return 0


def measured(at: Site, work: Work) -> float:
    """Whoever has the address now; a node that came back is heard again first."""
    time.sleep(_BACK_S)
    (first,) = at.until_answered_by(lambda found: len(found) == 1, FOUR)
    with Client(at) as client:
        time.sleep(0.5)
        return work(at, client, first)


def killed(at: Site, client: Client, first: str) -> float:
    return _signalled(at, client, first, signal.SIGKILL)


def ended(at: Site, client: Client, first: str) -> float:
    return _signalled(at, client, first, signal.SIGTERM)


def _signalled(at: Site, client: Client, first: str, number: signal.Signals) -> float:
    begun = time.monotonic()
    at.signal(first, number)
    took = client.first(begun, first)
    at.start(first)
    return took


def stopped(at: Site, client: Client, first: str) -> float:
    begun = time.monotonic()
    at.signal(first, signal.SIGSTOP)
    took = client.first(begun, first)
    at.signal(first, signal.SIGCONT)
    return took


def link_down(at: Site, client: Client, first: str) -> float:
    begun = time.monotonic()
    at.nodes[first].namespace.run("ip", "link", "set", "uplink", "down")
    took = client.first(begun, first)
    at.nodes[first].namespace.run("ip", "link", "set", "uplink", "up")
    return took


def cut_off(at: Site, client: Client, first: str) -> float:
    """The client reaches both sides: until the one is silent, both would answer."""
    others = at.nodes.keys() - {first}
    begun = time.monotonic()
    for other in others:
        at.cut_link(first, other)
    took = max(client.first(begun, first), *client.both(begun), 0.0)
    for other in others:
        at.heal_link(first, other)
    return took


def apart(at: Site, client: Client, _: str) -> float:
    """From when two began to answer to when one was silent."""
    one, other = (node.host for node in at.nodes.values())
    begun = time.monotonic()
    at.switch.cut(one, other)
    both = client.both(begun)
    at.switch.heal(one, other)
    return max(both) - min(both) if both else 0.0


@contextmanager
def made(*names: str) -> Iterator[Site]:
    with ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory()))

        def make(role: str) -> Namespace:
            namespace = Namespace(f"bench-{role}-{os.urandom(4).hex()}")
            subprocess.run(["ip", "netns", "add", namespace.name], check=True)
            undo.callback(subprocess.run, ["ip", "netns", "del", namespace.name], check=False)
            namespace.run("ip", "link", "set", "lo", "up")
            return namespace

        yield undo.enter_context(site(make, folder, *names))


if __name__ == "__main__":
    sys.exit(main())
