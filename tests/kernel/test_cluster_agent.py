"""A node of a cluster: blocks from a real ipamd, containers attached from them, whatever fails.

The ipamd is a process in the machine's namespace; what is behind it is in memory.
"""

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from agent.cluster import Cluster
from agent.joining import join
from agent.wiring import wire as wire_node
from cni.request import Response
from tests.kernel.agents import Machine, Pod, addresses, until
from tests.kernel.conftest import Namespace
from tests.kernel.memory_ipamd import Ipamd
from tests.kernel.nodes import Site, error_of, in_child
from tests.kernel.sockets import Echo, ask, inside

pytestmark = pytest.mark.kernel

FOUR, SIX = "10.30.0.0/16", "fd30::/64"
BRIDGE: Mapping[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "pods",
    "type": "isthmus",
    "ipam": {"type": "isthmus"},
}
ROUTED: Mapping[str, Any] = {**BRIDGE, "mode": "routed"}


@pytest.fixture(scope="module")
def binary(patient: str) -> str:
    return patient


@pytest.fixture
def ipamd(machine: Machine, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Ipamd]:
    """An ipamd with a pool of each family, and a machine that knows of it."""
    ipamd = Ipamd(machine, tmp_path / "ipamd")
    four, six = getattr(request, "param", (FOUR, SIX))
    try:
        ipamd.do("pool", "four", four, 29)
        ipamd.do("pool", "six", six, 122)
        for address in ("192.0.2.1/32", "2001:db8::1/128"):
            machine.host.run("ip", "address", "add", address, "dev", "lo")
        machine.settings = {"ipamd": ipamd.settings()}
        yield ipamd
    finally:
        ipamd.kill()


def cluster(machine: Machine) -> dict[str, Any]:
    return dict(machine.ask("status")["status"]["cluster"])


def blocks(machine: Machine, state: str = "active") -> list[str]:
    return [block["cidr"] for block in cluster(machine)["blocks"] if block["state"] == state]


def has_blocks(machine: Machine, number: int = 2) -> None:
    until(lambda: len(blocks(machine)) == number, f"it has {number} blocks")


def pods_of(machine: Machine, network: Mapping[str, Any], number: int) -> list[tuple[Pod, str]]:
    made = []
    for _ in range(number):
        pod = machine.pod()
        made.append((pod, addresses(machine.add(pod, network=network))[0]))
    return made


@pytest.mark.parametrize("network", [BRIDGE, ROUTED], ids=["bridge", "routed"])
def test_containers_have_addresses_of_the_nodes_blocks_and_reach_each_other(
    machine: Machine, ipamd: Ipamd, network: Mapping[str, Any]
) -> None:
    machine.start()
    has_blocks(machine)
    one, two = machine.pod(), machine.pod()

    first = addresses(machine.add(one, network=network))
    second = addresses(machine.add(two, network=network))

    own = [ip_network(cidr) for cidr in blocks(machine)]
    for given in (first, second):
        assert [ip_address(each) in net for each, net in zip(given, own, strict=True)] == [True] * 2
    assert all(one.namespace.pings(address) for address in second)
    assert all(machine.host.pings(address) for address in first)
    assert machine.problems() == []
    until(lambda: ipamd.do("show", "address", first[0])["leases"] != [], "it is mirrored")
    for pod in (one, two):
        assert machine.delete(pod, network=network).status == 0
    assert machine.leftovers() == []
    until(lambda: ipamd.do("show", "address", first[0])["leases"] == [], "the mirror forgot it")


def test_nothing_of_it_needs_ipamd_once_there_are_blocks(machine: Machine, ipamd: Ipamd) -> None:
    machine.start()
    has_blocks(machine)
    machine.kill()
    ipamd.pause()
    machine.start()

    made = pods_of(machine, ROUTED, 2)

    assert len({address for _, address in made}) == 2
    assert machine.delete(made[0][0], network=ROUTED).status == 0
    ipamd.resume()
    until(lambda: cluster(machine)["connected"], "it is connected again")


def test_a_full_node_claims_another_block_and_says_why_there_is_none(
    machine: Machine, ipamd: Ipamd
) -> None:
    ipamd.do("settings", {"blocks_per_node": 2})
    machine.start()
    has_blocks(machine)
    pods_of(machine, BRIDGE, 5)
    has_blocks(machine, 3)
    made = pods_of(machine, BRIDGE, 5)
    until(lambda: bool(cluster(machine)["outlook"]), "the next claim was refused")

    refused = machine.add(machine.pod(), network=BRIDGE)

    assert error_of(refused)["code"] == 100
    assert (
        "all 10 are held (blocks of pool four): ipamd refused another block: node n1 has"
        in (error_of(refused)["msg"])
    )
    assert made[0][0].namespace.pings(made[-1][1])
    ipamd.do("settings", {"blocks_per_node": 3})
    until(lambda: machine.add(machine.pod(), network=BRIDGE).status == 0, "there is room again")


def test_a_node_without_ipamd_ever_says_what_it_waits_for(machine: Machine, ipamd: Ipamd) -> None:
    ipamd.kill()
    machine.start()
    pod = machine.pod()
    until(lambda: "refused" in cluster(machine)["trouble"], "ipamd is found away")

    done = machine.add(pod, network=ROUTED)
    static = {**BRIDGE, "ipam": {"type": "isthmus", "subnet": "10.9.0.0/24"}}

    assert error_of(done)["code"] == 11
    assert "has not registered with ipamd: 127.0.0.1:" in error_of(done)["msg"]
    assert machine.add(pod, network=static).status == 0


@pytest.mark.parametrize("ipamd", [("10.30.0.0/28", "fd30::/121")], indirect=True)
def test_a_lost_block_sends_and_takes_nothing_and_is_never_given_from(
    machine: Machine, ipamd: Ipamd, wire: Namespace
) -> None:
    machine.start()
    has_blocks(machine)
    (lost, address), (other, _) = pods_of(machine, BRIDGE, 2)
    old = ip_network(f"{address}/29", strict=False)
    count_from(wire, old)
    assert lost.namespace.pings("198.51.100.2")
    assert other.namespace.pings(address)
    machine.kill()
    lose_blocks(ipamd)
    assert counted(wire) > 0

    with sending(lost, "198.51.100.2"):
        machine.start()
        is_let_back(ipamd)
        before = counted(wire)
        outcomes = [
            lost.namespace.pings("198.51.100.2"),
            other.namespace.pings(address),
            machine.host.pings(address),
            wire.pings(address),
        ]

        assert outcomes == [False] * 4
        assert counted(wire) == before
    assert len([line for line in machine.problems() if "no longer this node's" in line]) == 4
    ipamd.do("pool", "more", "10.30.1.0/24", 26)
    ipamd.do("pool", "more6", "fd30:1::/64", 122)
    has_blocks(machine)
    ((fresh, anew),) = pods_of(machine, BRIDGE, 1)
    assert ip_address(anew) not in old
    assert fresh.namespace.pings("198.51.100.2")

    machine.kill()
    ipamd.pause()
    machine.start()

    assert len(blocks(machine, "lost")) == 2
    assert not lost.namespace.pings("198.51.100.2")
    ipamd.resume()
    for pod in (lost, other):
        assert machine.delete(pod, network=BRIDGE).status == 0
    until(
        lambda: "isthmus-lost" not in machine.host.run("nft", "list", "tables"),
        "nothing of it is left",
    )
    assert blocks(machine, "lost") == []


def lose_blocks(ipamd: Ipamd) -> None:
    """Let another node have all blocks that this one, whose agent is down, thinks its own."""
    ipamd.do("settings", {"quarantine_s": 0})
    ipamd.do("fence", "n1")
    until(lambda: ipamd.do("show", "blocks") == [], "the blocks are freed", timeout=60)
    ipamd.do("take", "n2", 2)


def is_let_back(ipamd: Ipamd) -> None:
    """Wait for the end of the fence, by when the barrier is up."""
    until(lambda: ipamd.do("show", "nodes", "n1")[0]["state"] == "active", "it is let back")


@pytest.mark.parametrize("ipamd", [("10.30.0.0/28", "fd30::/121")], indirect=True)
def test_addresses_that_a_lost_store_knew_are_cut_off_before_the_fence_ends(
    machine: Machine, ipamd: Ipamd, wire: Namespace
) -> None:
    machine.start()
    has_blocks(machine)
    (pod, address), (other, _) = pods_of(machine, BRIDGE, 2)
    count_from(wire, ip_network(f"{address}/29", strict=False))
    machine.stop()
    for file in machine.config.database.parent.glob("isthmus.db*"):
        file.unlink()
    machine.start()
    until(lambda: "is known with another store" in cluster(machine)["trouble"], "it is refused")
    assert pod.namespace.pings("198.51.100.2")
    machine.kill()
    lose_blocks(ipamd)

    with sending(pod, "198.51.100.2"):
        machine.start()
        is_let_back(ipamd)
        before = counted(wire)
        outcomes = [
            pod.namespace.pings("198.51.100.2"),
            other.namespace.pings(address),
            machine.host.pings(address),
            wire.pings(address),
        ]

        assert outcomes == [False] * 4
        assert counted(wire) == before > 0
    assert len(blocks(machine, "lost")) == 2
    assert len([line for line in machine.problems() if "no longer this node's" in line]) == 4
    for one in (pod, other):
        assert machine.delete(one, network=BRIDGE).status == 0
    until(lambda: blocks(machine, "lost") == [], "nothing of it is left")


@pytest.mark.parametrize("ipamd", [("10.30.0.0/28", "fd30::/121")], indirect=True)
def test_nobody_on_the_bridge_is_told_who_has_a_lost_address(
    machine: Machine, ipamd: Ipamd
) -> None:
    # br_netfilter would show what crosses a bridge to the tables of IP, too.
    for family in ("ip", "ip6"):
        machine.host.run("sysctl", "-q", f"net.bridge.bridge-nf-call-{family}tables=0", check=False)
    machine.start()
    has_blocks(machine)
    lost = machine.pod()
    gone = addresses(machine.add(lost, network=BRIDGE))
    machine.kill()
    lose_blocks(ipamd)
    machine.start()
    is_let_back(ipamd)
    ipamd.do("pool", "more", "10.30.1.0/24", 26)
    ipamd.do("pool", "more6", "fd30:1::/64", 122)
    has_blocks(machine)
    one, two = machine.pod(), machine.pod()
    (first, second) = (addresses(machine.add(pod, network=BRIDGE)) for pod in (one, two))

    def asks(asking: Pod, addresses: tuple[str, ...]) -> list[bool]:
        asking.namespace.run("ip", "neighbour", "flush", "dev", "eth0")
        for address in addresses:
            asking.namespace.run("ip", "route", "replace", address, "dev", "eth0")
            asking.namespace.pings(address)
        return [has_neighbour(asking.namespace, address) for address in addresses]

    assert asks(one, second) == [True, True]
    assert all(has_neighbour(two.namespace, address) for address in first)
    assert asks(lost, first) == [False, False]
    assert not any(has_neighbour(one.namespace, address) for address in gone)
    assert asks(one, gone) == [False, False]
    machine.kill()  # else the table is there again at once
    machine.host.run("nft", "delete", "table", "bridge", "isthmus-lost")
    assert asks(one, gone) == [True, True]


def has_neighbour(namespace: Namespace, address: str) -> bool:
    return "lladdr" in namespace.run("ip", "neighbour", "show", "to", address)


@pytest.mark.parametrize("in_order", [True, False], ids=["restarted", "lost power"])
def test_a_quick_reboot_is_served_at_once_if_it_was_in_order(
    machine: Machine, ipamd: Ipamd, in_order: bool
) -> None:
    machine.start()
    has_blocks(machine)
    if in_order:
        machine.stop()
    else:
        machine.kill()

    def boot() -> int:
        with inside(machine.host):
            wired = wire_node(machine.config, boot="another-boot")
            blocks, talk = wired.blocks, join(wired)
            assert blocks is not None
            assert talk is not None
            asyncio.run(talk_until(talk, lambda: not blocks.unserved))
            return int(talk.describe()["refusals"] + talk.describe()["failures"])

    assert (in_child(boot) == 0) == in_order


def test_a_new_boot_serves_once_ipamd_has_confirmed_it(machine: Machine, ipamd: Ipamd) -> None:
    machine.start()
    has_blocks(machine)
    machine.stop()
    pod = machine.pod()

    def boot() -> tuple[Response, Response]:
        with inside(machine.host):
            wired = wire_node(machine.config, boot="another-boot")
            blocks, talk = wired.blocks, join(wired)
            assert blocks is not None
            assert talk is not None
            site = Site(machine, wired)
            early = site.call("ADD", pod, ROUTED)
            asyncio.run(talk_until(talk, lambda: not blocks.unserved))
            return early, site.call("ADD", pod, ROUTED)

    early, late = in_child(boot)

    assert json.loads(early.stdout)["code"] == 11
    assert json.loads(early.stdout)["msg"] == "this node was started anew, and waits for ipamd"
    assert late.status == 0


def test_a_pool_is_chosen_by_name_and_a_named_pod_comes_back_to_its_address(
    machine: Machine, ipamd: Ipamd
) -> None:
    ipamd.do("pool", "zone-b", "10.31.0.0/24", 28)
    blue = {**ROUTED, "name": "blue", "ipam": {"type": "isthmus", "pool": "zone-b"}}
    machine.start()
    has_blocks(machine)
    args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db-0"
    pod = machine.pod()
    first = machine.add(pod, network=blue, CNI_ARGS=args)
    assert error_of(first)["code"] == 11
    assert error_of(first)["msg"] == "this node has no block of pool zone-b"
    until(lambda: machine.add(pod, network=blue, CNI_ARGS=args).status == 0, "it has a block")
    (was,) = pod.addresses()
    assert machine.delete(pod, network=blue).status == 0
    pods_of(machine, blue, 2)
    again = machine.pod()

    assert addresses(machine.add(again, network=blue, CNI_ARGS=args)) == (was,)
    assert ip_address(was) in ip_network("10.31.0.0/24")
    assert ipamd.do("show", "blocks")[0]["node"] == "n1"


def test_a_network_of_another_mode_gets_no_address_of_a_pool_in_use(
    machine: Machine, ipamd: Ipamd
) -> None:
    other = {**BRIDGE, "name": "others", "bridge": "cni9"}
    machine.start()
    has_blocks(machine)
    ((pod, _),) = pods_of(machine, ROUTED, 1)
    waiting = machine.pod()

    refused = machine.add(waiting, network=other)

    assert error_of(refused)["code"] == 7
    assert error_of(refused)["msg"].startswith(
        "network others (bridge cni9) cannot have addresses of pool four: network pods (routed)"
    )
    machine.kill()
    machine.start()
    assert machine.add(waiting, network=other).status != 0
    assert machine.delete(pod, network=ROUTED).status == 0
    assert machine.add(waiting, network=other).status == 0


def test_a_drained_node_gives_back_what_is_empty_and_gets_nothing(
    machine: Machine, ipamd: Ipamd
) -> None:
    ipamd.do("settings", {"quarantine_s": 0})
    machine.start()
    has_blocks(machine)
    ((pod, _),) = pods_of(machine, {**BRIDGE, "ipam": {"type": "isthmus", "pool": "four"}}, 1)

    ipamd.do("drain", "n1", False)

    until(lambda: len(cluster(machine)["blocks"]) == 1, "the empty block is given back")
    assert blocks(machine) == []
    refused = machine.add(machine.pod(), network=BRIDGE)
    assert error_of(refused)["code"] == 11
    assert "is draining: ipamd says that this node is draining" in error_of(refused)["msg"]
    ipamd.do("drain", "n1", True)
    has_blocks(machine)
    assert machine.delete(pod, network=BRIDGE).status == 0


@pytest.mark.parametrize("network", [BRIDGE, ROUTED], ids=["bridge", "routed"])
def test_a_pod_keeps_its_address_towards_every_pool_and_loses_it_beyond(
    machine: Machine, ipamd: Ipamd, wire: Namespace, network: Mapping[str, Any]
) -> None:
    far, later, beyond = "10.30.200.5", "10.60.0.5", "198.51.100.2"
    for address in (far, later):
        wire.run("ip", "address", "add", f"{address}/32", "dev", "lo")
        machine.host.run("ip", "route", "add", f"{address}/32", "via", beyond)
    wire.run("ip", "link", "set", "lo", "up")
    machine.start()
    has_blocks(machine)
    ((pod, own),) = pods_of(machine, {**network, "ipMasq": True}, 1)

    def seen_by(address: str) -> str | None:
        return ask(pod.namespace, address, 8080)

    with Echo(wire, "wire", 8080):
        first = [seen_by(address) for address in (far, later, beyond)]
        ipamd.do("pool", "later", "10.60.0.0/16", 26)
        until(lambda: seen_by(later) == f"wire {own}", "the new pool is inside, too")
        machine.kill()
        ipamd.kill()
        machine.start()

        assert first == [f"wire {own}", "wire 198.51.100.1", "wire 198.51.100.1"]
        assert [seen_by(address) for address in (far, later, beyond)] == [
            f"wire {own}",
            f"wire {own}",
            "wire 198.51.100.1",
        ]


@pytest.fixture
def wire(machine: Machine, namespaces: Callable[[str], Namespace]) -> Namespace:
    """What is beyond the host: 198.51.100.2, with a way back to every pod."""
    wire = namespaces("wire")
    machine.host.run(
        "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", wire.name
    )
    for end, address in ((machine.host, "198.51.100.1/24"), (wire, "198.51.100.2/24")):
        end.run("ip", "address", "add", address, "dev", "eth0")
        end.run("ip", "link", "set", "eth0", "up")
    wire.run("ip", "route", "add", FOUR, "via", "198.51.100.1")
    return wire


def count_from(wire: Namespace, network: Any) -> None:
    wire.run(
        "nft",
        "add table ip seen; add counter ip seen old; "
        "add chain ip seen in { type filter hook prerouting priority -300; }; "
        f"add rule ip seen in ip saddr {network} counter name old",
    )


def counted(wire: Namespace) -> int:
    shown = json.loads(wire.run("nft", "-j", "list", "counter", "ip", "seen", "old"))
    return int(shown["nftables"][1]["counter"]["packets"])


@contextmanager
def sending(pod: Pod, address: str) -> Iterator[None]:
    """The pod goes on sending meanwhile, whatever becomes of it."""
    with subprocess.Popen(
        ["ip", "netns", "exec", pod.namespace.name, "ping", "-n", "-i", "0.01", address],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield
        finally:
            process.terminate()


async def talk_until(talk: Cluster, claim: Callable[[], Any]) -> None:
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(talk.run())
        while not claim():  # noqa: ASYNC110  of another thread's making
            await asyncio.sleep(0.02)
        running.cancel()
