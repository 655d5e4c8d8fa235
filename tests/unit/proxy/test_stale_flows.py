"""Flows that are forgotten: as few as may be, and none that should go on."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

from dataplane.flows import Flows
from dataplane.nft.objects import Protocol
from net.address import IPAddress
from proxy.model import Endpoint, Endpoints, NodeView, Service, ServiceName, ServicePort
from proxy.plan import Planned, frontends, plan
from proxy.stale_flows import Departed, State, abandoned, departed, inherited, stale

NODE = NodeView(name="here", zone="z1")
CLUSTER_IP = ip_address("10.96.0.20")
A, B = ip_address("10.244.1.1"), ip_address("10.244.1.2")


def service(protocol: Protocol, node_port: int = 0) -> Service:
    return Service(
        name=ServiceName("shop", "web"),
        ports=(ServicePort(name="x", protocol=protocol, port=53, node_port=node_port),),
        cluster_ips=(CLUSTER_IP,),
    )


def at(protocol: Protocol, *addresses: IPAddress, **state: object) -> Endpoints:
    members = tuple(Endpoint(address=each, port=53, **state) for each in addresses)  # type: ignore[arg-type]
    return {("x", protocol): members}


def planned(of: Service, endpoints: Endpoints) -> Planned:
    return plan(of, endpoints, NODE, owned=list(frontends(of, (4,))))


def forgotten(
    protocol: Protocol,
    before: Endpoints | None,
    after: Endpoints | None,
    node_port: int = 0,
) -> list[Flows]:
    of = service(protocol, node_port)
    return list(
        stale(
            State(None if before is None else planned(of, before), before or {}),
            State(None if after is None else planned(of, after), after or {}),
        )
    )


def test_datagrams_to_an_endpoint_that_left_are_forgotten() -> None:
    for protocol in (Protocol.UDP, Protocol.SCTP):
        assert forgotten(protocol, at(protocol, A, B), at(protocol, B)) == [
            Flows(4, CLUSTER_IP, protocol, 53, A)
        ]


def test_datagrams_to_an_endpoint_that_is_not_ready_any_more_are_forgotten() -> None:
    unready = at(Protocol.UDP, A, is_ready=False, is_serving=False)
    after = {("x", Protocol.UDP): (*unready["x", Protocol.UDP], Endpoint(address=B, port=53))}

    assert forgotten(Protocol.UDP, at(Protocol.UDP, A, B), after) == [
        Flows(4, CLUSTER_IP, Protocol.UDP, 53, A)
    ]


def test_datagrams_to_an_endpoint_that_ends_and_still_serves_go_on() -> None:
    ending = at(Protocol.UDP, A, is_ready=False, is_serving=True, is_terminating=True)
    after = {("x", Protocol.UDP): (*ending["x", Protocol.UDP], Endpoint(address=B, port=53))}

    assert forgotten(Protocol.UDP, at(Protocol.UDP, A, B), after) == []


def test_datagrams_to_an_endpoint_that_others_are_preferred_to_go_on() -> None:
    near = Endpoint(address=B, port=53, zone_hints=frozenset({"z1"}))
    far = Endpoint(address=A, port=53, zone_hints=frozenset({"z2"}))

    assert forgotten(Protocol.UDP, at(Protocol.UDP, A, B), {("x", Protocol.UDP): (near, far)}) == []


def test_connections_are_nothing_that_is_forgotten_at_once() -> None:
    assert forgotten(Protocol.TCP, at(Protocol.TCP, A, B), at(Protocol.TCP, B)) == []
    assert forgotten(Protocol.TCP, at(Protocol.TCP, A, B), None) == []


def left(before: Endpoints, after: Endpoints | None) -> list[Departed]:
    of = service(Protocol.TCP)
    now = State(None if after is None else planned(of, after), after or {})
    return list(departed(State(planned(of, before), before), now))


def test_pods_that_no_slice_has_any_more_departed() -> None:
    (one,), (other,) = (
        at(Protocol.TCP, each, pod=f"web-{each}")["x", Protocol.TCP] for each in (A, B)
    )
    both = {("x", Protocol.TCP): (one, other)}
    unready = {("x", Protocol.TCP): (replace(one, is_ready=False, is_serving=False), other)}
    rest = {("x", Protocol.TCP): (other,)}
    gone = Departed(
        ServiceName("shop", "web"), f"web-{A}", A, (Flows(4, CLUSTER_IP, Protocol.TCP, 53, A),)
    )

    assert left(both, both) == left(both, unready) == []
    assert left(both, rest) == left(unready, rest) == [gone]
    assert {each.address for each in left(both, None)} == {A, B}


def test_who_is_no_pod_never_departs_and_datagrams_have_no_connections() -> None:
    udp = service(Protocol.UDP)
    pods = at(Protocol.UDP, A, pod="web")

    assert left(at(Protocol.TCP, A), {}) == []
    assert list(departed(State(planned(udp, pods), pods), State(None, {}))) == []


def test_connections_to_pods_that_left_while_nobody_looked_are_found() -> None:
    of, endpoints = service(Protocol.TCP, 30053), at(Protocol.TCP, B)
    state = State(planned(of, endpoints), endpoints)
    node, elsewhere = ip_address("192.0.2.1"), ip_address("192.0.2.99")
    by_ip, by_port = (Flows(4, CLUSTER_IP, Protocol.TCP, 53, to) for to in (A, B))
    flows = [
        by_ip,
        by_port,  # it is an endpoint
        Flows(4, node, Protocol.TCP, 30053, A),
        Flows(4, CLUSTER_IP, Protocol.TCP, 54, A),  # no frontend of ours
        Flows(4, CLUSTER_IP, Protocol.TCP, 53, elsewhere),  # no pod
        Flows(4, CLUSTER_IP, Protocol.TCP, 53),
    ]

    found = list(abandoned(flows, [state, State(None, {})], [ip_network("10.244.0.0/16")]))

    assert found == [
        Departed(of.name, "", A, (by_ip, Flows(4, None, Protocol.TCP, 30053, A))),
    ]


def test_who_was_not_preferred_any_more_loses_its_flows_when_it_goes() -> None:
    ending = at(Protocol.UDP, A, is_ready=False, is_serving=True, is_terminating=True)
    before = {("x", Protocol.UDP): (*ending["x", Protocol.UDP], Endpoint(address=B, port=53))}

    assert forgotten(Protocol.UDP, before, at(Protocol.UDP, B)) == [
        Flows(4, CLUSTER_IP, Protocol.UDP, 53, A)
    ]


def test_the_first_endpoint_takes_what_went_past_before() -> None:
    whatever = Flows(4, CLUSTER_IP, Protocol.UDP, 53)

    assert forgotten(Protocol.UDP, None, at(Protocol.UDP, A)) == [whatever]
    assert forgotten(Protocol.UDP, {}, at(Protocol.UDP, A)) == [whatever]
    assert forgotten(Protocol.UDP, at(Protocol.UDP, A), at(Protocol.UDP, A, B)) == []
    assert forgotten(Protocol.TCP, None, at(Protocol.TCP, A)) == []


def test_with_a_service_go_its_datagrams_at_every_frontend() -> None:
    found = forgotten(Protocol.UDP, at(Protocol.UDP, A), None, node_port=30053)

    assert set(found) == {
        Flows(4, CLUSTER_IP, Protocol.UDP, 53),
        Flows(4, None, Protocol.UDP, 30053),
    }


def test_a_frontend_that_another_service_has_now_is_as_if_it_went() -> None:
    of = service(Protocol.UDP)
    before = planned(of, at(Protocol.UDP, A))

    now = State(replace(before, owned=()), at(Protocol.UDP, A))

    found = stale(State(before, at(Protocol.UDP, A)), now)

    assert list(found) == [Flows(4, CLUSTER_IP, Protocol.UDP, 53)]


def test_what_another_proxy_translated_to_who_answers_goes_on() -> None:
    now = at(Protocol.UDP, A, B)

    found = inherited(State(None, {}), State(planned(service(Protocol.UDP), now), now))

    assert list(found) == [
        Flows(4, CLUSTER_IP, Protocol.UDP, 53, kept=frozenset({A, B})),
    ]


def test_of_who_left_while_we_were_away_flows_are_forgotten() -> None:
    before, now = at(Protocol.UDP, A, B), at(Protocol.UDP, B)
    of = service(Protocol.UDP)

    found = inherited(State(planned(of, before), {}), State(planned(of, now), now))

    assert list(found) == [Flows(4, CLUSTER_IP, Protocol.UDP, 53, A)]
