"""What is stored of an attachment comes back as it was."""

import json
from ipaddress import ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.args import Pod
from cni.capabilities import PortMapping, Protocol
from cni.link_config import Mode
from cni.result import IPConfig
from cni.spec import BridgeSpec, Delegate, Spec, decode, encode, link_name, of, pod_key, pod_name
from dataplane.model import Bandwidth, BridgePort, Route
from ipam.leases import Attachment, Record

TEXT = st.text(max_size=12)
U32 = st.integers(0, (1 << 32) - 1)
PORT = st.integers(1, 65535)
INTERFACES = st.ip_addresses().map(ip_interface) | st.builds(
    lambda address, prefix: ip_interface(f"{address}/{prefix}"),
    st.ip_addresses(),
    st.integers(0, 32),
)
NETWORKS = st.ip_addresses().map(ip_network)
SPECS = st.builds(
    Spec,
    link=st.booleans(),
    bridge=st.none()
    | st.builds(
        BridgeSpec,
        name=TEXT,
        gateway=st.booleans(),
        force_address=st.booleans(),
        promiscuous=st.booleans(),
        shared=st.booleans(),
    ),
    port=st.builds(
        BridgePort,
        hairpin=st.booleans(),
        isolated=st.booleans(),
        vlan=st.integers(0, 4094),
        trunk=st.lists(st.tuples(PORT, PORT), max_size=3).map(tuple),
        preserve_default_vlan=st.booleans(),
    ),
    mtu=U32,
    pod_mac=TEXT,
    ips=st.lists(
        st.builds(IPConfig, address=INTERFACES, gateway=st.none() | st.ip_addresses()), max_size=3
    ).map(tuple),
    subnets=st.lists(NETWORKS, max_size=2).map(tuple),
    routes=st.lists(
        st.builds(
            Route,
            dst=NETWORKS,
            via=st.none() | st.ip_addresses(),
            on_link=st.booleans(),
            mtu=U32,
            advmss=U32,
            priority=U32,
            table=U32,
            scope=st.none() | st.integers(0, 255),
        ),
        max_size=2,
    ).map(tuple),
    masquerade=st.booleans(),
    port_mappings=st.lists(
        st.builds(
            PortMapping,
            host_port=PORT,
            container_port=PORT,
            protocol=st.sampled_from(Protocol),
            host_ip=st.none() | st.ip_addresses(),
        ),
        max_size=2,
    ).map(tuple),
    bandwidth=st.none()
    | st.builds(Bandwidth, ingress_rate=U32, ingress_burst=U32, egress_rate=U32, egress_burst=U32),
    mac_spoof_check=st.booleans(),
    dad=st.booleans(),
    enabled=st.booleans(),
    pod=st.builds(Pod, namespace=TEXT, name=TEXT, uid=TEXT, infra_container_id=TEXT),
    delegate=st.none()
    | st.builds(
        Delegate, kind=TEXT, stdin=TEXT, args=TEXT, path=st.lists(TEXT, max_size=2).map(tuple)
    ),
)


def test_a_link_is_named_by_its_bridge_and_an_address_alone_has_none() -> None:
    bridge = Spec(bridge=BridgeSpec(name="cni0"))

    assert [link_name(one) for one in (bridge, Spec(), Spec(link=False))] == ["cni0", "", None]


@given(SPECS)
def test_what_is_encoded_is_decoded(spec: Spec) -> None:
    assert decode(encode(spec)) == spec


def test_nothing_usual_is_written() -> None:
    assert json.loads(encode(Spec())) == {
        "link": True,
        "mtu": 0,
        "mac": "",
        "ips": [],
        "subnets": [],
        "routes": [],
        "enabled": True,
    }


def test_an_empty_document_is_a_plain_link() -> None:
    assert decode("{}") == Spec()


def test_keys_of_a_later_version_are_passed_over() -> None:
    assert decode('{"mtu": 1400, "colour": "blue"}') == Spec(mtu=1400)


@pytest.mark.parametrize("text", ["", "[", '{"ips": [["10.9.0.2/99", ""]]}', '{"bridge": 7}'])
def test_what_nobody_wrote_is_refused(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        decode(text)


def test_the_mode_is_told_by_the_bridge() -> None:
    assert Spec().mode is Mode.ROUTED
    assert Spec(bridge=BridgeSpec(name="cni0")).mode is Mode.BRIDGE


@pytest.mark.parametrize(
    "damage", ["", "[]", "null", '{"ips":[["nonsense",""]]}', '{"bridge":[1]}']
)
def test_a_record_whose_spec_cannot_be_read_keeps_its_addresses(damage: str) -> None:
    record = Record(
        who=Attachment("shop", "c1", "eth0"),
        boot_id="b",
        started_ns=1,
        sandbox="/n",
        netns_cookie=1,
        addresses=(ip_interface("10.9.0.2/24"),),
        spec=damage,
    )

    assert of(record) == Spec(link=False, ips=(IPConfig(address=ip_interface("10.9.0.2/24")),))


def test_a_bridge_from_before_blocks_is_not_shared() -> None:
    assert decode('{"bridge":["cni0",true,false,false]}').bridge == BridgeSpec(name="cni0")


def test_only_a_named_pod_has_a_key_for_its_former_address() -> None:
    who = Attachment("shop", "c1", "eth0")

    assert pod_key(who, Pod(namespace="default", name="db-0")) == "shop/default/db-0/eth0"
    assert pod_name(Pod(namespace="default", name="db-0")) == "default/db-0"
    assert (pod_key(who, Pod()), pod_name(Pod(uid="u"))) == ("", "")
