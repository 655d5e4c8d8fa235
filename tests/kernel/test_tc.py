"""Rate limits, by what really gets through in a time and by what `tc` says."""

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from dataplane.model import Bandwidth
from dataplane.netlink import Netlink
from dataplane.tc import Shaper, buckets, ifb_name
from tests.kernel.conftest import Namespace
from tests.kernel.sockets import inside

pytestmark = pytest.mark.kernel

SLOW = 2_000_000  # bit/s
FAST = 16_000_000
BURST = 80_000  # bits


@dataclass(slots=True)
class Pair:
    """A host with `veth0`, and a pod behind it."""

    host: Namespace
    pod: Namespace
    shaper: Shaper

    def seconds(self, *, into: bool, size: int = 250_000) -> float:
        """How long *size* bytes take, into the pod or out of it."""
        sender, receiver = (self.host, self.pod) if into else (self.pod, self.host)
        address = "10.65.0.2" if into else "10.65.0.1"
        with inside(receiver):
            server = socket.create_server((address, 0))
        with inside(sender):
            client = socket.socket()
        with server, client:
            client.settimeout(60)
            client.connect((address, server.getsockname()[1]))
            connection, _ = server.accept()
            sending = threading.Thread(target=client.sendall, args=(bytes(size),))
            with connection:
                connection.settimeout(60)
                started, received = time.monotonic(), 0
                sending.start()
                while received < size:
                    received += len(connection.recv(1 << 16))
                taken = time.monotonic() - started
            sending.join()
        return taken


@pytest.fixture
def pair(namespaces: Callable[[str], Namespace]) -> Iterator[Pair]:
    host, pod = namespaces("host"), namespaces("pod")
    host.run("ip", "link", "add", "veth0", "type", "veth", "peer", "eth0", "netns", pod.name)
    for namespace, device, address in ((host, "veth0", "10.65.0.1"), (pod, "eth0", "10.65.0.2")):
        namespace.run("ip", "addr", "add", f"{address}/24", "dev", device)
        namespace.run("ip", "link", "set", device, "up")
    with inside(host):
        netlink = Netlink()
    with netlink:
        yield Pair(host, pod, Shaper(netlink))


@pytest.mark.parametrize("into", [True, False], ids=["ingress", "egress"])
def test_an_eighth_of_the_rate_takes_several_times_as_long(pair: Pair, into: bool) -> None:
    side = "ingress" if into else "egress"

    def seconds(rate: int) -> float:
        limits = {f"{side}_rate": rate, f"{side}_burst": BURST}
        pair.shaper.shape("veth0", Bandwidth(**limits))
        return pair.seconds(into=into)

    slow, fast, other_way = seconds(SLOW), seconds(FAST), pair.seconds(into=not into)

    # 250 kB at 2 Mbit/s cannot take less than 0.9 s on any machine; 0.1 s at 16 Mbit/s.
    assert slow > 3 * fast
    assert slow > 10 * other_way


def test_tc_shows_rate_burst_and_latency(pair: Pair) -> None:
    both = Bandwidth(
        ingress_rate=8_000_000, ingress_burst=800_000, egress_rate=SLOW, egress_burst=BURST
    )
    pair.shaper.shape("veth0", both)

    veth = pair.host.run("tc", "qdisc", "show", "dev", "veth0")
    ifb = pair.host.run("tc", "qdisc", "show", "dev", ifb_name("veth0"))

    assert "rate 8Mbit burst 100000b lat 25" in veth
    assert "qdisc ingress ffff:" in veth
    assert "rate 2Mbit burst 10000b lat 25" in ifb
    assert pair.shaper.observe("veth0") == buckets(both)


def test_limits_can_be_changed_repeated_and_taken_away(pair: Pair) -> None:
    only_in = Bandwidth(ingress_rate=SLOW, ingress_burst=BURST)
    only_out = Bandwidth(egress_rate=FAST, egress_burst=BURST)
    for limits in (only_in, only_in, only_out, only_out):
        pair.shaper.shape("veth0", limits)
        assert pair.shaper.observe("veth0") == buckets(limits)

    pair.shaper.unshape("veth0")
    pair.shaper.unshape("veth0")

    assert pair.shaper.observe("veth0") == (None, None)
    assert "ifb" not in pair.host.run("ip", "link")
    assert pair.pod.pings("10.65.0.1")


def test_rates_above_32_bits_of_bytes_are_kept(pair: Pair) -> None:
    limits = Bandwidth(ingress_rate=80_000_000_000, ingress_burst=8_000_000)
    pair.shaper.shape("veth0", limits)

    assert pair.shaper.observe("veth0") == buckets(limits)


def test_an_ifb_deleted_behind_our_back_is_seen_and_mended(pair: Pair) -> None:
    limits = Bandwidth(egress_rate=SLOW, egress_burst=BURST)
    pair.shaper.shape("veth0", limits)
    pair.host.run("ip", "link", "del", ifb_name("veth0"))
    broken = pair.shaper.observe("veth0")
    pair.shaper.shape("veth0", limits)

    assert broken == (None, None)
    assert pair.shaper.observe("veth0") == buckets(limits)
    assert pair.pod.pings("10.65.0.1")


def test_ifbs_of_veths_that_are_gone_are_swept_and_foreign_ones_stay(pair: Pair) -> None:
    for name in ("veth1", "veth2"):
        pair.host.run("ip", "link", "add", name, "type", "veth", "peer", f"{name}p")
        pair.shaper.shape(name, Bandwidth(egress_rate=SLOW, egress_burst=BURST))
    pair.host.run("ip", "link", "add", "ifb0123456789ab", "type", "ifb")
    pair.host.run("ip", "link", "del", "veth1")

    swept = pair.shaper.sweep(lambda: ["veth0", "veth2"])

    assert swept == [ifb_name("veth1")]
    links = pair.host.run("ip", "-o", "link", "show", "type", "ifb")
    assert ifb_name("veth2") in links
    assert "ifb0123456789ab" in links


def test_a_veth_that_nobody_speaks_for_is_not_cut_off(pair: Pair) -> None:
    pair.shaper.shape("veth0", Bandwidth(egress_rate=SLOW, egress_burst=BURST))

    swept = pair.shaper.sweep(list)

    assert swept == [ifb_name("veth0")]
    assert pair.shaper.observe("veth0") == (None, None)
    assert pair.pod.pings("10.65.0.1")


def test_the_limits_of_a_veth_that_is_gone_can_be_taken_away(pair: Pair) -> None:
    pair.shaper.shape("veth0", Bandwidth(egress_rate=SLOW, egress_burst=BURST))
    subprocess.run(["ip", "-n", pair.host.name, "link", "del", "veth0"], check=True)

    pair.shaper.unshape("veth0")

    assert ifb_name("veth0") not in pair.host.run("ip", "link")
