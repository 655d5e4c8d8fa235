"""An agent that routes and translates, over an ipamd, with both of them ending at times.

Real packets between hosts: test_routing, test_masquerade, and the demonstration of a cluster.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataplane import rtnl
from dataplane.block_routes import parse_route
from dataplane.tunnel import parse_tunnel
from tests.kernel.agents import Machine, addresses, until
from tests.kernel.routed_site import heard, listening
from tests.kernel.test_cluster_agent import BRIDGE, FOUR, ROUTED, SIX, Ipamd, has_blocks

pytestmark = pytest.mark.kernel

FAR, NEAR = "203.0.113.7", "192.0.2.7"


@pytest.fixture
def ipamd(machine: Machine, tmp_path: Path) -> Iterator[Ipamd]:
    """An ipamd with a pool of each family, and a machine with an uplink that routes by it."""
    ipamd = Ipamd(machine, tmp_path / "ipamd")
    host = machine.host
    try:
        ipamd.do("pool", "four", FOUR, 29)
        ipamd.do("pool", "six", SIX, 122)
        host.run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "far")
        host.run("ip", "address", "add", "192.0.2.1/24", "dev", "uplink")
        for link in ("far", "uplink"):
            host.run("ip", "link", "set", link, "up")
        host.run("ip", "route", "add", "default", "via", "192.0.2.254")
        machine.settings = {"ipamd": ipamd.settings(), "routing": {}, "masquerade": {}}
        yield ipamd
    finally:
        ipamd.kill()


def routing(machine: Machine) -> dict[str, Any]:
    return dict(machine.ask("status")["status"]["mesh"]["routing"])


def routes(machine: Machine) -> list[str]:
    """Ours of both families, as ip shows them."""
    return sorted(
        line.strip()
        for version in ("-4", "-6")
        for line in machine.host.run("ip", version, "route", "show", "proto", "177").splitlines()
    )


def is_ours(kind: int, payload: memoryview) -> bool:
    """Of one of our routes or links; addresses of others end their detection meanwhile."""
    if kind in (rtnl.NEWROUTE, rtnl.DELROUTE):
        return parse_route(payload) is not None
    return kind in (rtnl.NEWLINK, rtnl.DELLINK) and parse_tunnel(payload).ours


def ranges(machine: Machine, name: str) -> str:
    return machine.host.run("nft", "list", "set", "inet", "isthmus-masquerade", name, check=False)


def test_routes_and_translation_follow_the_cluster(machine: Machine, ipamd: Ipamd) -> None:
    machine.start()
    has_blocks(machine)
    ipamd.do("take", "n2", 1, FAR)
    until(lambda: routing(machine)["tunnelled"] == 2, "n2 is reached")
    ipamd.do("take", "n3", 1, NEAR)
    until(lambda: routing(machine)["direct"] == 1, "n3 is reached")
    pod = machine.pod()
    machine.add(pod, network=ROUTED)

    link = json.loads(pod.namespace.run("ip", "-j", "link", "show", "eth0"))[0]
    assert link["mtu"] == 1450
    assert machine.problems() == []
    assert FOUR.removesuffix("/16") in ranges(machine, "pods4")
    assert all(address in ranges(machine, "kept4") for address in ("192.0.2.1", FAR, NEAR))


def test_pods_on_a_bridge_are_there_though_their_block_leads_nowhere(
    machine: Machine, ipamd: Ipamd
) -> None:
    machine.start()
    has_blocks(machine)
    until(lambda: len(routes(machine)) == 2, "its blocks lead nowhere")
    pod = machine.pod()
    four, six = addresses(machine.add(pod, network=BRIDGE))

    assert all("unreachable" in route for route in routes(machine))
    assert machine.host.pings(four)
    assert machine.host.pings(six)
    assert pod.namespace.pings("192.0.2.1")
    assert machine.problems() == []


def test_neither_a_killed_agent_nor_a_dead_ipamd_changes_a_route(
    machine: Machine, ipamd: Ipamd
) -> None:
    machine.start()
    has_blocks(machine)
    ipamd.do("take", "n2", 1, FAR)
    until(lambda: routing(machine)["tunnelled"] == 2, "n2 is reached")
    before = routes(machine)
    with listening(machine.host) as news:
        machine.kill()
        machine.start()
        until(lambda: bool(routing(machine)["in_sync"]), "the table is streamed again")
        ipamd.pause()
        machine.kill()
        machine.start()
        remembered = routing(machine)
        told = [(kind, payload) for kind, payload in heard(news) if is_ours(kind, payload)]
        ipamd.resume()

    assert routes(machine) == before
    assert told == []
    assert not remembered["in_sync"]
    assert remembered["tunnelled"] in (0, 2)  # the table is written behind


def test_what_somebody_deletes_is_back_at_once(machine: Machine, ipamd: Ipamd) -> None:
    machine.settings = {**machine.settings, "reconcile_interval_s": 3600}
    machine.start()
    has_blocks(machine)
    ipamd.do("take", "n2", 1, FAR)
    until(lambda: routing(machine)["tunnelled"] == 2, "n2 is reached")
    before = routes(machine)
    machine.host.run("ip", "link", "del", "vxisthmus4")
    until(lambda: routes(machine) == before, "tunnel and routes are back")
    machine.host.run("nft", "delete", "table", "inet", "isthmus-masquerade")
    until(lambda: FAR in ranges(machine, "kept4"), "the translation is back")


def test_translation_is_followed_in_the_file_and_a_bad_one_is_named(
    machine: Machine, ipamd: Ipamd
) -> None:
    machine.start()
    has_blocks(machine)
    until(lambda: "192.0.2.1" in ranges(machine, "kept4"), "it is made")
    file = machine.state / "agent.toml"
    good = file.read_text()
    file.write_text(
        good.replace("[masquerade]\n", '[masquerade]\nnon_masquerade_cidrs = ["9.0.0.0/8"]\n')
    )
    until(lambda: "9.0.0.0/8" in ranges(machine, "kept4"), "it is followed")
    file.write_text(good.replace("[masquerade]\n", '[masquerade]\nnon_masquerade_cidrs = ["9"]\n'))
    until(lambda: any("is not used" in line for line in machine.problems()), "it is named")
    kept = "9.0.0.0/8" in ranges(machine, "kept4")
    file.write_text(good.replace("[masquerade]\n", ""))
    until(lambda: not ranges(machine, "kept4"), "it is gone")

    assert kept
    assert machine.problems() == []


def test_turned_off_it_takes_its_routes_away(machine: Machine, ipamd: Ipamd) -> None:
    machine.start()
    has_blocks(machine)
    ipamd.do("take", "n2", 1, FAR)
    until(lambda: routing(machine)["tunnelled"] == 2, "n2 is reached")
    machine.stop()
    left = routes(machine)
    machine.settings = {"ipamd": machine.settings["ipamd"]}
    machine.start()

    assert len(left) == 4
    assert routes(machine) == []
    assert not machine.host.succeeds("ip", "link", "show", "vxisthmus4")
    until(lambda: not ranges(machine, "kept4"), "the translation is gone")
