"""ADD against a kernel of values: what it answers, what it makes, and that it leaves no trace."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from cni import spec
from cni.add import LOOK_UP_S, add
from cni.args import Pod
from cni.attachment import host_name
from cni.environment import check
from cni.errors import CNIError
from cni.wishes import Wishes
from dataplane.links import PodSide
from dataplane.model import Bandwidth
from dataplane.netns import own_identity
from ipam.errors import NoFreeAddress
from ipam.leases import State, Wanted
from ipam.ranges import Range, RangeSet
from net.address import IPAddress
from tests.unit.cni.fakes import BLUE, DUAL, GREEN, NO_TRACE, WHO, Document, World, link
from tests.unit.ipam.cases import BOOT, SECOND

EVERYTHING: Document = {
    "ipMasq": True,
    "runtimeConfig": {
        "portMappings": [{"hostPort": 8080, "containerPort": 80}],
        "bandwidth": {
            "ingressRate": 8000000,
            "ingressBurst": 800000,
            "egressRate": 8000000,
            "egressBurst": 800000,
        },
    },
}


def test_a_bridge_attachment_lists_bridge_host_side_and_pod_side(world: World) -> None:
    result = world.made(world.conf(ipam=DUAL))

    assert result["cniVersion"] == "1.1.0"
    assert [(i["name"], i.get("sandbox")) for i in result["interfaces"]] == [
        ("cni0", None),
        (host_name(WHO), None),
        ("eth0", BLUE),
    ]
    assert all(len(interface["mac"]) == 17 for interface in result["interfaces"])
    assert result["ips"] == [
        {"interface": 2, "address": "10.9.0.2/24", "gateway": "10.9.0.1"},
        {"interface": 2, "address": "fd09::2/64", "gateway": "fd09::1"},
    ]
    assert result["routes"] == [
        {"dst": "0.0.0.0/0", "gw": "10.9.0.1"},
        {"dst": "::/0", "gw": "fd09::1"},
    ]


def test_a_routed_attachment_has_no_bridge_and_a_gateway_on_its_link(world: World) -> None:
    result = world.made(world.conf(ipam=DUAL, mode="routed"))

    assert [i["name"] for i in result["interfaces"]] == [host_name(WHO), "eth0"]
    assert result["ips"] == [
        {"interface": 1, "address": "10.9.0.2/32", "gateway": "169.254.1.1"},
        {"interface": 1, "address": "fd09::2/128", "gateway": "fe80::1"},
    ]
    assert set(world.kernel.routes) == {ip_network("10.9.0.2/32"), ip_network("fd09::2/128")}


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0"])
def test_results_before_1_0_say_the_family_and_always_dns(world: World, version: str) -> None:
    result = world.made(world.conf(cniVersion=version))

    assert result["ips"] == [
        {"version": "4", "interface": 2, "address": "10.9.0.2/24", "gateway": "10.9.0.1"}
    ]
    assert result["dns"] == {}
    assert "mtu" not in result["interfaces"][2]


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_results_before_0_3_are_by_family(world: World, version: str) -> None:
    result = world.made(world.conf(cniVersion=version, ipam=DUAL))

    assert result == {
        "cniVersion": version,
        "ip4": {
            "ip": "10.9.0.2/24",
            "gateway": "10.9.0.1",
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.9.0.1"}],
        },
        "ip6": {
            "ip": "fd09::2/64",
            "gateway": "fd09::1",
            "routes": [{"dst": "::/0", "gw": "fd09::1"}],
        },
        "dns": {},
    }


def test_no_version_is_0_1_0(world: World) -> None:
    result = world.made(world.conf(cniVersion=None))

    assert result["cniVersion"] == "0.1.0"
    assert result["ip4"]["ip"] == "10.9.0.2/24"


def test_in_a_chain_what_is_made_follows_what_there_was(world: World) -> None:
    previous = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "wg0", "mac": "02:00:00:00:00:09", "sandbox": BLUE}],
        "ips": [{"interface": 0, "address": "172.16.0.2/24"}],
        "routes": [{"dst": "172.16.0.0/16"}],
        "dns": {"nameservers": ["172.16.0.53"]},
    }

    result = world.made(world.conf(prevResult=previous))

    assert [i["name"] for i in result["interfaces"]] == ["wg0", "cni0", host_name(WHO), "eth0"]
    assert [(ip["interface"], ip["address"]) for ip in result["ips"]] == [
        (0, "172.16.0.2/24"),
        (3, "10.9.0.2/24"),
    ]
    assert result["routes"][0] == {"dst": "172.16.0.0/16"}
    assert result["dns"] == {"nameservers": ["172.16.0.53"]}


def test_dns_of_the_configuration_overrides_that_of_the_chain(world: World) -> None:
    previous = {"cniVersion": "1.1.0", "dns": {"nameservers": ["172.16.0.53"]}}

    result = world.made(world.conf(prevResult=previous, dns={"nameservers": ["10.9.0.53"]}))

    assert result["dns"] == {"nameservers": ["10.9.0.53"]}


def test_dns_comes_from_the_file_that_resolv_conf_names(world: World, tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 10.9.0.53\nsearch shop.example\n")
    ipam = {"subnet": "10.9.0.0/24", "resolvConf": str(tmp_path / "resolv.conf")}

    result = world.made(world.conf(ipam=ipam))

    assert result["dns"] == {"nameservers": ["10.9.0.53"], "search": ["shop.example"]}


def test_the_mtu_is_the_uplinks_unless_the_network_says_another(world: World) -> None:
    world.kernel.mtu = 1450

    followed = world.made()
    said = world.made(world.conf(mtu=1300), container_id="c2", netns=GREEN)

    assert {i["mtu"] for i in followed["interfaces"]} == {1450}
    assert {i["mtu"] for i in said["interfaces"][1:]} == {1300}


def test_a_mac_that_the_runtime_wants_is_given(world: World) -> None:
    result = world.made(args="MAC=02:aa:bb:cc:dd:EE;IgnoreUnknown=1")

    assert result["interfaces"][2]["mac"] == "02:aa:bb:cc:dd:ee"
    assert world.kernel.pods[BLUE].interfaces["eth0"].link.mac == "02:aa:bb:cc:dd:ee"


def test_an_address_that_the_runtime_wants_is_given(world: World) -> None:
    result = world.add(args="IP=10.9.0.77")

    assert result.addresses == ["10.9.0.77/24"]


def test_a_network_without_ipam_is_a_plain_layer_2(world: World) -> None:
    result = world.made(world.conf(ipam=None))

    assert "ips" not in result
    assert "routes" not in result
    assert world.record().addresses == ()
    assert world.kernel.forwarding == set()


def test_a_layer_2_network_has_no_result_form_before_0_3(world: World) -> None:
    found = world.add(world.conf(ipam=None, cniVersion="0.2.0"))

    assert (found.code, found.msg) == (7, "cannot convert: no valid IP addresses")
    assert world.traces() == NO_TRACE


def test_an_interface_that_is_not_to_be_used_stays_down(world: World) -> None:
    world.made(world.conf(ipam=None, disableContainerInterface=True))

    assert not world.kernel.pods[BLUE].interfaces["eth0"].link.up


def test_the_record_has_all_that_survives_a_crash(world: World) -> None:
    world.made(world.conf(**EVERYTHING))

    record = world.record()
    assert (record.boot_id, record.started_ns) == (BOOT, world.clock.ns)
    assert (record.sandbox, record.netns_cookie, record.state) == (BLUE, 11, State.HELD)
    assert [str(address) for address in record.addresses] == ["10.9.0.2/24"]
    kept = spec.decode(record.spec)
    assert kept.masquerade
    assert [mapping.host_port for mapping in kept.port_mappings] == [8080]
    assert kept.bandwidth == Bandwidth(
        ingress_rate=8000000, ingress_burst=800000, egress_rate=8000000, egress_burst=800000
    )
    assert world.store.load().records == (record,)


def test_the_rest_of_the_host_serves_the_pod(world: World) -> None:
    world.made(world.conf(ipam=DUAL, **EVERYTHING))

    assert world.kernel.forwarding == {4, 6}
    assert world.kernel.localhost == {"cni0"}
    assert list(world.kernel.limits) == [host_name(WHO)]
    assert world.kernel.published[WHO].masquerade


def test_a_bridge_that_is_no_gateway_needs_no_forwarding(world: World) -> None:
    world.made(world.conf(isGateway=False))

    assert world.kernel.forwarding == set()
    assert world.kernel.held_addresses[world.kernel.links["cni0"].index] == []


def test_the_alias_is_there_only_when_all_is_made(world: World) -> None:
    world.made(world.conf(**EVERYTHING))

    assert world.kernel.steps.index("complete") > world.kernel.steps.index("publish")
    made = world.link()
    assert made is not None
    assert made.alias.startswith("isthmus/1 bmh:cni0::7a1200/c3500/7a1200/c3500 ")


def test_an_adopted_attachment_is_as_live_as_any(world: World) -> None:
    world.made()
    world.leases.hold(replace(world.record(), netns_cookie=0)).result()
    before = world.link()

    found = world.add()

    assert found.code == 103
    assert world.link() == before


def test_a_second_add_of_a_live_attachment_is_refused_and_changes_nothing(world: World) -> None:
    first = world.made(world.conf(**EVERYTHING))
    before = world.traces(), world.record()

    second = world.add(world.conf(**EVERYTHING))

    assert second.code == 103
    assert second.msg == (
        f'container veth name ("eth0") peer provided ("{host_name(WHO)}") already exists'
    )
    assert (world.traces(), world.record()) == before
    assert world.kernel.published[WHO].addresses[0] == world.record().addresses[0]
    assert world.call("CHECK", world.conf(**EVERYTHING, prevResult=first)).status == 0


def test_a_foreign_interface_of_the_name_is_refused_and_left_alone(world: World) -> None:
    foreign = PodSide(link("eth0", 77), (), ())
    world.kernel.pods[BLUE].interfaces["eth0"] = foreign

    found = world.add()

    assert found.code == 103
    assert world.kernel.pods[BLUE].interfaces == {"eth0": foreign}
    assert world.record().state is State.RESERVED


def test_a_pair_that_no_record_tells_of_is_refused_and_left_alone(world: World) -> None:
    world.made()
    there = world.traces()
    world.leases.release(WHO).result()

    found = world.add()

    assert found.code == 103
    assert world.traces() == there
    assert world.record().state is State.RESERVED


def test_an_add_in_another_sandbox_replaces_what_a_dead_one_left(world: World) -> None:
    world.made(world.conf(**EVERYTHING))

    result = world.made(netns=GREEN)

    assert result["interfaces"][2]["sandbox"] == GREEN
    assert world.kernel.pods[BLUE].interfaces == {}
    assert world.record().netns_cookie == 22
    assert world.kernel.published == {}
    assert world.kernel.limits == {}


def test_an_add_takes_the_place_of_a_pair_that_has_gone(world: World) -> None:
    first = world.add()
    world.kernel.detach(host_name(WHO))

    second = world.add()

    assert second.addresses == first.addresses
    assert world.link() is not None


def test_a_network_that_lost_its_translation_is_published_no_more(world: World) -> None:
    world.made(world.conf(**EVERYTHING))
    world.kernel.detach(host_name(WHO))

    world.made()

    assert world.kernel.published == {}


def test_several_interfaces_of_one_container_are_several_attachments(world: World) -> None:
    first, second = world.add(), world.add(ifname="net1")

    assert first.addresses != second.addresses
    assert set(world.kernel.pods[BLUE].interfaces) == {"eth0", "net1"}


STEPS = [
    "forget_flows",
    "attach",
    "shape",
    "enable_forwarding",
    "allow_localhost_mappings",
    "publish",
    "complete",
    "announce",
]


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_failed_add_leaves_no_trace_and_its_address_to_the_next(
    world: World, step: str, before: bool
) -> None:
    full = world.conf(ipam={"subnet": "10.9.0.0/30"}, **EVERYTHING)
    used = world.add(full, container_id="former")
    world.call("DEL", full, container_id="former")
    world.kernel.broken, world.kernel.before = step, before

    failed = world.add(full)

    assert failed.code == 102
    assert step in failed.msg
    assert world.traces() == NO_TRACE
    assert world.record().state is State.RESERVED
    assert world.leases.check() == []
    again = world.add(full)
    assert again.addresses == used.addresses == ["10.9.0.2/30"]


def test_an_add_whose_lease_cannot_be_written_leaves_no_trace(world: World) -> None:
    world.store.full = True

    failed = world.add(world.conf(**EVERYTHING))

    assert failed.code == 11
    assert "disk full" in failed.msg
    assert world.traces() == NO_TRACE


def test_an_address_used_before_is_announced_and_its_flows_forgotten(world: World) -> None:
    conf = world.conf(ipam={"subnet": "10.9.0.0/30"})
    world.made(conf, container_id="former")
    world.call("DEL", conf, container_id="former")

    world.made(conf)

    assert world.kernel.forgotten == [ip_address("10.9.0.2")]
    assert world.kernel.announced == [ip_address("10.9.0.2")]


def test_a_fresh_address_is_not_announced(world: World) -> None:
    world.made()

    assert world.kernel.announced == []


def test_when_no_address_is_free_the_range_is_named(world: World) -> None:
    conf = world.conf(ipam={"subnet": "10.9.0.0/30"})
    world.made(conf, container_id="former", netns=GREEN)

    found = world.add(conf)

    assert found.code == 100
    assert "10.9.0.0/30" in found.msg
    assert world.traces() | {"links": [], "pods": []} == NO_TRACE


def test_a_held_address_is_refused_by_its_holders_name(world: World) -> None:
    world.made(container_id="former", netns=GREEN)

    found = world.add(args="IP=10.9.0.2")

    assert found.code == 101
    assert found.msg == "requested address 10.9.0.2 is held by shop/former/eth0"


def test_a_sandbox_that_is_not_there_is_named(world: World) -> None:
    found = world.add(netns="/run/netns/no-such-red")

    assert found.code == 4
    assert found.msg == 'failed to open netns "/run/netns/no-such-red": No such file'
    assert world.leases.records() == []


def test_the_hosts_own_namespace_is_refused_before_any_work(world: World) -> None:
    world.node = replace(world.node, namespace=own_identity())

    found = world.add(netns="/proc/thread-self/ns/net")

    assert found.code == 8
    assert world.kernel.steps == []


def test_an_add_that_a_later_spooled_deletion_overtook_is_not_begun(world: World) -> None:
    late = world.request("DEL", world.conf(), started_ns=world.clock.ns + SECOND)
    world.node.spool.add(late)

    found = world.add()

    assert (found.code, found.msg, found.details) == (
        11,
        "superseded by a later DEL",
        "shop/c1/eth0",
    )
    assert world.node.spool.waiting() == 1


def test_an_earlier_spooled_deletion_of_the_key_is_done_first(world: World) -> None:
    world.made(world.conf(**EVERYTHING))
    world.node.spool.add(world.request("DEL", world.conf()))

    found = world.add()

    assert found.status == 0
    assert world.node.spool.waiting() == 0
    assert world.kernel.published == {}


def test_spooled_deletions_of_others_wait_for_their_turn(world: World) -> None:
    world.node.spool.add(world.request("DEL", world.conf(), container_id="other"))

    world.made()

    assert world.node.spool.waiting() == 1


def test_an_add_waits_no_longer_than_its_deadline_for_its_key(world: World) -> None:
    request = world.request("ADD", world.conf())

    with world.node.locks.hold(WHO), pytest.raises(CNIError) as caught:
        add(request, check(request.environment), world.node, world.deadline(0))

    assert (caught.value.code, caught.value.msg) == (11, "shop/c1/eth0 is being worked on")


def test_an_add_that_is_out_of_time_is_undone(world: World) -> None:
    request = world.request("ADD", world.conf())

    with pytest.raises(CNIError, match="out of time: before the lease is written") as caught:
        add(request, check(request.environment), world.node, world.deadline(0))

    assert caught.value.code == 11
    assert world.traces() == NO_TRACE


class FakeBlocks:
    """One block; remembers how it was asked."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def wanted(
        self,
        pools: tuple[str, ...],
        *,
        bridge: str,
        network: str,
        pod: str = "",
        requested: tuple[IPAddress, ...] = (),
    ) -> Wanted:
        self.asked.append((pools, bridge, network, pod, requested))
        return Wanted(
            range_sets=(RangeSet((Range.of("10.7.0.0/30"),)),),
            requested=requested,
            excluded=(ip_network("10.7.0.99"),),
        )

    def exhaustion(self, pools: tuple[str, ...], error: NoFreeAddress) -> NoFreeAddress:
        return NoFreeAddress(f"{error} ({', '.join(pools)} refused)")


def test_without_ranges_an_address_is_of_the_nodes_blocks(world: World) -> None:
    blocks = FakeBlocks()
    world.node = replace(world.node, blocks=blocks)
    conf = world.conf(ipam={"type": "isthmus", "pool": "blue"})
    args = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=db-0;IP=10.7.0.2"

    made = world.made(conf, args=args)
    stored = spec.of(world.record()).bridge
    full = world.add(conf, container_id="c2", netns=GREEN)
    world.call("DEL", conf)
    barred = world.add({**conf, "ipam": {**conf["ipam"], "reservations": ["10.7.0.2"]}})

    assert made["ips"][0]["address"] == "10.7.0.2/30"
    assert stored is not None
    assert stored.shared
    assert blocks.asked[:2] == [
        (("blue",), "cni0", "shop", "shop/default/db-0/eth0", (ip_address("10.7.0.2"),)),
        (("blue",), "cni0", "shop", "", ()),
    ]
    assert (full.code, full.msg) == (
        100,
        "no free address in 10.7.0.0/30: all 1 are held (blue refused)",
    )
    assert barred.code == 100


def test_without_ranges_and_without_ipamd_there_is_nothing_to_give(world: World) -> None:
    found = world.add(world.conf(ipam={"type": "isthmus"}))

    assert (found.code, found.msg) == (7, "no ranges in ipam")
    assert "no ipamd is configured" in found.details
    assert world.traces() == NO_TRACE


class Asked:
    """Kubernetes, as far as an ADD knows it."""

    def __init__(self, wishes: Wishes) -> None:
        self.asked: list[tuple[str, bool]] = []
        self._wishes = wishes

    def wishes(self, pod: Pod, *, within_s: float) -> Wishes:
        self.asked.append((f"{pod.namespace}/{pod.name}", 0 < within_s <= LOOK_UP_S))
        return self._wishes


POD = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"


def test_a_pods_annotations_are_asked_for_and_honoured(world: World) -> None:
    kubernetes = Asked(Wishes(addresses=(ip_address("10.9.0.7"),), mac="02:00:00:00:00:07"))
    world.node = replace(world.node, kubernetes=kubernetes)

    result = world.made(args=POD)

    assert result["ips"][0]["address"] == "10.9.0.7/24"
    assert result["interfaces"][2]["mac"] == "02:00:00:00:00:07"
    assert kubernetes.asked == [("shop/web", True)]


def test_another_interface_of_a_pod_and_what_is_no_pod_are_not_asked_for(world: World) -> None:
    kubernetes = Asked(Wishes(addresses=(ip_address("10.9.0.7"),)))
    world.node = replace(world.node, kubernetes=kubernetes)

    world.made(args=POD, ifname="net1")
    world.made()

    assert kubernetes.asked == []
