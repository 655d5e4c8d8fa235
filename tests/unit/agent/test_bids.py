from ipaddress import ip_address

from agent.bids import Bids
from dataplane.nft.objects import Protocol
from proxy.model import Endpoint, Service, ServiceName, TrafficPolicy
from proxy.reconciler import Wanted

ONE, TWO = ip_address("192.0.2.1"), ip_address("2001:db8::1")
WEB, DNS = ServiceName("shop", "web"), ServiceName("shop", "dns")


def wanted(
    name: ServiceName,
    *,
    policy: TrafficPolicy = TrafficPolicy.CLUSTER,
    at: str = "there",
    is_ready: bool = True,
    is_assigned: bool = True,
) -> Wanted:
    service = Service(
        name=name,
        ports=(),
        cluster_ips=(),
        load_balancer_ips=(ONE, TWO),
        external_policy=policy,
        is_assigned=is_assigned,
    )
    endpoint = Endpoint(address=ip_address("10.0.0.1"), port=1, node=at, is_ready=is_ready)
    return Wanted(service, {("http", Protocol.TCP): (endpoint,)})


def test_any_node_can_answer_for_a_service_of_policy_cluster() -> None:
    bids = Bids("here")
    bids.told(WEB, wanted(WEB))

    assert bids.now() == {ONE, TWO}


def test_of_policy_local_only_a_node_with_a_ready_endpoint_can() -> None:
    local, bids = TrafficPolicy.LOCAL, Bids("here")

    for at, is_ready, can in (("there", True, False), ("here", False, False), ("here", True, True)):
        bids.told(WEB, wanted(WEB, policy=local, at=at, is_ready=is_ready))
        assert bids.now() == ({ONE, TWO} if can else set())


def test_an_address_that_two_share_needs_both() -> None:
    local, bids = TrafficPolicy.LOCAL, Bids("here")
    bids.told(WEB, wanted(WEB))
    bids.told(DNS, wanted(DNS, policy=local))
    assert not bids.now()

    bids.told(DNS, None)
    assert bids.now() == {ONE, TWO}


def test_addresses_that_others_gave_are_not_bid_for() -> None:
    bids = Bids("here")
    bids.told(WEB, wanted(WEB))
    bids.told(WEB, wanted(WEB, is_assigned=False))

    assert not bids.now()
