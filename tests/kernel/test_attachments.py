"""Attachments as pods use them: real namespaces, real packets, a node wired in this process."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from cni.attachment import host_name
from cni.dispatch import serve
from ipam.leases import Attachment
from tests.kernel.agents import Machine, Pod
from tests.kernel.conftest import Namespace
from tests.kernel.nodes import Site, error_of, request, site_of
from tests.kernel.sockets import Echo, ask

pytestmark = pytest.mark.kernel

Conf = dict[str, Any]
V4: Conf = {"ranges": [[{"subnet": "10.9.0.0/24"}]]}
V6: Conf = {"ranges": [[{"subnet": "fd09::/64"}]]}
DUAL: Conf = {"ranges": [*V4["ranges"], *V6["ranges"]]}
HOST4, HOST6 = "192.0.2.1", "2001:db8::1"


def conf(**keys: Any) -> Conf:
    """A network; a key of None is left out."""
    usual: Conf = {"cniVersion": "1.1.0", "name": "shop", "type": "isthmus", "ipam": V4}
    return {key: value for key, value in (usual | keys).items() if value is not None}


@pytest.fixture
def site(machine: Machine) -> Iterator[Site]:
    """A node whose host has an address of each family beside its bridges."""
    for address in (f"{HOST4}/32", f"{HOST6}/128"):
        machine.host.run("ip", "address", "add", address, "dev", "lo")
    with site_of(machine) as found, found.wired.links.host(), found.wired.host._conntrack():
        yield found  # the sockets of this thread are closed after it


def call(site: Site, verb: str, pod: Pod, network: Conf, **variables: str) -> Conf:
    """The document of one call, result or error; {} for silence."""
    asked = request(site, verb, pod, network)
    asked = replace(asked, environment={**asked.environment, **variables})
    response = serve(asked, site.wired.node)
    document: Conf = json.loads(response.stdout) if response.stdout else {}
    return document


def add(site: Site, network: Conf, pod: Pod | None = None, **variables: str) -> tuple[Pod, Conf]:
    """A pod that was attached, and the result."""
    pod = pod or site.machine.pod()
    result = call(site, "ADD", pod, network, **variables)
    assert "code" not in result, result
    return pod, result


def refused(site: Site, network: Conf, pod: Pod | None = None) -> Conf:
    return error_of(site.call("ADD", pod or site.machine.pod(), network))


def addresses_of(result: Conf) -> list[str]:
    return [ip["address"].split("/")[0] for ip in result["ips"]]


def host_side(pod: Pod, ifname: str = "eth0") -> str:
    return host_name(Attachment("shop", pod.container_id, ifname))


def shown(namespace: Namespace, *argv: str) -> list[Conf]:
    found: list[Conf] = json.loads(namespace.run("ip", "-j", "-d", *argv) or "[]")
    return found


def link(namespace: Namespace, name: str) -> Conf:
    return shown(namespace, "link", "show", "dev", name)[0]


@pytest.mark.parametrize("mode", ["bridge", "routed"])
@pytest.mark.parametrize("ipam", [V4, V6, DUAL], ids=["ipv4", "ipv6", "dual"])
def test_pods_and_host_reach_each_other_at_once(site: Site, mode: str, ipam: Conf) -> None:
    network = conf(mode=mode, ipam=ipam)
    web, first = add(site, network)
    # The very first packet: an address still under detection would refuse to send it.
    outward = [web.namespace.pings(HOST6 if ":" in a else HOST4) for a in addresses_of(first)]
    shell, _ = add(site, network)

    assert all(outward)
    for address in addresses_of(first):
        assert shell.namespace.pings(address)
        assert site.machine.host.pings(address)


@pytest.mark.parametrize("mode", ["bridge", "routed"])
def test_everything_is_gone_after_del_and_the_rest_goes_on(site: Site, mode: str) -> None:
    network = conf(mode=mode, ipam=DUAL, ipMasq=True)
    gone, _ = add(site, network)
    stays, result = add(site, network)

    assert call(site, "DEL", gone, network) == {}
    assert gone.addresses() == []
    assert site.machine.links() == [host_side(stays)]
    assert all(site.machine.host.pings(address) for address in addresses_of(result))
    assert call(site, "CHECK", stays, network | {"prevResult": result}) == {}


@pytest.mark.parametrize("mode", ["bridge", "routed"])
@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_check_right_after_add_finds_nothing(site: Site, mode: str, version: str) -> None:
    network = conf(mode=mode, ipam=DUAL, ipMasq=True, cniVersion=version)
    pod, result = add(site, network)

    assert call(site, "CHECK", pod, network | {"prevResult": result}) == {}


def test_the_result_is_what_the_kernel_shows(site: Site) -> None:
    pod, result = add(site, conf(ipam=DUAL))

    bridge, outer, inner = result["interfaces"]
    assert link(site.machine.host, "cni0")["address"] == bridge["mac"]
    assert link(site.machine.host, outer["name"])["address"] == outer["mac"]
    assert link(pod.namespace, "eth0")["address"] == inner["mac"]
    assert pod.addresses() == addresses_of(result)


def test_the_mtu_is_that_of_the_uplink_on_both_ends(site: Site) -> None:
    host = site.machine.host
    host.run("ip", "link", "add", "up0", "mtu", "1400", "type", "veth", "peer", "up1")
    host.run("ip", "link", "set", "up0", "up")
    host.run("ip", "link", "set", "up1", "up")
    host.run("ip", "address", "add", "198.51.100.2/24", "dev", "up0")
    host.run("ip", "route", "add", "default", "via", "198.51.100.1")
    site.wired.host.forget()

    pod, _ = add(site, conf())
    other, _ = add(site, conf(mtu=1300))

    assert (link(pod.namespace, "eth0")["mtu"], link(host, host_side(pod))["mtu"]) == (1400, 1400)
    assert link(other.namespace, "eth0")["mtu"] == link(host, host_side(other))["mtu"] == 1300


def test_a_mac_that_was_asked_for_is_given(site: Site) -> None:
    pod, result = add(site, conf(runtimeConfig={"mac": "02:AA:00:00:00:07"}))

    assert link(pod.namespace, "eth0")["address"] == "02:aa:00:00:00:07"
    assert result["interfaces"][2]["mac"] == "02:aa:00:00:00:07"


def port(site: Site, pod: Pod) -> Conf:
    found: Conf = link(site.machine.host, host_side(pod))["linkinfo"]["info_slave_data"]
    return found


def test_hairpin_is_set_on_the_port(site: Site) -> None:
    plain, _ = add(site, conf())
    mirrored, _ = add(site, conf(hairpinMode=True))

    assert (port(site, plain)["hairpin"], port(site, mirrored)["hairpin"]) == (False, True)


def test_isolated_pods_reach_the_gateway_and_not_each_other(site: Site) -> None:
    network = conf(portIsolation=True)
    one, _ = add(site, network)
    _, result = add(site, network)

    assert one.namespace.pings("10.9.0.1")
    assert not one.namespace.succeeds("ping", "-c1", "-W1", addresses_of(result)[0])


def test_a_promiscuous_bridge_is_so(site: Site) -> None:
    add(site, conf(promiscMode=True))

    assert "PROMISC" in link(site.machine.host, "cni0")["flags"]


def test_a_bridge_with_another_address_is_refused_unless_forced(site: Site) -> None:
    add(site, conf())
    other, pod = conf(name="other", ipam={"subnet": "10.8.0.0/24"}), site.machine.pod()

    error = refused(site, other, pod)
    forced, result = add(site, other | {"forceAddress": True}, pod)

    assert error["code"] == 102
    assert error["msg"].startswith(
        '"cni0" already has an IP address different from 10.8.0.1/24 (10.9.0.1/24)'
    )
    assert forced.namespace.pings("10.8.0.1")
    assert addresses_of(result) == ["10.8.0.2"]


def test_a_bridge_that_was_there_keeps_its_mac_and_its_ports(site: Site) -> None:
    host = site.machine.host
    host.run("ip", "link", "add", "br7", "address", "02:00:00:00:00:77", "type", "bridge")
    host.run("ip", "link", "add", "other", "master", "br7", "type", "veth", "peer", "other1")

    pod, _ = add(site, conf(bridge="br7"))

    assert link(host, "br7")["address"] == "02:00:00:00:00:77"
    assert link(host, "other")["master"] == "br7"
    assert pod.namespace.pings("10.9.0.1")


def test_a_link_that_is_no_bridge_is_refused_and_left_alone(site: Site) -> None:
    site.machine.host.run("ip", "link", "add", "cni0", "type", "veth", "peer", "cni1")
    before = link(site.machine.host, "cni0")

    error = refused(site, conf())

    assert error["msg"] == '"cni0" already exists but is not a bridge (it is a veth)'
    assert link(site.machine.host, "cni0") == before
    assert site.machine.links() == []


def test_layer_2_alone_has_no_addresses_and_carries_frames(site: Site) -> None:
    network = conf(ipam=None)
    one, result = add(site, network)
    other, _ = add(site, network)
    for pod, address in ((one, "172.16.0.1/24"), (other, "172.16.0.2/24")):
        pod.namespace.run("ip", "address", "add", address, "dev", "eth0")

    assert "ips" not in result
    assert one.namespace.pings("172.16.0.2")
    assert shown(site.machine.host, "-4", "address", "show", "dev", "cni0") == []


def test_an_interface_that_is_not_to_be_used_stays_down(site: Site) -> None:
    pod, _ = add(site, conf(ipam=None, disableContainerInterface=True))

    assert "UP" not in link(pod.namespace, "eth0")["flags"]


def flags_of(pod: Pod) -> Conf:
    (found,) = shown(pod.namespace, "-6", "address", "show", "dev", "eth0", "scope", "global")
    address: Conf = found["addr_info"][0]
    return address


def test_duplicate_address_detection_is_done_where_it_is_wanted(site: Site) -> None:
    plain, _ = add(site, conf(ipam=V6))
    careful, _ = add(site, conf(ipam=V6, enabledad=True))

    assert flags_of(plain).get("nodad") is True
    assert "nodad" not in flags_of(careful)
    assert "tentative" not in flags_of(careful)
    assert careful.namespace.pings("fd09::1")


def test_a_duplicate_address_is_found_out_and_leaves_no_trace(site: Site) -> None:
    squatter, _ = add(site, conf(ipam=None))
    squatter.namespace.run("ip", "address", "add", "fd09::2/64", "dev", "eth0", "nodad")

    error = refused(site, conf(ipam=V6, enabledad=True))

    assert (error["code"], error["msg"]) == (102, "duplicate address detected: fd09::2/64")
    assert site.machine.links() == [host_side(squatter)]


@pytest.mark.parametrize("localnet", ["0", "1"])
def test_a_host_speaks_to_a_routed_pod_from_an_address_of_its_own(
    site: Site, localnet: str
) -> None:
    site.machine.host.run("sysctl", "-w", f"net.ipv4.conf.all.route_localnet={localnet}")
    _, result = add(site, conf(mode="routed", ipam=V4))
    address = result["ips"][0]["address"].partition("/")[0]

    [route] = json.loads(site.machine.host.run("ip", "-j", "route", "get", address))

    assert route["prefsrc"] == HOST4


def test_custom_routes_are_in_the_pod_as_they_were_written(site: Site) -> None:
    routes = [
        {"dst": "0.0.0.0/0", "mtu": 1400, "advmss": 1300},
        {"dst": "172.16.0.0/16", "gw": "10.9.0.254", "priority": 77},
        {"dst": "172.17.0.0/16", "table": 1000},
        {"dst": "172.18.0.0/16", "scope": 253},
        {"dst": "fd18::/64", "priority": 78},
    ]
    pod, result = add(site, conf(ipam={**DUAL, "routes": routes}))

    def found(family: str, dst: str, table: str = "main") -> Conf:
        return shown(pod.namespace, family, "route", "show", dst, "table", table)[0]

    default = found("-4", "default")
    assert (default["gateway"], default["metrics"]) == ("10.9.0.1", [{"mtu": 1400, "advmss": 1300}])
    priority = found("-4", "172.16.0.0/16")
    assert (priority["gateway"], priority["metric"]) == ("10.9.0.254", 77)
    assert found("-4", "172.17.0.0/16", "1000")["gateway"] == "10.9.0.1"
    on_link = found("-4", "172.18.0.0/16")
    assert (on_link["scope"], "gateway" in on_link) == ("link", False)
    assert found("-6", "fd18::/64")["metric"] == 78
    assert [route["dst"] for route in result["routes"]][:5] == [route["dst"] for route in routes]
    assert call(site, "CHECK", pod, conf(prevResult=result)) == {}


@pytest.mark.parametrize(
    "ipam",
    [
        {**V4, "routes": [{"dst": "172.16.0.0/16", "gw": "10.7.0.1"}]},
        {"subnet": "10.9.0.0/24", "gateway": "10.7.0.1"},
        {**V6, "routes": [{"dst": "fd16::/64", "gw": "fd99::1"}]},
    ],
)
def test_a_gateway_that_is_not_on_the_link_is_named_and_nothing_left(
    site: Site, ipam: Conf
) -> None:
    error = refused(site, conf(ipam=ipam))

    assert error["code"] == 102
    assert "a gateway must be in a subnet of the interface" in error["msg"]
    assert site.machine.links() == []


def test_two_gateways_of_one_destination_both_stay(site: Site) -> None:
    routes = [{"dst": "172.16.0.0/16", "gw": f"10.9.0.{last}"} for last in (253, 254)]
    pod, _ = add(site, conf(ipam={**V4, "routes": routes}))

    found = pod.namespace.run("ip", "-4", "route", "show", "172.16.0.0/16")

    assert "10.9.0.253" in found
    assert "10.9.0.254" in found or found.count("nexthop") == 2


def test_one_container_has_several_interfaces(site: Site) -> None:
    pod, first = add(site, conf())
    _, second = add(site, conf(isDefaultGateway=False), pod, CNI_IFNAME="net1")
    _, third = add(
        site,
        conf(name="back", mode="routed", ipam={"subnet": "10.7.0.0/24"}, isDefaultGateway=False),
        pod,
        CNI_IFNAME="net2",
    )

    for result in (first, second, third):
        assert site.machine.host.pings(addresses_of(result)[0])
    call(site, "DEL", pod, conf(), CNI_IFNAME="net1")
    assert pod.addresses("eth0") == addresses_of(first)
    assert pod.addresses("net1") == []
    assert site.machine.host.pings(addresses_of(third)[0])


def test_an_interface_of_somebody_else_is_refused_and_untouched(site: Site) -> None:
    pod = site.machine.pod()
    pod.namespace.run("ip", "link", "add", "eth0", "type", "veth", "peer", "eth0p")
    pod.namespace.run("ip", "address", "add", "192.0.2.77/24", "dev", "eth0")
    before = shown(pod.namespace, "address")

    error = refused(site, conf(), pod)

    assert error["code"] == 103
    assert error["msg"].startswith('container veth name ("eth0") peer provided ("isth')
    assert shown(pod.namespace, "address") == before
    assert site.machine.links() == []


def test_an_add_without_del_is_refused_and_the_pod_goes_on(site: Site) -> None:
    pod, result = add(site, conf())

    error = refused(site, conf(), pod)

    assert error["code"] == 103
    assert site.machine.host.pings(addresses_of(result)[0])
    assert call(site, "CHECK", pod, conf(prevResult=result)) == {}


def test_a_live_pod_that_the_store_forgot_is_not_disturbed(site: Site) -> None:
    pod, result = add(site, conf())
    for record in site.records():
        site.wired.leases.release(record.who).result()

    error = refused(site, conf(), pod)

    assert error["code"] == 103
    assert site.machine.host.pings(addresses_of(result)[0])


def test_a_container_that_starts_anew_in_another_namespace_is_attached_there(site: Site) -> None:
    crashed, first = add(site, conf())
    again = Pod(crashed.container_id, site.machine.pod().namespace)

    _, second = add(site, conf(), again)

    assert addresses_of(second) == addresses_of(first)
    assert crashed.addresses() == []
    assert again.namespace.pings("10.9.0.1")


def test_a_bridge_deleted_between_two_adds_is_made_again(site: Site) -> None:
    add(site, conf())
    site.machine.host.run("ip", "link", "delete", "cni0")

    pod, _ = add(site, conf())

    assert pod.namespace.pings("10.9.0.1")


def test_the_bridges_mac_stays_whoever_comes_and_goes(site: Site) -> None:
    first, _ = add(site, conf())
    seen = {link(site.machine.host, "cni0")["address"]}
    second, _ = add(site, conf(runtimeConfig={"mac": "02:00:00:00:00:01"}))
    seen.add(link(site.machine.host, "cni0")["address"])
    for pod in (first, second):
        call(site, "DEL", pod, conf())
        seen.add(link(site.machine.host, "cni0")["address"])
    _, result = add(site, conf())
    seen |= {link(site.machine.host, "cni0")["address"], result["interfaces"][0]["mac"]}

    assert len(seen) == 1


def test_layer_2_first_and_a_gateway_later_on_one_bridge(site: Site) -> None:
    pod, _ = add(site, conf(ipam=None))
    call(site, "DEL", pod, conf(ipam=None))

    again, _ = add(site, conf())

    assert again.namespace.pings("10.9.0.1")


@pytest.mark.parametrize(
    "ipam",
    [
        {"subnet": "10.9.0.0/29", "rangeStart": "10.9.0.2", "rangeEnd": "10.9.0.3"},
        {"subnet": "fd09::/64", "rangeStart": "fd09::2", "rangeEnd": "fd09::3"},
    ],
    ids=["ipv4", "ipv6"],
)
def test_neighbours_hear_of_an_address_that_is_used_again(site: Site, ipam: Conf) -> None:
    neighbour, _ = add(site, conf(ipam=ipam))
    former, result = add(site, conf(ipam=ipam, runtimeConfig={"mac": "02:00:00:00:00:0a"}))
    (address,) = addresses_of(result)
    assert neighbour.namespace.pings(address)
    call(site, "DEL", former, conf(ipam=ipam))

    later, result = add(site, conf(ipam=ipam, runtimeConfig={"mac": "02:00:00:00:00:0b"}))

    assert addresses_of(result) == [address]
    (entry,) = shown(neighbour.namespace, "neighbour", "show", "to", address)
    assert entry["lladdr"] == "02:00:00:00:00:0b"
    assert neighbour.namespace.pings(address)
    assert later.addresses() == [address]


def test_a_forged_mac_is_not_let_through(site: Site) -> None:
    pod, _ = add(site, conf(macspoofchk=True))
    honest = pod.namespace.pings("10.9.0.1")
    mac = link(pod.namespace, "eth0")["address"]
    pod.namespace.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:66")
    forged = pod.namespace.succeeds("ping", "-c1", "-W1", "10.9.0.1")
    pod.namespace.run("ip", "link", "set", "eth0", "address", mac)

    assert (honest, forged, pod.namespace.pings("10.9.0.1")) == (True, False, True)


@pytest.mark.parametrize("mode", ["bridge", "routed"])
def test_a_port_of_the_host_leads_to_the_pod(
    site: Site, mode: str, namespaces: Callable[[str], Namespace]
) -> None:
    host, client = site.machine.host, namespaces("client")
    host.run("ip", "link", "add", "up0", "type", "veth", "peer", "eth0", "netns", client.name)
    host.run("ip", "address", "add", "198.51.100.1/24", "dev", "up0")
    host.run("ip", "link", "set", "up0", "up")
    client.run("ip", "address", "add", "198.51.100.2/24", "dev", "eth0")
    client.run("ip", "link", "set", "eth0", "up")
    mappings = [{"hostPort": 8080, "containerPort": 80}]
    network = conf(mode=mode, runtimeConfig={"portMappings": mappings})
    pod, result = add(site, network)

    with Echo(pod.namespace, "web", 80):
        found = [
            ask(client, "198.51.100.1", 8080),
            ask(host, "127.0.0.1", 8080),
            ask(pod.namespace, "198.51.100.1", 8080),
        ]
        checked = call(site, "CHECK", pod, network | {"prevResult": result})
        call(site, "DEL", pod, network)
        after = ask(client, "198.51.100.1", 8080, timeout=0.5)

    assert [answer and answer.split()[0] for answer in found] == ["web"] * 3
    assert checked == {}
    assert after is None


def test_limits_are_in_force_and_gone_afterwards(site: Site) -> None:
    bandwidth = {
        "ingressRate": 8_000_000,
        "ingressBurst": 800_000,
        "egressRate": 8_000_000,
        "egressBurst": 800_000,
    }
    network = conf(runtimeConfig={"bandwidth": bandwidth})
    pod, result = add(site, network)
    before = site.machine.host.run("tc", "qdisc", "show")
    checked = call(site, "CHECK", pod, network | {"prevResult": result})
    call(site, "DEL", pod, network)

    assert before.count("qdisc tbf") == 2
    assert "rate 8Mbit" in before
    assert checked == {}
    assert "tbf" not in site.machine.host.run("tc", "qdisc", "show")
    assert "ifb" not in site.machine.host.run("ip", "-d", "link")


def has_vlan_filtering(host: Namespace) -> bool:
    made = host.succeeds("ip", "link", "add", "probe", "type", "bridge", "vlan_filtering", "1")
    host.succeeds("ip", "link", "delete", "probe")
    return made


def test_vlans_separate_or_are_refused_where_the_kernel_has_none(site: Site) -> None:
    network = conf(vlan=100, ipam=V4)
    if not has_vlan_filtering(site.machine.host):
        error = refused(site, network)

        assert error["code"] == 102
        assert "this kernel has no VLAN filtering on bridges" in error["msg"]
        assert site.machine.links() == []
        return
    one, _ = add(site, conf(vlan=100, isGateway=False))
    _, same = add(site, conf(vlan=100, isGateway=False))
    _, other = add(site, conf(vlan=101, isGateway=False))

    assert one.namespace.pings(addresses_of(same)[0])
    assert not one.namespace.succeeds("ping", "-c1", "-W1", addresses_of(other)[0])


def test_ipv6_switched_off_in_the_sandbox_is_switched_on_for_its_interface(site: Site) -> None:
    pod = site.machine.pod()
    pod.namespace.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")

    add(site, conf(ipam=V6), pod)

    assert pod.namespace.pings("fd09::1")


def test_addresses_outlive_an_interface_that_is_set_down_and_up(site: Site) -> None:
    pod, _ = add(site, conf(ipam=V6))

    pod.namespace.run("ip", "link", "set", "eth0", "down")
    pod.namespace.run("ip", "link", "set", "eth0", "up")

    assert pod.addresses() == ["fd09::2"]
