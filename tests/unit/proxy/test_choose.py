from ipaddress import ip_address

from proxy.choose import choose
from proxy.model import Endpoint, NodeView

HERE = NodeView(name="here", zone="z1")


def endpoint(number: int, node: str = "there", **state: object) -> Endpoint:
    return Endpoint(address=ip_address(f"10.0.0.{number}"), port=80, node=node, **state)  # type: ignore[arg-type]


def numbers(endpoints: tuple[Endpoint, ...]) -> list[int]:
    return [int(each.address) & 255 for each in endpoints]


def going(number: int, node: str = "there", *, is_serving: bool = True) -> Endpoint:
    return endpoint(number, node, is_ready=False, is_serving=is_serving, is_terminating=True)


def test_ready_endpoints_are_chosen_and_those_here_are_local() -> None:
    found = choose([endpoint(2), endpoint(1, "here"), endpoint(3, is_ready=False)], HERE)

    assert (numbers(found.cluster), numbers(found.local)) == ([1, 2], [1])


def test_with_none_ready_those_that_terminate_and_serve_are() -> None:
    found = choose([going(1), going(2, is_serving=False), endpoint(3, is_ready=False)], HERE)

    assert numbers(found.cluster) == [1]


def test_that_holds_for_the_local_list_by_itself() -> None:
    found = choose([endpoint(1), going(2, "here")], HERE)

    assert (numbers(found.cluster), numbers(found.local)) == ([1], [2])


def test_an_endpoint_named_by_two_slices_counts_once_and_the_readier_is_right() -> None:
    found = choose([going(1), endpoint(1)], HERE)

    assert found.cluster == (endpoint(1),)


def test_hints_for_this_node_come_before_those_for_its_zone() -> None:
    zone, node = frozenset({"z1"}), frozenset({"here"})
    endpoints = [
        endpoint(1, zone_hints=zone, node_hints=node),
        endpoint(2, zone_hints=zone, node_hints=frozenset({"there"})),
    ]

    assert numbers(choose(endpoints, HERE).cluster) == [1]
    elsewhere = NodeView(name="third", zone="z1")
    assert numbers(choose(endpoints, elsewhere).cluster) == [1, 2]


def test_hints_are_ignored_where_one_endpoint_has_none_or_none_is_for_us() -> None:
    z2 = frozenset({"z2"})

    some = choose([endpoint(1, zone_hints=frozenset({"z1"})), endpoint(2)], HERE)
    other = choose([endpoint(1, zone_hints=z2), endpoint(2, zone_hints=z2)], HERE)

    assert numbers(some.cluster) == numbers(other.cluster) == [1, 2]


def test_nobody_anywhere_is_told_from_nobody_here() -> None:
    assert choose([endpoint(1)], HERE).is_anywhere
    assert not choose([endpoint(1, is_ready=False)], HERE).is_anywhere
