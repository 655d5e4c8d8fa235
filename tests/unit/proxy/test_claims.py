from dataclasses import replace
from ipaddress import ip_address

from dataplane.nft.objects import Protocol
from proxy.claims import Claims
from proxy.model import Service, ServiceName, ServicePort
from proxy.plan import frontends

OLD = Service(
    name=ServiceName("a", "old"),
    ports=(ServicePort(name="", protocol=Protocol.TCP, port=80),),
    cluster_ips=(),
    external_ips=(ip_address("192.0.2.1"),),
    created="2026-01-01",
)
YOUNG = replace(OLD, name=ServiceName("a", "young"), created="2026-01-02")
TWIN = replace(OLD, name=ServiceName("a", "twin"), created="2026-01-02")
(FRONTEND,) = frontends(OLD, (4,))


def test_the_older_has_it_whoever_came_first() -> None:
    claims = Claims()

    assert claims.put(YOUNG, [FRONTEND]) == set()
    assert claims.put(OLD, [FRONTEND]) == {YOUNG.name}
    assert claims.owned(OLD, [FRONTEND]) == [FRONTEND]
    assert claims.owned(YOUNG, [FRONTEND]) == []
    assert claims.conflicts() == {FRONTEND: (OLD.name, [YOUNG.name])}


def test_whoever_is_next_has_it_when_the_first_goes() -> None:
    claims = Claims()
    for each in (YOUNG, OLD, TWIN):
        claims.put(each, [FRONTEND])

    assert claims.drop(OLD, [FRONTEND]) == {TWIN.name}
    assert claims.drop(TWIN, [FRONTEND]) == {YOUNG.name}
    assert claims.drop(YOUNG, [FRONTEND]) == set()
    assert claims.conflicts() == {}


def test_one_that_never_had_it_goes_without_notice() -> None:
    claims = Claims()
    claims.put(OLD, [FRONTEND])
    claims.put(YOUNG, [FRONTEND])

    assert claims.drop(YOUNG, [FRONTEND]) == set()
    assert claims.owned(OLD, [FRONTEND]) == [FRONTEND]
    assert claims.conflicts() == {}
