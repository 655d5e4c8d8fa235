"""CHECK: everything we made, each thing by itself taken away, and nothing changed by asking."""

import copy
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_interface, ip_network

import pytest

from cni.attachment import host_name
from cni.check import check
from cni.environment import check as check_environment
from cni.errors import CNIError
from dataplane.links import PodSide
from dataplane.netns import own_identity
from tests.unit.cni.fakes import BLUE, DUAL, GREEN, WHO, Document, World
from tests.unit.cni.test_add import EVERYTHING

HOST = host_name(WHO)


def checked(world: World, conf: Document, result: Document, **more: object) -> list[str]:
    """The faults that CHECK names."""
    found = world.call("CHECK", conf | {"prevResult": result}, **more)
    if found.status == 0:
        assert found.document is None
        return []
    assert found.code == 104, found
    return [found.msg, *(found.details.split("; ") if found.details else [])]


def pod_change(world: World, **link: object) -> None:
    sides = world.kernel.pods[BLUE].interfaces
    sides["eth0"] = replace(sides["eth0"], link=replace(sides["eth0"].link, **link))


def host_change(world: World, name: str, **link: object) -> None:
    world.kernel.links[name] = replace(world.kernel.links[name], **link)


@pytest.mark.parametrize("mode", ["bridge", "routed"])
@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_what_was_just_made_is_in_order_and_stays_as_it_is(
    world: World, mode: str, version: str
) -> None:
    conf = world.conf(cniVersion=version, mode=mode, ipam=DUAL, macspoofchk=True, **EVERYTHING)
    result = world.made(conf)
    before = copy.deepcopy((world.kernel.links, world.kernel.pods, world.kernel.published))
    del world.kernel.steps[:]

    assert checked(world, conf, result) == []
    assert (world.kernel.links, world.kernel.pods, world.kernel.published) == before
    assert world.kernel.steps == []


def no_pod_side(world: World) -> None:
    del world.kernel.pods[BLUE].interfaces["eth0"]


def no_addresses(world: World) -> None:
    sides = world.kernel.pods[BLUE].interfaces
    sides["eth0"] = replace(sides["eth0"], addresses=())


def no_routes(world: World) -> None:
    sides = world.kernel.pods[BLUE].interfaces
    sides["eth0"] = replace(sides["eth0"], routes=())


def no_host_side(world: World) -> None:
    del world.kernel.links[HOST]


def no_bridge(world: World) -> None:
    del world.kernel.links["cni0"]


def no_gateway(world: World) -> None:
    world.kernel.held_addresses[world.kernel.links["cni0"].index] = []


FAULTS: list[tuple[Callable[[World], None], list[str]]] = [
    (no_pod_side, [f"interface eth0 is not in {BLUE}"]),
    (no_addresses, ["Failed to match addr 10.9.0.2/24 on interface eth0"]),
    (no_routes, ["route 0.0.0.0/0 via 10.9.0.1 is missing"]),
    (no_host_side, [f"host side {HOST} is missing"]),
    (no_bridge, ["bridge cni0 is missing"]),
    (no_gateway, ["bridge cni0 lacks gateway address 10.9.0.1/24"]),
    (lambda world: pod_change(world, up=False), ["interface eth0 is down"]),
    (lambda world: pod_change(world, mtu=9000), ["eth0 has MTU 9000, not 1500"]),
    (lambda world: pod_change(world, kind="dummy"), ["interface eth0 is a dummy, not a veth"]),
    (lambda world: pod_change(world, index=99), [f"{HOST} is not the peer of eth0"]),
    (lambda world: host_change(world, HOST, up=False), [f"{HOST} is down"]),
    (lambda world: host_change(world, HOST, master=0), [f"{HOST} is not a port of cni0"]),
    (
        lambda world: host_change(world, HOST, isolated=True),
        [f"{HOST} has not the hairpin or isolation it was given"],
    ),
    (lambda world: host_change(world, "cni0", up=False), ["bridge cni0 is down"]),
    (lambda world: host_change(world, "cni0", kind="dummy"), ["bridge cni0 is missing"]),
    (lambda world: world.kernel.published.clear(), ["nft elements of shop/c1/eth0"]),
    (lambda world: world.kernel.limits.clear(), [f"the rate limits of {HOST} are not in force"]),
]


@pytest.mark.parametrize(("spoil", "faults"), FAULTS, ids=[fault[0] for _, fault in FAULTS])
def test_each_thing_that_is_amiss_is_named(
    world: World, spoil: Callable[[World], None], faults: list[str]
) -> None:
    conf = world.conf(**EVERYTHING)
    result = world.made(conf)
    spoil(world)

    assert checked(world, conf, result) == faults


def test_a_bridge_that_should_be_promiscuous_is_looked_at(world: World) -> None:
    conf = world.conf(promiscMode=True)
    result = world.made(conf)
    host_change(world, "cni0", promiscuous=False)

    assert checked(world, conf, result) == ["bridge cni0 is not promiscuous"]


def test_in_routed_mode_gateways_and_host_routes_are_looked_at(world: World) -> None:
    conf = world.conf(mode="routed")
    result = world.made(conf)
    world.kernel.routes = {ip_network("10.9.0.2/32"): 99}
    world.kernel.held_addresses.clear()

    assert checked(world, conf, result) == [
        f"{HOST} lacks gateway address 169.254.1.1/32",
        f"host route 10.9.0.2/32 to {HOST} is missing",
    ]


def test_several_faults_are_all_named(world: World) -> None:
    conf = world.conf()
    result = world.made(conf)
    pod_change(world, up=False)
    host_change(world, HOST, up=False)

    assert checked(world, conf, result) == ["interface eth0 is down", f"{HOST} is down"]


def test_a_mac_that_a_later_plugin_gave_is_compared_with_prev_result(world: World) -> None:
    conf = world.conf()
    result = world.made(conf)
    pod_change(world, mac="02:00:00:00:00:42")

    (fault,) = checked(world, conf, result)
    result["interfaces"][2]["mac"] = "02:00:00:00:00:42"

    assert fault.startswith("Interface eth0 Mac ")
    assert fault.endswith("doesn't match container Mac: 02:00:00:00:00:42")
    assert checked(world, conf, result) == []


def test_what_other_plugins_added_is_theirs(world: World) -> None:
    conf = world.conf()
    result = world.made(conf)
    side: PodSide = world.kernel.pods[BLUE].interfaces["eth0"]
    extra = replace(side.addresses[0], address=ip_interface("172.16.0.9/24"))
    route = replace(side.routes[0], dst=ip_network("172.17.0.0/16"))
    world.kernel.pods[BLUE].interfaces["eth0"] = replace(
        side, addresses=(*side.addresses, extra), routes=(*side.routes, route)
    )
    pod_change(world, mtu=1400)

    assert checked(world, conf, result) == []


def test_a_result_without_our_interfaces_is_refused(world: World) -> None:
    conf = world.conf()
    result = world.made(conf)

    hostless = result | {"interfaces": result["interfaces"][2:], "ips": []}
    nothing = result | {"interfaces": [], "ips": []}

    assert checked(world, conf, nothing) == ["prevResult does not list interface eth0"]
    assert checked(world, conf, hostless) == [f"prevResult does not list {HOST}"]


def test_a_result_of_another_path_is_refused(world: World) -> None:
    conf = world.conf()
    result = world.made(conf)
    world.kernel.pods[GREEN] = world.kernel.pods[BLUE]

    assert checked(world, conf, result, netns=GREEN) == [
        f"prevResult's sandbox {BLUE} is not CNI_NETNS {GREEN}"
    ]


def test_another_namespace_at_the_same_path_is_found_out(world: World) -> None:
    conf = world.conf()
    result = world.made(conf)
    world.kernel.pods[BLUE].cookie = 99

    assert checked(world, conf, result) == [f"{BLUE} is another namespace than at ADD"]


def test_a_container_that_nobody_added_is_unknown(world: World) -> None:
    result = world.made()

    found = world.call("CHECK", world.conf(prevResult=result), container_id="c9")

    assert (found.code, found.msg) == (3, "no attachment shop/c9/eth0 is known")


def test_a_reservation_is_no_attachment(world: World) -> None:
    result = world.made()
    world.leases.abandon(WHO).result()

    assert world.call("CHECK", world.conf(prevResult=result)).code == 3


def test_without_prev_result_nothing_can_be_checked(world: World) -> None:
    world.made()

    found = world.call("CHECK")

    assert (found.code, found.msg) == (7, "Required prevResult missing")


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0", "0.3.1"])
def test_versions_before_check_have_none(world: World, version: str) -> None:
    found = world.call("CHECK", world.conf(cniVersion=version))

    assert (found.code, found.msg) == (1, "config version does not allow CHECK")


def test_the_hosts_own_namespace_is_refused(world: World) -> None:
    world.node = replace(world.node, namespace=own_identity())

    assert world.call("CHECK", netns="/proc/thread-self/ns/net").code == 8


def test_a_check_waits_no_longer_than_its_deadline_for_its_key(world: World) -> None:
    request = world.request("CHECK", world.conf(prevResult=world.made()))
    call = check_environment(request.environment)

    with world.node.locks.hold(WHO), pytest.raises(CNIError, match="is being worked on"):
        check(request, call, world.node, world.deadline(0))
