"""The keys of the reference bridge plugin, and what contradicts what."""

import pytest

from cni.document import Section
from cni.errors import CNIError
from cni.link_config import LinkConf, Mode, parse_link


def link(**keys: object) -> LinkConf:
    return parse_link(Section(keys))


def test_without_any_key_it_is_a_port_of_cni0() -> None:
    assert link() == LinkConf(mode=Mode.BRIDGE, bridge="cni0", preserve_default_vlan=True)
    assert link(bridge="") == link()


def test_every_key_of_the_reference_bridge_is_read() -> None:
    found = link(
        mode="bridge",
        bridge="br0",
        mtu=9000,
        isGateway=True,
        isDefaultGateway=False,
        forceAddress=True,
        hairpinMode=True,
        portIsolation=True,
        vlan=100,
        preserveDefaultVlan=False,
        macspoofchk=True,
        enabledad=True,
        disableContainerInterface=True,
        ipMasq=True,
        ipMasqBackend="nftables",
    )

    assert found == LinkConf(
        bridge="br0",
        mtu=9000,
        is_gateway=True,
        is_default_gateway=False,
        force_address=True,
        hairpin=True,
        isolated=True,
        vlan=100,
        preserve_default_vlan=False,
        mac_spoof_check=True,
        dad=True,
        enabled=False,
        ip_masq=True,
    )


def test_a_bridge_may_start_as_our_links_do() -> None:
    assert link(bridge="isthmus0").bridge == "isthmus0"


def test_a_trunk_is_sorted_and_merged() -> None:
    trunk = [{"minID": 200, "maxID": 210}, {"id": 101}, {"minID": 205, "maxID": 220, "id": 221}, {}]

    assert link(vlanTrunk=trunk).vlan_trunk == ((101, 101), (200, 221))


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"mode": "l2"}, 'mode: "l2" is not bridge or routed'),
        ({"bridge": "a/b"}, 'bridge: "a/b" is not a name of an interface: it must not contain'),
        ({"bridge": "x" * 16}, "it is longer than 15 bytes"),
        ({"bridge": "default"}, 'bridge: "default" is not .*: it must not be all or default'),
        ({"bridge": "br%d"}, "it must not contain %"),
        ({"bridge": "isth0123456789a"}, "is not a name of a bridge: isth and 11 hexadecimal"),
        ({"mtu": 67}, "mtu: 67 is not 0"),
        ({"mtu": 65536}, "mtu: 65536"),
        ({"mtu": -1}, "mtu: -1"),
        ({"mtu": "1500"}, 'mtu: "1500"'),
        ({"isGateway": "yes"}, 'isGateway: "yes" is not true or false'),
        ({"vlan": 4095}, "vlan: 4095 is not an integer from 0 to 4094"),
        ({"vlan": -1}, "vlan: -1"),
        ({"vlan": 1, "vlanTrunk": [{"id": 2}]}, "vlan and vlanTrunk"),
        ({"vlanTrunk": [{"id": 0}]}, r"vlanTrunk\[0\]\.id: 0"),
        ({"vlanTrunk": [{"minID": 1}]}, r"vlanTrunk\[0\]\.maxID: null is not present"),
        ({"vlanTrunk": [{"maxID": 1}]}, r"vlanTrunk\[0\]\.minID: null is not present"),
        ({"vlanTrunk": [{"minID": 9, "maxID": 8}]}, r"maxID: 8 is not at least minID, which is 9"),
        ({"hairpinMode": True, "promiscMode": True}, "hairpinMode and promiscMode"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(keys: dict[str, object], complaint: str) -> None:
    with pytest.raises(CNIError, match=complaint) as caught:
        link(**keys)

    assert caught.value.code == 7


def test_a_masquerade_backend_that_we_do_not_have_is_unsupported() -> None:
    with pytest.raises(CNIError, match='ipMasqBackend: "iptables"') as caught:
        link(ipMasqBackend="iptables")

    assert caught.value.code == 2
