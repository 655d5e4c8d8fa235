"""The whole configuration: order of checks, defaults, and that nothing gets out but a CNIError."""

import json
from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.args import Pod, Requested
from cni.capabilities import PortMapping
from cni.config import NetConf, Program, identify, parse, version_of
from cni.environment import Call, Verb
from cni.errors import CNIError
from cni.link_config import Mode
from cni.result import DNS, Interface, IPConfig, Result
from ipam.leases import Attachment
from ipam.ranges import Range, RangeSet

SAMPLES = Path(__file__).parents[2] / "data" / "stdin"

BASE: dict[str, Any] = {"cniVersion": "1.1.0", "name": "pnet", "type": "isthmus"}
SUBNET: dict[str, Any] = {"subnet": "10.1.0.0/16"}


def call(verb: Verb = Verb.ADD, args: str = "") -> Call:
    return Call(command=verb, container_id="c1", netns="/run/netns/a", ifname="eth0", args=args)


def conf(program: Program = Program.MAIN, /, **keys: object) -> NetConf:
    return parse(json.dumps(BASE | keys).encode(), call(), program)


def refusal(stdin: bytes, verb: Verb = Verb.ADD, args: str = "") -> CNIError:
    with pytest.raises(CNIError) as caught:
        parse(stdin, call(verb, args))

    return caught.value


def refused(**keys: object) -> CNIError:
    return refusal(json.dumps(BASE | keys).encode())


def test_what_podman_sends_becomes_one_value() -> None:
    stdin = {
        "cniVersion": "1.0.0",
        "name": "pnet",
        "type": "isthmus",
        "bridge": "cni-podman1",
        "capabilities": {"portMappings": True, "ips": True},
        "ipMasq": True,
        "ipam": {"type": "isthmus", "ranges": [[SUBNET]], "routes": [{"dst": "0.0.0.0/0"}]},
        "runtimeConfig": {
            "aliases": {"pnet": ["web", "90212c314deb"]},
            "portMappings": [{"hostPort": 18080, "containerPort": 80, "protocol": "tcp"}],
        },
        "somebodyElse": {"x": [1, 2]},
    }

    found = parse(json.dumps(stdin).encode(), call(args="IgnoreUnknown=1;K8S_POD_NAME=pt2"))

    assert (found.cni_version, found.name, found.type, found.delegate) == (
        "1.0.0",
        "pnet",
        "isthmus",
        "",
    )
    assert found.link.bridge == "cni-podman1"
    assert found.link.ip_masq
    assert found.ipam is not None
    assert found.ipam.range_sets == (RangeSet((Range.of(ip_network("10.1.0.0/16")),)),)
    assert found.port_mappings == (PortMapping(host_port=18080, container_port=80),)
    assert found.aliases == ("web", "90212c314deb")
    assert found.requested == Requested(pod=Pod(name="pt2"))
    assert found.prev_result is None


@pytest.mark.parametrize("sample", sorted(SAMPLES.iterdir()), ids=lambda sample: sample.stem)
def test_what_a_runtime_sends_is_taken_whole(sample: Path) -> None:
    verb = Verb.GC if "gc" in sample.stem else Verb.ADD
    found = parse(sample.read_bytes(), call(verb))

    assert found.ipam is not None
    assert found.ipam.range_sets or found.delegate
    assert (found.prev_result is not None) == (b"prevResult" in sample.read_bytes())


@pytest.mark.parametrize(
    ("stdin", "verb", "code", "msg"),
    [
        (b"[]", Verb.CHECK, 6, "cannot decode the network configuration"),
        (b'{"cniVersion":1.0}', Verb.ADD, 7, "missing network name"),
        (b'{"name":"","cniVersion":"9"}', Verb.ADD, 7, "missing network name"),
        (b'{"name":"te%%st","cniVersion":"9"}', Verb.ADD, 7, "invalid characters found in network"),
        (b'{"name":1}', Verb.ADD, 6, "invalid name: 1 is not a string"),
        (b'{"name":"n","cniVersion":1.0,"vlan":-1}', Verb.ADD, 6, "invalid cniVersion: 1.0"),
        (b'{"name":"n","cniVersion":"9.9.9","vlan":-1}', Verb.GC, 1, "incompatible CNI versions"),
        (b'{"name":"n","cniVersion":"0.3.1","vlan":-1}', Verb.CHECK, 1, "does not allow CHECK"),
        (b'{"name":"n","cniVersion":"1.0.0","vlan":-1}', Verb.STATUS, 1, "does not allow STATUS"),
        (b'{"name":"n","vlan":-1}', Verb.ADD, 7, "invalid vlan: -1"),
    ],
)
def test_of_several_faults_the_first_in_order_is_named(
    stdin: bytes, verb: Verb, code: int, msg: str
) -> None:
    error = refusal(stdin, verb)

    assert error.code == code
    assert msg in error.msg


@pytest.mark.parametrize("version", [None, ""])
def test_without_a_version_it_is_the_oldest(version: str | None) -> None:
    assert conf(cniVersion=version).cni_version == "0.1.0"


@pytest.mark.parametrize("ipam", [None, {}])
def test_without_ipam_the_link_has_no_addresses(ipam: object) -> None:
    assert conf(ipam=ipam).ipam is None
    assert conf().ipam is None


def test_a_foreign_ipam_type_is_delegated_unread() -> None:
    found = conf(ipam={"type": "dhcp", "subnet": 7})

    assert found.delegate == "dhcp"
    assert found.ipam is not None
    assert found.ipam.delegate == "dhcp"


def test_a_delegates_gateway_may_be_a_router_on_the_wire() -> None:
    assert conf(ipam=SUBNET).is_gateway
    assert not conf(ipam={"type": "dhcp"}).is_gateway
    assert conf(ipam={"type": "dhcp"}, isDefaultGateway=True).is_gateway
    assert conf(ipam={"type": "dhcp"}, mode="routed").is_gateway
    assert not conf(ipam=SUBNET, isGateway=False).is_gateway
    assert conf(ipam=SUBNET, isGateway=False, isDefaultGateway=True).is_gateway


def test_a_default_route_is_added_unless_routes_or_the_lack_of_a_gateway_forbid() -> None:
    routes = {"routes": [{"dst": "10.0.0.0/8"}]}

    assert conf(ipam=SUBNET).default_route
    assert not conf(ipam=SUBNET | routes).default_route
    assert conf(ipam=SUBNET | routes, isDefaultGateway=True).default_route
    assert not conf(ipam=SUBNET, isDefaultGateway=False).default_route
    assert not conf(ipam=SUBNET, isGateway=False).default_route
    assert not conf(ipam={"type": "host-local"} | routes, isGateway=True).default_route


def test_runtime_config_dns_comes_before_the_networks() -> None:
    network = {"nameservers": ["10.0.0.1"], "domain": "d"}
    runtime = {"dns": {"Servers": ["10.96.0.10"], "Searches": None, "Options": None}}

    assert conf().dns is None
    assert conf(dns=network).dns == DNS(nameservers=("10.0.0.1",), domain="d")
    assert conf(dns={"nameservers": []}).dns == DNS()
    assert conf(dns=network, runtimeConfig=runtime).dns == DNS(nameservers=("10.96.0.10",))
    assert conf(dns=network, runtimeConfig={"dns": {}}).dns == DNS(
        nameservers=("10.0.0.1",), domain="d"
    )


def test_a_networks_own_limits_come_before_the_runtimes() -> None:
    runtime = {"bandwidth": {"egressRate": 2, "egressBurst": 2}}

    own = conf(ingressRate=1, ingressBurst=1, runtimeConfig=runtime).bandwidth
    sent = conf(runtimeConfig=runtime).bandwidth

    assert own is not None
    assert (own.ingress_rate, own.egress_rate) == (1, 0)
    assert sent is not None
    assert sent.egress_rate == 2


def test_as_an_ipam_plugin_the_callers_keys_are_not_ours() -> None:
    keys = {
        "type": "macvlan",
        "mode": "private",
        "mtu": 3,
        "ipam": {"type": "isthmus-ipam", **SUBNET},
        "runtimeConfig": {"portMappings": 7, "bandwidth": 7, "ips": ["10.1.0.9"]},
    }

    found = conf(Program.IPAM, **keys)

    assert found.link.mode is Mode.BRIDGE
    assert found.requested.addresses == (ip_address("10.1.0.9"),)
    assert found.ipam is not None
    assert found.ipam.range_sets


def test_as_an_ipam_plugin_an_absent_section_asks_for_blocks_of_the_node() -> None:
    found = conf(Program.IPAM, ipam=None)

    assert found.ipam is not None
    assert (found.ipam.from_blocks, found.ipam.pools) == (True, ())


@pytest.mark.parametrize(
    ("keys", "code", "complaint"),
    [
        ({"ipam": SUBNET, "disableContainerInterface": True}, 7, "ipam and disableContainerInter"),
        ({"mode": "routed"}, 7, "missing ipam"),
        ({"ipam": {"subnet": "fd00::/64"}, "mtu": 1279}, 7, "mtu: 1279 is not at least 1280"),
        ({"ipam": {"type": "../x"}}, 7, 'ipam.type: "../x"'),
        ({"ipam": []}, 7, "ipam: [] is not an object"),
        ({"runtimeConfig": []}, 7, "runtimeConfig: [] is not an object"),
        ({"args": {"cni": []}}, 7, "args.cni: [] is not an object"),
        ({"dns": {"nameservers": "x"}}, 7, 'dns.nameservers: "x" is not a list'),
        ({"standalone": "true"}, 7, 'standalone: "true" is not true or false'),
        ({"ipMasqBackend": "iptables"}, 2, 'ipMasqBackend: "iptables"'),
        ({"prevResult": []}, 6, "prevResult: [] is not an object"),
        ({"prevResult": {"cniVersion": "2"}}, 6, "prevResult.cniVersion"),
        ({"prevResult": {"ips": [{"address": 1}]}}, 6, "prevResult.ips[0].address: 1"),
    ],
)
def test_a_fault_is_named_with_its_key(keys: dict[str, object], code: int, complaint: str) -> None:
    error = refused(**keys)

    assert error.code == code
    assert complaint in error.msg


def test_mtu_has_no_ipv6_floor_without_ipv6() -> None:
    assert conf(ipam=SUBNET, mtu=1279).link.mtu == 1279


def test_malformed_cni_args_are_an_invalid_environment() -> None:
    error = refusal(json.dumps(BASE).encode(), args="FOO")

    assert (error.code, error.msg) == (4, 'ARGS: invalid pair "FOO"')


@pytest.mark.parametrize(
    ("version", "document"),
    [
        ("0.2.0", {"ip4": {"ip": "10.0.0.2/24"}}),
        ("0.4.0", {"ips": [{"version": "4", "address": "10.0.0.2/24"}], "dns": {}}),
        ("1.1.0", {"ips": [{"address": "10.0.0.2/24"}]}),
    ],
)
def test_prev_result_is_read_in_the_configurations_version(
    version: str, document: dict[str, object]
) -> None:
    assert conf(cniVersion=version, prevResult=document).prev_result == Result(
        ips=(IPConfig(address=ip_interface("10.0.0.2/24")),)
    )


def test_an_empty_prev_result_is_still_one() -> None:
    assert conf(prevResult={}).prev_result == Result()
    assert conf(prevResult={"interfaces": [{"name": "a"}]}).prev_result == Result(
        interfaces=(Interface(name="a"),)
    )


VALID, OLD = "cni.dev/valid-attachments", "cni.dev/attachments"
ONE = [{"containerID": "c1", "ifname": "eth0"}]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, None),
        ({VALID: None}, frozenset()),
        ({VALID: []}, frozenset()),
        ({OLD: ONE}, frozenset({Attachment("pnet", "c1", "eth0")})),
        ({VALID: ONE, OLD: []}, frozenset({Attachment("pnet", "c1", "eth0")})),
        ({VALID: None, OLD: ONE}, frozenset()),
    ],
)
def test_gc_tells_no_list_from_an_empty_one(
    keys: dict[str, object], expected: frozenset[Attachment] | None
) -> None:
    assert identify(json.dumps(BASE | keys).encode(), Verb.GC).valid_attachments == expected


@pytest.mark.parametrize(
    "value", ["all", {}, ["c1"], [{"containerID": "c1"}], [{"containerID": "", "ifname": "e"}]]
)
def test_a_damaged_list_of_valid_attachments_deletes_nothing(value: object) -> None:
    with pytest.raises(CNIError, match="valid-attachments") as caught:
        identify(json.dumps(BASE | {VALID: value}).encode(), Verb.GC)

    assert caught.value.code == 7


def test_a_deletion_reads_no_more_than_it_needs() -> None:
    broken = BASE | {"vlan": -1, "prevResult": 7, "runtimeConfig": 7, VALID: 7}
    stdin = json.dumps(broken | {"ipam": {"type": "host-local"}, "standalone": True}).encode()

    found = identify(stdin, Verb.DEL)

    assert (found.name, found.delegate, found.standalone) == ("pnet", "host-local", True)
    assert found.valid_attachments is None


@pytest.mark.parametrize(
    ("stdin", "version"),
    [
        (b'{"cniVersion":"0.4.0"}', "0.4.0"),
        (b"{}", "0.1.0"),
        (b'{"cniVersion":"9.9.9"}', "1.1.0"),
        (b'{"cniVersion":1}', "1.1.0"),
        (b"nonsense", "1.1.0"),
    ],
)
def test_an_error_is_answered_in_the_version_asked_for_where_there_is_one(
    stdin: bytes, version: str
) -> None:
    assert version_of(stdin) == version


KEYS = [
    "cniVersion",
    "name",
    "type",
    "mode",
    "bridge",
    "isGateway",
    "vlan",
    "vlanTrunk",
    "id",
    "minID",
    "mtu",
    "ipMasq",
    "ipam",
    "subnet",
    "ranges",
    "rangeStart",
    "gateway",
    "routes",
    "dst",
    "gw",
    "reservations",
    "runtimeConfig",
    "portMappings",
    "hostPort",
    "HostPort",
    "containerPort",
    "protocol",
    "hostIP",
    "bandwidth",
    "ingressRate",
    "ips",
    "mac",
    "dns",
    "servers",
    "Servers",
    "nameservers",
    "aliases",
    "args",
    "cni",
    "prevResult",
    "interfaces",
    "interface",
    "address",
    "ip4",
    "ip",
    "containerID",
    "cni.dev/valid-attachments",
    "standalone",
]
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["1.1.0", "0.2.0", "pnet", "10.1.0.0/16", "fd00::/64", "10.1.0.5", "tcp"])
)
documents = st.dictionaries(
    st.sampled_from(KEYS),
    st.recursive(
        leaves,
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS), inner),
        max_leaves=12,
    ),
)
programs = st.sampled_from(Program)
verbs = st.sampled_from([verb for verb in Verb if verb is not Verb.VERSION])


def code_of(attempt: Callable[[], object]) -> int:
    """The code of the error that *attempt* raises, or 0."""
    try:
        attempt()
    except CNIError as error:
        return error.code
    return 0


def read(stdin: bytes, verb: Verb, args: str, program: Program) -> None:
    allowed = (0, 1, 2, 4, 6, 7)

    assert code_of(lambda: hash(parse(stdin, call(verb, args), program))) in allowed
    assert code_of(lambda: identify(stdin, verb)) in allowed
    assert code_of(lambda: version_of(stdin)) == 0


@given(documents, verbs, st.text(), programs)
def test_any_json_is_a_frozen_configuration_or_a_cni_error(
    document: dict[str, object], verb: Verb, args: str, program: Program
) -> None:
    whole = {"cniVersion": "1.1.0", "name": "pnet", "ipam": SUBNET} | document

    for attempt in (document, whole):
        read(json.dumps(attempt).encode(), verb, args, program)


@given(st.binary(), verbs, programs)
def test_any_bytes_are_a_configuration_or_a_cni_error(
    stdin: bytes, verb: Verb, program: Program
) -> None:
    read(stdin, verb, "", program)
