"""What carries a mark of ours, and what does not."""

from dataclasses import replace

import pytest

from cli.leftovers import is_own_bridge, is_own_veth, is_used_bridge
from cni.attachment import bridge
from cni.spec import BridgeSpec, Spec
from dataplane.rtnl import DELETE_GROUP, Link

VETH = Link(
    index=5,
    name="isth0123456789a",
    kind="veth",
    mac="02:00:00:00:00:01",
    mtu=1500,
    up=True,
    promiscuous=False,
    alias="isthmus/1 bm 1 n c eth0 10.66.0.2/16",
    master=9,
    group=0,
    peer=2,
)
MADE = bridge(Spec(bridge=BridgeSpec(name="cni0")), seed="machine")
assert MADE is not None
BRIDGE = replace(VETH, index=9, name="cni0", kind="bridge", alias="", mac=MADE.mac, master=0)


@pytest.mark.parametrize(
    ("link", "ours"),
    [
        (VETH, True),
        (replace(VETH, alias="", group=DELETE_GROUP), True),
        (replace(VETH, alias=""), False),
        (replace(VETH, alias="somebody's"), False),
        (replace(VETH, name="veth12"), False),
    ],
)
def test_a_link_is_ours_by_prefix_and_mark_together(link: Link, ours: bool) -> None:
    assert is_own_veth(link) is ours


def test_a_bridge_is_ours_by_its_mac_and_goes_when_it_has_no_port() -> None:
    assert is_own_bridge(BRIDGE, [BRIDGE], seed="machine")
    assert not is_own_bridge(BRIDGE, [BRIDGE, VETH], seed="machine")
    assert not is_own_bridge(BRIDGE, [BRIDGE], seed="another machine")
    assert not is_own_bridge(replace(BRIDGE, kind="veth"), [], seed="machine")


def test_a_bridge_is_used_that_we_made_or_that_has_a_port_of_ours() -> None:
    foreign = replace(BRIDGE, mac="02:00:00:00:00:09")
    other_port = replace(VETH, name="veth12", alias="")

    assert is_used_bridge(BRIDGE, [BRIDGE], seed="machine")
    assert is_used_bridge(foreign, [foreign, VETH], seed="machine")
    assert not is_used_bridge(foreign, [foreign, other_port], seed="machine")
    assert not is_used_bridge(foreign, [foreign, replace(VETH, master=3)], seed="machine")
    assert not is_used_bridge(replace(BRIDGE, kind="veth"), [BRIDGE], seed="machine")
