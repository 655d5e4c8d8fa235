"""The plan of one attachment, whole, and the alias from which it can be found again."""

import json
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni import attachment, spec
from cni.capabilities import PortMapping, Protocol
from cni.config import NetConf, parse
from cni.environment import Call, Verb
from cni.errors import CNIError
from cni.result import DNS, Interface, IPConfig, Result
from cni.spec import BridgeSpec, Delegate, Spec
from dataplane.model import Bandwidth, Bridge, BridgePort, Route, Sandbox, Veth
from ipam.leases import Attachment, Lease, Record, State

WHO = Attachment("shop", "c1", "eth0")
HOST = attachment.host_name(WHO)
IP4 = IPConfig(address=ip_interface("10.9.0.2/24"), gateway=ip_address("10.9.0.1"))
IP6 = IPConfig(address=ip_interface("fd09::2/64"), gateway=ip_address("fd09::1"))
DEFAULT4 = Route(dst=ip_network("0.0.0.0/0"), via=ip_address("10.9.0.1"))
DEFAULT6 = Route(dst=ip_network("::/0"), via=ip_address("fd09::1"))
LINK4 = Route(dst=ip_network("169.254.1.1/32"))
ROUTED4 = Route(dst=ip_network("0.0.0.0/0"), via=ip_address("169.254.1.1"))
ROUTED6 = Route(dst=ip_network("::/0"), via=ip_address("fe80::1"))
MAC = "02:aa:bb:cc:dd:ee"


def conf(args: str = "", **keys: object) -> NetConf:
    """The network as a runtime writes it; its ranges do not matter to a plan."""
    usual = {"cniVersion": "1.1.0", "name": "shop", "ipam": {"subnet": "10.9.0.0/24"}}
    call = Call(command=Verb.ADD, container_id="c1", netns="/n", ifname="eth0", args=args)
    return parse(json.dumps(usual | keys).encode(), call)


def design(
    ips: Sequence[IPConfig] = (IP4,),
    routes: tuple[Route, ...] = (),
    *,
    args: str = "",
    uplink_mtu: int = 1500,
    **keys: object,
) -> Spec:
    given = Result(ips=tuple(ips), routes=routes)
    return attachment.design(WHO, conf(args, **keys), given, uplink_mtu=uplink_mtu)


def plan(*ips: IPConfig, **keys: object) -> Sandbox:
    return attachment.plan(WHO, design(ips, args=f"MAC={MAC}", **keys), started_ns=7, seed="m")


def veth(flags: str, addresses: str, mtu: int = 1500) -> Veth:
    return Veth(
        host_name=HOST,
        host_mac=attachment.plan(WHO, Spec(), started_ns=0).veth.host_mac,
        pod_name="eth0",
        pod_mac=MAC,
        mtu=mtu,
        alias=f"isthmus/1 {flags} 7 shop c1 eth0 {addresses}",
    )


def cni0(*addresses: str, **more: object) -> Bridge:
    made = Bridge(
        name="cni0",
        mac="02:d6:4a:9d:62:3b",
        mtu=1500,
        addresses=tuple(map(ip_interface, addresses)),
    )
    return replace(made, **({"mac": plan(IP4).bridge.mac} | more))  # type: ignore[union-attr,arg-type]


def test_bridge_mode_with_ipv4() -> None:
    assert plan(IP4) == Sandbox(
        veth=veth("b:cni0", "10.9.0.2/24"),
        bridge=cni0("10.9.0.1/24"),
        addresses=(ip_interface("10.9.0.2/24"),),
        pod_routes=(DEFAULT4,),
    )


def test_bridge_mode_with_ipv6() -> None:
    assert plan(IP6) == Sandbox(
        veth=veth("b:cni0", "fd09::2/64"),
        bridge=cni0("fd09::1/64"),
        addresses=(ip_interface("fd09::2/64"),),
        pod_routes=(DEFAULT6,),
    )


def test_bridge_mode_with_both_families() -> None:
    assert plan(IP6, IP4) == Sandbox(
        veth=veth("b:cni0", "fd09::2/64,10.9.0.2/24"),
        bridge=cni0("10.9.0.1/24", "fd09::1/64"),
        addresses=(ip_interface("fd09::2/64"), ip_interface("10.9.0.2/24")),
        pod_routes=(DEFAULT4, DEFAULT6),
    )


def test_routed_mode_with_ipv4() -> None:
    assert plan(IP4, mode="routed") == Sandbox(
        veth=veth("r", "10.9.0.2/24"),
        addresses=(ip_interface("10.9.0.2/32"),),
        pod_routes=(LINK4, ROUTED4),
        host_addresses=(ip_interface("169.254.1.1/32"),),
        host_routes=(ip_network("10.9.0.2/32"),),
    )


def test_routed_mode_with_ipv6() -> None:
    assert plan(IP6, mode="routed") == Sandbox(
        veth=veth("r", "fd09::2/64"),
        addresses=(ip_interface("fd09::2/128"),),
        pod_routes=(ROUTED6,),
        host_addresses=(ip_interface("fe80::1/64"),),
        host_routes=(ip_network("fd09::2/128"),),
    )


def test_routed_mode_with_both_families() -> None:
    assert plan(IP4, IP6, mode="routed") == Sandbox(
        veth=veth("r", "10.9.0.2/24,fd09::2/64"),
        addresses=(ip_interface("10.9.0.2/32"), ip_interface("fd09::2/128")),
        pod_routes=(LINK4, ROUTED4, ROUTED6),
        host_addresses=(ip_interface("169.254.1.1/32"), ip_interface("fe80::1/64")),
        host_routes=(ip_network("10.9.0.2/32"), ip_network("fd09::2/128")),
    )


def test_without_addresses_there_are_no_routes_either() -> None:
    made = plan(ipam=None)

    assert (made.addresses, made.pod_routes, made.veth.alias) == (
        (),
        (),
        "isthmus/1 b:cni0 7 shop c1 eth0 -",
    )
    assert made.bridge == cni0()


def test_every_key_of_the_bridge_reaches_the_plan() -> None:
    made = plan(
        IP4,
        bridge="br7",
        mtu=1400,
        promiscMode=True,
        forceAddress=True,
        portIsolation=True,
        vlan=7,
        preserveDefaultVlan=False,
        enabledad=True,
    )

    assert made.port == BridgePort(isolated=True, vlan=7, preserve_default_vlan=False)
    assert made.bridge is not None
    assert made.bridge == cni0(
        "10.9.0.1/24",
        name="br7",
        mac=made.bridge.mac,
        mtu=1400,
        force_address=True,
        promiscuous=True,
        vlan_filtering=True,
    )
    assert (made.veth.mtu, made.dad) == (1400, True)


def test_a_foreign_gateway_is_told_but_not_used_where_there_is_none_on_the_link() -> None:
    elsewhere = Route(dst=ip_network("10.7.0.0/16"), via=ip_address("10.9.0.1"))
    made = design(
        (IP4,), (elsewhere,), mode="routed", ipam={"type": "static"}, isDefaultGateway=True
    )

    assert [ip.gateway for ip in made.ips] == [ip_address("10.9.0.1")]
    assert made.routes == (
        Route(dst=ip_network("10.7.0.0/16"), via=ip_address("169.254.1.1")),
        ROUTED4,
    )


def test_a_port_of_the_host_needs_hairpin_unless_the_bridge_reflects_anyhow() -> None:
    ports = {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}
    plain = plan(IP4, runtimeConfig=ports)
    promiscuous = plan(IP4, runtimeConfig=ports, promiscMode=True)

    assert plain.port == BridgePort(hairpin=True)
    assert promiscuous.port == BridgePort()


def test_hairpin_and_a_trunk_reach_the_port() -> None:
    made = plan(IP4, hairpinMode=True, vlanTrunk=[{"minID": 3, "maxID": 5}, {"id": 9}])

    assert made.port == BridgePort(hairpin=True, trunk=((3, 5), (9, 9)))
    assert made.bridge is not None
    assert made.bridge.vlan_filtering


def test_what_only_a_bridge_has_is_idle_in_routed_mode() -> None:
    made = plan(IP4, mode="routed", hairpinMode=True, vlan=7)

    assert (made.port, made.bridge) == (BridgePort(), None)


def test_a_disabled_interface_stays_down() -> None:
    assert not plan(ipam=None, disableContainerInterface=True).enabled


def test_the_uplinks_mtu_is_used_where_none_is_said() -> None:
    assert design(uplink_mtu=1450).mtu == 1450
    assert design(uplink_mtu=1450, mtu=1300).mtu == 1300
    assert design(uplink_mtu=0).mtu == 0


def test_a_gateway_that_ipam_does_not_name_is_the_first_of_the_subnet() -> None:
    unnamed = replace(IP4, gateway=None)

    assert design([unnamed]).ips == (IP4,)
    assert design([unnamed], isGateway=False).ips == (unnamed,)


def test_a_bridge_without_gateway_has_no_addresses() -> None:
    made = plan(IP4, isGateway=False)

    assert made.bridge == cni0()
    assert made.pod_routes == ()


def test_a_default_route_can_be_asked_for_and_refused() -> None:
    assert design(isDefaultGateway=True).routes == (DEFAULT4,)
    assert design(isDefaultGateway=False).routes == ()


def test_configured_routes_stand_in_for_the_default_one() -> None:
    keys = {"subnet": "10.9.0.0/24", "routes": [{"dst": "192.168.0.0/16"}]}
    given = (Route(dst=ip_network("192.168.0.0/16")),)

    assert design(routes=given, ipam=keys).routes == (
        Route(dst=ip_network("192.168.0.0/16"), via=ip_address("10.9.0.1")),
    )


def test_a_default_route_that_is_there_is_not_added_again() -> None:
    elsewhere = Route(dst=ip_network("0.0.0.0/0"), via=ip_address("10.9.0.254"))

    assert design(routes=(elsewhere,), isDefaultGateway=True).routes == (elsewhere,)


def test_routes_keep_all_that_is_said_of_them() -> None:
    said = Route(
        dst=ip_network("192.168.0.0/16"),
        via=ip_address("10.9.0.254"),
        mtu=1400,
        advmss=1300,
        priority=7,
        table=100,
    )
    on_link = Route(dst=ip_network("192.168.1.0/24"), scope=253)

    assert design(routes=(said, on_link), isDefaultGateway=False).routes == (said, on_link)


def test_of_two_gateways_of_a_family_the_first_has_the_default_route() -> None:
    other = IPConfig(address=ip_interface("10.8.0.2/24"), gateway=ip_address("10.8.0.1"))

    assert design([IP4, other]).routes == (DEFAULT4,)


def test_names_and_macs_come_from_the_key_alone() -> None:
    again, other = (
        attachment.plan(who, design(), started_ns=9)
        for who in (WHO, replace(WHO, container_id="c2"))
    )

    assert again.veth.host_name == HOST
    assert len(HOST) == 15
    assert other.veth.host_name != HOST
    assert other.veth.host_mac != again.veth.host_mac


def test_keys_that_join_to_the_same_text_have_different_names() -> None:
    assert attachment.host_name(Attachment("a", "bc", "d")) != attachment.host_name(
        Attachment("ab", "c", "d")
    )


def test_macs_are_of_single_stations_and_local() -> None:
    made = plan(IP4)

    assert made.bridge is not None
    for mac in (made.veth.host_mac, design().pod_mac, made.bridge.mac):
        assert int(mac[:2], 16) & 3 == 2


def test_an_address_keeps_its_mac_from_holder_to_holder() -> None:
    former, later = (
        attachment.design(replace(WHO, container_id=name), conf(), Result(ips=(IP4,)))
        for name in ("c1", "c2")
    )

    assert former.pod_mac == later.pod_mac


def test_bridges_of_two_machines_have_different_macs() -> None:
    one, other = (attachment.bridge(design(), seed=seed) for seed in ("a", "b"))

    assert one is not None
    assert other is not None
    assert one.mac != other.mac


def test_the_result_lists_what_was_made() -> None:
    spec_ = design(args=f"MAC={MAC}")

    found = attachment.result(
        WHO, spec_, sandbox="/n", bridge_mac="02:00:00:00:00:0b", dns=DNS(domain="shop.example")
    )

    assert found == Result(
        interfaces=(
            Interface(name="cni0", mac="02:00:00:00:00:0b", mtu=1500),
            Interface(name=HOST, mac=veth("b", "").host_mac, mtu=1500),
            Interface(name="eth0", mac=MAC, mtu=1500, sandbox="/n"),
        ),
        ips=(replace(IP4, interface=2),),
        routes=(DEFAULT4,),
        dns=DNS(domain="shop.example"),
    )


def test_an_ipam_result_has_neither_interfaces_nor_indices() -> None:
    lease = Lease(ip_interface("10.9.0.2/24"), ip_address("10.9.0.1"), reused=False)

    assert attachment.ipam_result([lease], (DEFAULT4,), DNS()) == Result(
        ips=(IP4,), routes=(DEFAULT4,)
    )


def test_what_nftables_gets_is_that_of_the_spec() -> None:
    what = design(ipMasq=True, macspoofchk=True, mode="routed")
    record = Record(who=WHO, boot_id="b", started_ns=7, sandbox="/n", netns_cookie=1)

    found = attachment.published(record, what)

    assert (found.who, found.started_ns, found.host_name) == (WHO, 7, HOST)
    assert (found.masquerade, found.routed, found.mac_spoof_check) == (True, True, True)
    assert found.addresses == (ip_interface("10.9.0.2/24"),)
    assert found.subnets == (ip_network("10.9.0.0/24"),)
    assert found.pod_mac == what.pod_mac


def test_a_pod_of_the_cluster_keeps_its_address_towards_all_pools_and_no_other_does() -> None:
    pools = ip_network("10.9.0.0/16"), ip_network("fd00::/48")
    record = Record(who=WHO, boot_id="b", started_ns=7, sandbox="/n", netns_cookie=1)

    ours = attachment.published(record, design(ipMasq=True), pools)
    other = attachment.published(record, design(ipMasq=True), pools[1:])

    assert ours.subnets == (ip_network("10.9.0.0/24"), *pools)
    assert other.subnets == (ip_network("10.9.0.0/24"),)


NAMES = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,90}", fullmatch=True)
KEYS = st.builds(
    Attachment, NAMES, NAMES, st.text("aé0-_@#", min_size=1, max_size=7).filter(lambda t: t != "#")
)
INTERFACES = st.builds(
    lambda address, prefix: ip_interface(f"{address}/{prefix}"),
    st.ip_addresses(v=4),
    st.integers(0, 32),
) | st.builds(
    lambda address, prefix: ip_interface(f"{address}/{prefix}"),
    st.ip_addresses(v=6),
    st.integers(0, 128),
)
MAPPINGS = st.builds(
    PortMapping,
    host_port=st.integers(1, 65535),
    container_port=st.integers(1, 65535),
    protocol=st.sampled_from(Protocol),
    host_ip=st.none() | st.ip_addresses(),
)
NUMBERS = st.integers(0, (1 << 64) - 1)
LIMITS = st.builds(
    Bandwidth,
    ingress_rate=NUMBERS,
    ingress_burst=NUMBERS,
    egress_rate=NUMBERS,
    egress_burst=NUMBERS,
)


@given(
    who=KEYS,
    started=st.integers(0, 1 << 63),
    interfaces=st.lists(INTERFACES, max_size=2),
    mappings=st.lists(MAPPINGS, max_size=12),
    masquerade=st.booleans(),
    guarded=st.booleans(),
    bridge=st.none() | st.from_regex(r"[a-z0-9_.\-]{1,15}", fullmatch=True),
    port=st.builds(BridgePort, hairpin=st.booleans(), isolated=st.booleans()),
    limits=st.none() | LIMITS,
)
def test_an_alias_gives_back_its_record(
    who: Attachment,
    started: int,
    interfaces: list[object],
    mappings: list[PortMapping],
    masquerade: bool,
    guarded: bool,
    bridge: str | None,
    port: BridgePort,
    limits: Bandwidth | None,
) -> None:
    what = Spec(
        bridge=BridgeSpec(name=bridge) if bridge else None,
        port=port,
        pod_mac=MAC if guarded else "",
        mac_spoof_check=guarded,
        ips=tuple(IPConfig(address=address) for address in interfaces),  # type: ignore[arg-type]
        masquerade=masquerade,
        port_mappings=tuple(mappings),
        bandwidth=limits,
    )
    text = attachment.alias(who, what, started_ns=started)

    found = attachment.record_of_alias(text, boot_id="b")

    assert len(text.encode()) <= 255
    assert found is not None
    assert (found.addresses, found.started_ns, found.boot_id) == (tuple(interfaces), started, "b")
    assert found.state is State.HELD
    kept = spec.decode(found.spec)
    assert (kept.bridge, kept.port, kept.masquerade) == (what.bridge, port, masquerade)
    assert (kept.mac_spoof_check, kept.pod_mac) == (guarded, what.pod_mac)
    assert kept.bandwidth in (None, limits)
    if found.who == who:
        assert kept.port_mappings in ((), tuple(mappings))
    else:
        assert attachment.host_name(found.who) == attachment.host_name(who)
        assert kept.port_mappings == ()


def test_port_mappings_that_do_not_fit_are_left_out_of_the_alias() -> None:
    many = tuple(PortMapping(host_port=8000 + n, container_port=80) for n in range(40))
    what = replace(design(), port_mappings=many)

    text = attachment.alias(WHO, what, started_ns=7)

    assert text == "isthmus/1 b:cni0 7 shop c1 eth0 10.9.0.2/24"


def test_rates_are_in_the_alias_where_there_is_room() -> None:
    limits = Bandwidth(ingress_rate=8_000_000, ingress_burst=800_000, egress_rate=1, egress_burst=9)
    what = replace(design(), bandwidth=limits)

    text = attachment.alias(WHO, what, started_ns=7)
    crowded = attachment.alias(replace(WHO, container_id="c" * 205), what, started_ns=7)
    found = attachment.record_of_alias(text, boot_id="b")
    without = attachment.record_of_alias(crowded, boot_id="b")

    assert text == "isthmus/1 b:cni0::7a1200/c3500/1/9 7 shop c1 eth0 10.9.0.2/24"
    assert found is not None
    assert spec.decode(found.spec).bandwidth == limits
    assert without is not None
    assert without.who.container_id == "c" * 205
    assert spec.decode(without.spec).bandwidth is None


def test_a_key_too_long_for_the_alias_is_its_digest() -> None:
    long = Attachment("n" * 120, "c" * 130, "eth0")

    text = attachment.alias(long, design(), started_ns=7)
    found = attachment.record_of_alias(text, boot_id="b")

    assert len(text) < 120
    assert found is not None
    assert found.addresses == (IP4.address,)
    assert found.who.network == "#"
    assert attachment.host_name(found.who) == attachment.host_name(long)


def test_more_addresses_than_an_alias_holds_are_refused() -> None:
    many = tuple(
        IPConfig(address=ip_interface(f"fd09:1111:2222:3333:4444:5555:6666:{n:x}/64"))
        for n in range(0x1000, 0x1006)
    )

    with pytest.raises(CNIError) as caught:
        attachment.alias(WHO, Spec(ips=many), started_ns=7)

    assert (caught.value.code, caught.value.msg) == (
        7,
        "6 addresses are too many for one interface",
    )


def test_what_is_no_alias_of_ours_stands_for_nobody() -> None:
    for text in (
        "",
        "uplink to rack 7",
        "isthmus/2 b 7 shop c1 eth0 10.9.0.2/24",
        "isthmus/1 b x shop c1 eth0 10.9.0.2/24",
        "isthmus/1 b 7 shop c1 eth0 10.9.0.999/24",
        "isthmus/1 b 7 shop c1 eth0 10.9.0.2/24 tcp/x/80",
        "isthmus/1 b 7 shop c1 eth0 10.9.0.2/24 quic/1/80",
        "isthmus/1 b:cni0::1/2/3 7 shop c1 eth0 10.9.0.2/24",
        "isthmus/1 b:cni0::1/2/3/x 7 shop c1 eth0 10.9.0.2/24",
        "isthmus/1 b 7 shop c1 eth0",
    ):
        assert attachment.record_of_alias(text, boot_id="b") is None


def test_the_delegate_that_was_asked_is_kept() -> None:
    asked = Delegate(kind="static", stdin="{}")

    assert attachment.design(WHO, conf(), Result(), delegate=asked).delegate == asked
