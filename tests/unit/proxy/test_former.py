"""What an agent that begins anew finds in the maps is what the one before had planned."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from dataplane.nft.objects import Protocol
from proxy.former import Former
from proxy.model import Endpoint, NodeView, Service, ServiceName, ServicePort, TrafficPolicy
from proxy.plan import Planned, elements, frontends, plan

NODE = NodeView(name="here")
WEB = Service(
    name=ServiceName("shop", "web"),
    ports=(ServicePort(name="http", protocol=Protocol.TCP, port=80, node_port=30080),),
    cluster_ips=(ip_address("10.96.0.20"), ip_address("fd96::20")),
    external_ips=(ip_address("192.0.2.7"),),
)
LOCAL = TrafficPolicy.LOCAL


def planned(service: Service, *numbers: int, before: Planned | None = None) -> Planned:
    members = tuple(
        Endpoint(address=ip_address(f"{prefix}{n}"), port=8080, node="here" if n % 2 else "there")
        for n in numbers
        for prefix in ("10.244.1.", "fd24::")
    )
    return plan(
        service,
        {("http", Protocol.TCP): members},
        NODE,
        owned=list(frontends(service, (4, 6))),
        before=before,
    )


@pytest.mark.parametrize(
    "service",
    [
        WEB,
        replace(WEB, external_policy=LOCAL),
        replace(WEB, internal_policy=LOCAL),
        replace(WEB, internal_policy=LOCAL, external_policy=LOCAL),
    ],
)
def test_slots_are_read_back_as_they_were_planned(service: Service) -> None:
    # Not in the order of addresses: one that went left its slot to the last.
    was = planned(service, 2, 3, 4, 5, before=planned(service, 1, 2, 3, 4, 5))

    found = Former(elements(was)).planned(service, was.owned)

    assert {key: slots for key, slots in was.slots.items() if slots} == found.slots
    assert list(elements(planned(service, 2, 3, 4, 5, before=found))) == list(elements(was))


def test_of_what_nobody_had_there_is_nothing() -> None:
    found = Former(()).planned(WEB, list(frontends(WEB, (4, 6))))

    assert found.slots == {}
