"""What an operator gets who says nothing."""

from routing.settings import Mode, Settings


def test_direct_where_it_can_be_and_the_port_that_vxlan_has() -> None:
    assert Settings() == Settings(mode=Mode.AUTO, vni=4177, port=4789, device="vxisthmus", mtu=0)
