"""Why a packet may reach some endpoints and not others."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network

from hypothesis import given, settings

from dataplane.nft.objects import Protocol
from proxy.explain import Explanation
from proxy.model import Endpoint, Service, ServiceName, TrafficPolicy
from proxy.plan import Backend
from proxy.reconciler import Wanted
from proxy.tables import affinity_map
from proxy.walk import Fate, Packet, Source
from tests.unit.proxy import reference
from tests.unit.proxy.test_reconciler import (
    NODE,
    SOURCES,
    WEB,
    packets,
    pods,
    served,
    states,
)

LOCAL = TrafficPolicy.LOCAL
EXTERNAL = ip_address("192.0.2.7")


@settings(max_examples=15)
@given(states())
def test_what_is_told_is_what_the_api_promises_and_every_endpoint_has_its_reason(
    state: dict[ServiceName, Wanted],
) -> None:
    reconciler, _ = served(state)

    for packet in packets(state):
        found = reconciler.explain(packet)
        promised = reference.fate(state.values(), NODE, packet)
        assert found.is_programmed
        assert found.outcome == promised
        reached = {each.backend for each in found.candidates if not each.why_not}
        assert reached == promised.backends


def to(address: str = "10.96.0.1", source: Source = Source.POD, port: int = 80) -> Packet:
    return Packet(
        source=source,
        source_address=SOURCES[source, 4],
        address=ip_address(address),
        protocol=Protocol.TCP,
        port=port,
    )


def why(service: Service, *endpoints: Endpoint, packet: Packet | None = None) -> Mapping[int, str]:
    """Of each endpoint, by the last byte of its address, why it is not reached."""
    wanted = Wanted(service, {("tcp", Protocol.TCP): endpoints})
    reconciler, _ = served({service.name: wanted})
    found = reconciler.explain(packet or to())
    return {int(each.backend.address) & 255: each.why_not for each in found.candidates}


def endpoint(number: int, node: str = "there", **state: object) -> Endpoint:
    (((made),),) = pods(number).values()
    return replace(made, node=node, **state)  # type: ignore[arg-type]


def test_readiness_is_a_reason() -> None:
    ending = endpoint(3, is_ready=False, is_terminating=True)

    assert why(WEB, endpoint(1), endpoint(2, is_ready=False), ending) == {
        1: "",
        2: "not ready",
        3: "terminates, and others are ready",
    }


def test_topology_is_a_reason() -> None:
    far = endpoint(2, zone_hints=frozenset({"z2"}))

    assert why(WEB, endpoint(1, zone_hints=frozenset({"z1"})), far) == {
        1: "",
        2: "meant for zones z2: this is here, zone z1",
    }


def test_policies_are_reasons() -> None:
    both = endpoint(1, "here"), endpoint(2)
    outer = replace(WEB, external_ips=(EXTERNAL,), external_policy=LOCAL)
    elsewhere = "not on this node, and the policy is Local"

    assert why(replace(WEB, internal_policy=LOCAL), *both) == {1: "", 2: elsewhere}
    assert why(outer, *both, packet=to(str(EXTERNAL), Source.OUTSIDE)) == {1: "", 2: elsewhere}
    assert why(outer, *both, packet=to(str(EXTERNAL), Source.NODE)) == {1: "", 2: ""}
    assert why(outer, both[1], packet=to(str(EXTERNAL), Source.OUTSIDE)) == {2: elsewhere}


def test_source_ranges_are_a_reason() -> None:
    guarded = replace(WEB, load_balancer_ips=(EXTERNAL,), source_ranges=(ip_network("10.0.0.0/8"),))

    assert why(guarded, endpoint(1), packet=to(str(EXTERNAL), Source.OUTSIDE)) == {
        1: "loadBalancerSourceRanges do not let this source in"
    }


def told(packet: Packet) -> Explanation:
    reconciler, _ = served({WEB.name: Wanted(WEB, pods(1))})
    return reconciler.explain(packet)


def test_what_no_service_has_is_told_apart() -> None:
    cases = {
        to(port=81): (Fate.REFUSED, "no Service has this port of the cluster IP"),
        to("10.96.0.9"): (Fate.DROPPED, "it is in a range of cluster IPs, and no Service has it"),
        to("203.0.113.80"): (Fate.UNTOUCHED, "no Service has this address and port"),
    }

    for packet, (fate, reason) in cases.items():
        found = told(packet)
        assert (found.outcome.fate, str(found.outcome.reason)) == (fate, reason)
        assert (found.service, found.candidates) == (None, ())


def test_a_client_that_is_remembered_keeps_its_endpoint() -> None:
    sticky = replace(WEB, affinity_s=600)
    reconciler, tables = served({WEB.name: Wanted(sticky, pods(1, 2))})
    client = SOURCES[Source.POD, 4]
    (entry,) = (each for each in tables[4].elements or () if each.of.name == "services")
    written = replace(
        entry, of=affinity_map(4), key=client.packed + entry.key,
        data=ip_address("10.244.1.2").packed + (80).to_bytes(2) + b"\0\0", comment="",
    )  # fmt: skip
    tables[4].elements = (tables[4].elements or frozenset()) | {written}

    found = reconciler.explain(to())

    assert found.remembered == Backend(ip_address("10.244.1.2"), 80)
    assert [each.why_not for each in found.candidates] == [
        "this client keeps 10.244.1.2:80 for now", "",
    ]  # fmt: skip


def test_what_the_kernel_has_otherwise_is_told() -> None:
    reconciler, tables = served({WEB.name: Wanted(WEB, pods(1, 2))})
    tables[4].elements = frozenset(
        each for each in tables[4].elements or () if each.of.name != "services"
    )
    lacking = reconciler.explain(to())
    tables[4].elements = None
    lost = reconciler.explain(to())

    assert not lacking.is_programmed
    assert lacking.programmed is not None
    assert lacking.programmed.fate is Fate.REFUSED
    assert (lost.programmed, lost.is_programmed) == (None, False)
