"""What tells one thing of the fabric from another: its key."""

from ipaddress import ip_address, ip_network

from dataplane.fabric_model import OVERHEAD, BlockRoute, Forward, Neighbour, Rule, Source

BLOCK = ip_network("10.80.1.0/26")
ONE, TWO = ip_address("192.0.2.1"), ip_address("192.0.2.2")


def test_what_is_replaced_in_one_step_has_one_key() -> None:
    assert BlockRoute(BLOCK, 512, 2, ONE).key == BlockRoute(BLOCK, 512, 3, TWO, ONE).key
    assert Forward(2, "02:00:00:00:00:01", ONE).key == Forward(2, "02:00:00:00:00:01", TWO).key
    assert Neighbour(2, ONE, "02:00:00:00:00:01").key == Neighbour(2, ONE, "02:00:00:00:00:02").key


def test_what_stands_beside_each_other_has_several() -> None:
    routes = {
        BlockRoute(BLOCK, priority, table=table).key for priority in (1, 2) for table in (0, 177)
    }
    others = {Source(2, ONE).key, Source(3, ONE).key, Rule(BLOCK, BLOCK, 177).key}

    assert len(routes) == 4
    assert len(others | {("x",)}) == 4


def test_a_tunnel_takes_fifty_bytes_of_each_packet_or_seventy() -> None:
    assert OVERHEAD == {4: 50, 6: 70}
